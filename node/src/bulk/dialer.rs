//! Dialling: from the node's own address, so that both ends see where the other stands.
use std::{net::SocketAddr, time::Duration};

use branchline_protocol::{
    ids::{NodeId, SiteName},
    wire::bulk::BulkMessage,
};
use rustls::pki_types::ServerName;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    certificate::{TlsIdentity, peer_of},
    connection::{Established, HELLO_TIMEOUT, LinkError, ends, judge, kind_of, own_hello},
    framing::{dialled, prepare, read_message, write_message},
};
use crate::mesh::Documents;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to a node and exchanges hellos.
pub(super) async fn dial(
    documents: &Documents,
    tls: &TlsIdentity,
    site: &SiteName,
    node: NodeId,
    address: SocketAddr,
) -> Result<Established, LinkError> {
    let stream = timeout(CONNECT_TIMEOUT, connect(documents.addresses().bulk, address));
    let stream = stream.await.map_err(|_| LinkError::Timeout("connecting"))??;
    let (own, other) = ends(&stream)?;
    let stream = prepare(stream)?;
    let name = ServerName::IpAddress(address.ip().into());
    let stream = timeout(HELLO_TIMEOUT, TlsConnector::from(tls.client.clone()).connect(name, stream));
    let stream = stream.await.map_err(|_| LinkError::Timeout("the TLS handshake"))??;
    let found = peer_of(stream.get_ref().1.peer_certificates()).ok_or(LinkError::NoIdentity)?;
    if found != node {
        return Err(LinkError::OtherNode { found, expected: node });
    }
    let mut stream = dialled(stream);
    let hello = own_hello(documents, site).ok_or(LinkError::NoHello)?;
    write_message(&mut stream, &BulkMessage::Hello(hello)).await?;
    let answer = timeout(HELLO_TIMEOUT, read_message(&mut stream)).await;
    let hello = match answer.map_err(|_| LinkError::Timeout("waiting for the peer's hello"))?? {
        BulkMessage::Accepted(hello) => hello,
        BulkMessage::Refused(refusal) => return Err(LinkError::RefusedThere(refusal)),
        _ => return Err(LinkError::NoHello),
    };
    let admission = judge(documents, node, &hello).map_err(LinkError::Refused)?;
    let kind = kind_of(documents, site, node, (own.ip(), other.ip()));
    let kind = kind.filter(|_| admission.site == *site).ok_or(LinkError::NoHello)?;
    Ok(Established { peer: node, site: site.clone(), kind, dialled: true, hello, stream })
}

async fn connect(own: SocketAddr, address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if own.is_ipv4() == address.is_ipv4() && !own.ip().is_unspecified() {
        socket.bind(SocketAddr::new(own.ip(), 0))?;
    }
    socket.connect(address).await
}
