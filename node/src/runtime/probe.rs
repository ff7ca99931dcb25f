//! Headquarters' look at a mapped address from outside (R94).
use std::{net::SocketAddr, time::Duration};

use branchline_protocol::{charter::ProbeResult, ids::SiteName, wire::site::ProbeRequest};
use http_body_util::Empty;
use hyper::{Request, StatusCode, body::Bytes};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::wall_time;

/// How long one try of one port may take.
const TRY: Duration = Duration::from_secs(3);
/// Tries of one port; an agent may need a moment after its mapping appears.
const TRIES: u32 = 4;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// Tries every declared port and says what it saw.
pub async fn probe(site: SiteName, request: &ProbeRequest) -> ProbeResult {
    let mut ports = Vec::new();
    for (port, path) in &request.ports {
        let address = SocketAddr::new(request.mapped.into(), *port);
        let mut seen = Err("not tried".to_owned());
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            seen = match timeout(TRY, look(address, path)).await {
                Ok(seen) => seen,
                Err(_) => Err(format!("no answer from {address} in {} s", TRY.as_secs())),
            };
            if seen.is_ok() {
                break;
            }
        }
        ports.push((*port, seen.err()));
    }
    let session = request.session;
    ProbeResult { site, session, plan: request.plan, mapped: request.mapped, ports, probed_at: wall_time() }
}

async fn look(address: SocketAddr, path: &str) -> Result<(), String> {
    let stream = TcpStream::connect(address).await.map_err(|error| format!("connecting to {address}: {error}"))?;
    if path.is_empty() {
        return Ok(());
    }
    let wrong = |reason: String| format!("http://{address}{path}: {reason}");
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| wrong(error.to_string()))?;
    tokio::spawn(connection);
    let request = Request::get(path)
        .header("host", address.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(|error| wrong(error.to_string()))?;
    let answer = sender.send_request(request).await.map_err(|error| wrong(error.to_string()))?;
    match answer.status() {
        StatusCode::OK => Ok(()),
        status => Err(wrong(format!("status {status}, expected 200"))),
    }
}
