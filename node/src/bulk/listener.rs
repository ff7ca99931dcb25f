//! Listening: nothing is said to a peer before its hello is accepted.
use std::{sync::Arc, time::Duration};

use branchline_protocol::{limits::BULK_HANDSHAKES_MAX, refusal::RefusalKind, wire::bulk::BulkMessage};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    certificate::{TlsIdentity, peer_of},
    connection::{Established, HELLO_TIMEOUT, LinkError, ends, judge, kind_of, own_hello},
    framing::{accepted, prepare, read_message, write_message},
    links::Inbound,
};
use crate::mesh::Documents;

/// Accepts connections until the service is gone.
pub(super) async fn listen(
    listener: TcpListener,
    documents: Documents,
    tls: TlsIdentity,
    inbox: mpsc::Sender<Inbound>,
) {
    let handshakes = Arc::new(Semaphore::new(BULK_HANDSHAKES_MAX));
    loop {
        let permit = Arc::clone(&handshakes).acquire_owned().await;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Typically too many open files: go on when some are closed.
                tracing::warn!(%error, "cannot accept a bulk connection");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (documents, tls, inbox) = (documents.clone(), tls.clone(), inbox.clone());
        tokio::spawn(async move {
            let address = stream.peer_addr();
            match accept(stream, &documents, &tls).await {
                Ok(established) => drop(inbox.send(Inbound::Established(Box::new(established))).await),
                Err(error) => tracing::info!(?address, %error, "a bulk connection was not accepted"),
            }
            drop(permit);
        });
    }
}

async fn accept(stream: TcpStream, documents: &Documents, tls: &TlsIdentity) -> Result<Established, LinkError> {
    let (own, other) = ends(&stream)?;
    let stream = prepare(stream)?;
    let stream = timeout(HELLO_TIMEOUT, TlsAcceptor::from(tls.server.clone()).accept(stream));
    let stream = stream.await.map_err(|_| LinkError::Timeout("the TLS handshake"))??;
    let peer = peer_of(stream.get_ref().1.peer_certificates()).ok_or(LinkError::NoIdentity)?;
    let mut stream = accepted(stream);
    let first = timeout(HELLO_TIMEOUT, read_message(&mut stream)).await;
    let BulkMessage::Hello(hello) = first.map_err(|_| LinkError::Timeout("waiting for a hello"))?? else {
        return Err(LinkError::NoHello);
    };
    let site = match judge(documents, peer, &hello) {
        Ok(admission) => admission.site,
        Err(refusal) => {
            // Only who belongs here may learn why not: an old version, or the same identity on two machines.
            if refusal.kind == RefusalKind::DuplicateIdentity {
                write_message(&mut stream, &BulkMessage::Refused(refusal.clone())).await?;
            }
            return Err(LinkError::Refused(refusal));
        }
    };
    let kind = kind_of(documents, &site, peer, (own.ip(), other.ip())).ok_or(LinkError::NoHello)?;
    let own = own_hello(documents, &site).ok_or(LinkError::NoHello)?;
    write_message(&mut stream, &BulkMessage::Accepted(own)).await?;
    Ok(Established { peer, site, kind, dialled: false, hello, stream })
}
