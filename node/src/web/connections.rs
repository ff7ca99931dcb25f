//! HTTP for whoever dials: bounded connections, in all and of one address, with a patience for each step.
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::Router;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

/// What a listener allows before anybody has said who it is.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Connections at once; more wait in the kernel's backlog.
    pub connections: usize,
    /// Connections at once from one address; more are closed, so that one machine cannot shut the door for all.
    pub connections_of_one_address: usize,
    /// How long a handshake and a request's head may each take; the door gives a body and the station's answer as long.
    pub patience: Duration,
    /// How long a connection may last: enough for the install tool over a thin line.
    pub life: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections: 64,
            connections_of_one_address: 16,
            patience: Duration::from_secs(10),
            life: Duration::from_secs(600),
        }
    }
}

/// Serves each connection with the router that `site` makes for its address, over TLS where there is an acceptor; ends with
/// the runtime.
pub async fn serve_connections(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    limits: ConnectionLimits,
    site: impl Fn(SocketAddr) -> Router,
) {
    let (places, open) = (Arc::new(Semaphore::new(limits.connections)), Open::default());
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, from)) = listener.accept().await else {
            // Out of file descriptors: an immediate retry would spin.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Some(place) = Place::take(&open, from.ip(), limits.connections_of_one_address, place) else {
            tracing::debug!(%from, "a connection is closed: this address has too many");
            continue;
        };
        let (acceptor, router) = (acceptor.clone(), site(from));
        tokio::spawn(async move {
            let _place = place;
            match acceptor {
                None => serve(stream, router, limits).await,
                Some(acceptor) => {
                    let Ok(Ok(stream)) = timeout(limits.patience, acceptor.accept(stream)).await else { return };
                    serve(stream, router, limits).await;
                }
            }
        });
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router, limits: ConnectionLimits) {
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.patience);
    let _ = timeout(limits.life, http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))).await;
}

/// The connections of each address that has some; at most [`ConnectionLimits::connections`] entries.
type Open = Arc<Mutex<BTreeMap<IpAddr, usize>>>;

/// One connection's place, given back when it ends.
struct Place {
    open: Open,
    address: IpAddr,
    _of_all: OwnedSemaphorePermit,
}

impl Place {
    /// A place for a connection from `address`; none where it has as many as one address may.
    fn take(open: &Open, address: IpAddr, most: usize, of_all: OwnedSemaphorePermit) -> Option<Self> {
        let mut counts = open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Self { open: Arc::clone(open), address, _of_all: of_all })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}
