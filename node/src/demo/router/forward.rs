//! Listeners on mapped addresses that copy both ways to the inside address, TCP only.
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};

use thiserror::Error;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

/// Flows at one mapped address and port; further ones wait in the listener's backlog.
const FLOWS_MAX: usize = 128;
const CONNECT_LONGEST: Duration = Duration::from_secs(5);

/// A listener could not be opened.
#[derive(Debug, Error)]
#[error("{address}: {source}")]
pub struct ForwardError {
    address: SocketAddrV4,
    source: std::io::Error,
}

/// One mapping in force. Dropping it ends its listeners and cuts its flows.
#[derive(Debug)]
struct Mapping {
    inside: Ipv4Addr,
    listeners: JoinSet<()>,
}

/// All mappings in force.
#[derive(Debug)]
pub(super) struct Forwarder {
    ports: Vec<u16>,
    mappings: BTreeMap<Ipv4Addr, Mapping>,
}

impl Forwarder {
    pub(super) fn new(ports: Vec<u16>) -> Self {
        Self { ports, mappings: BTreeMap::new() }
    }

    /// Makes exactly the wanted mappings be in force; those that stay keep their flows.
    ///
    /// On an error what is not wanted any more is gone, and what could not be opened is missing.
    pub(super) async fn set(&mut self, wanted: &BTreeMap<Ipv4Addr, Ipv4Addr>) -> Result<(), ForwardError> {
        let stays = |mapped: &Ipv4Addr, mapping: &Mapping| wanted.get(mapped) == Some(&mapping.inside);
        let gone: Vec<Ipv4Addr> = self
            .mappings
            .iter()
            .filter(|(mapped, mapping)| !stays(mapped, mapping))
            .map(|(mapped, _)| *mapped)
            .collect();
        for mapped in gone {
            if let Some(mut mapping) = self.mappings.remove(&mapped) {
                // Waits until the listeners are closed, so that the address can be bound again at once.
                mapping.listeners.shutdown().await;
            }
        }
        for (mapped, inside) in wanted {
            if !self.mappings.contains_key(mapped) {
                let mapping = self.open(*mapped, *inside).await?;
                self.mappings.insert(*mapped, mapping);
            }
        }
        Ok(())
    }

    async fn open(&self, mapped: Ipv4Addr, inside: Ipv4Addr) -> Result<Mapping, ForwardError> {
        let mut listeners = JoinSet::new();
        for port in &self.ports {
            let address = SocketAddrV4::new(mapped, *port);
            let listener = TcpListener::bind(address).await.map_err(|source| ForwardError { address, source })?;
            listeners.spawn(accept(listener, SocketAddrV4::new(inside, *port)));
        }
        Ok(Mapping { inside, listeners })
    }
}

async fn accept(listener: TcpListener, inside: SocketAddrV4) {
    let slots = Arc::new(Semaphore::new(FLOWS_MAX));
    // The flows end with this task: dropping a `JoinSet` aborts what it holds.
    let mut flows = JoinSet::new();
    loop {
        while flows.try_join_next().is_some() {}
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((outer, _)) => {
                flows.spawn(async move {
                    let _slot = slot;
                    forward(outer, inside).await;
                });
            }
            // Out of descriptors, or a connection that was gone already: neither ends the mapping.
            Err(error) => {
                tracing::warn!(%inside, %error, "a connection to a mapped address was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn forward(mut outer: TcpStream, inside: SocketAddrV4) {
    match timeout(CONNECT_LONGEST, TcpStream::connect(inside)).await {
        Ok(Ok(mut inner)) => {
            // Either end may reset at any time; the other end sees the close.
            let _ = copy_bidirectional(&mut outer, &mut inner).await;
        }
        Ok(Err(error)) => tracing::debug!(%inside, %error, "nobody answers inside"),
        Err(_) => tracing::debug!(%inside, "nobody answers inside in time"),
    }
}
