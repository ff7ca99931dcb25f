//! Headquarters' look at a mapped address from outside (R94).
use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use branchline_protocol::{
    charter::{ProbeResult, TriedPort},
    ids::SiteName,
    limits::HEADQUARTERS_UNDECLARED_TRIES_MAX,
    wire::site::ProbeRequest,
};
use http_body_util::Empty;
use hyper::{Request, StatusCode, body::Bytes};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::Semaphore, task::JoinSet, time::timeout};

use super::wall_time;

/// How long one try of one port may take.
const TRY: Duration = Duration::from_secs(3);
/// Tries of one port; an agent may need a moment after its mapping appears.
const TRIES: u32 = 4;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);
/// How long an undeclared port is waited for, whose packets a good filter drops. Kernels send a lost first packet again
/// after a second, so one loss does not hide a port.
const UNDECLARED_TRY: Duration = Duration::from_millis(1_300);

/// Each try has a socket of its own: many hosts at once must not leave headquarters without.
static UNDECLARED_TRIES: Semaphore = Semaphore::const_new(HEADQUARTERS_UNDECLARED_TRIES_MAX);

/// Tries every declared port, then all undeclared ones at once, and says what it saw.
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
    // Only now: a declared port that answered shows that the mapping is in force.
    let undeclared = try_undeclared(request.mapped, &request.undeclared).await;
    let (session, plan, mapped) = (request.session, request.plan, request.mapped);
    ProbeResult { site, session, plan, mapped, ports, undeclared, probed_at: wall_time() }
}

/// Which of `ports` take a connection, sorted by port. One whose try failed for a reason of this machine is left out:
/// nothing is known of it.
async fn try_undeclared(mapped: Ipv4Addr, ports: &[u16]) -> Vec<TriedPort> {
    let mut tries = JoinSet::new();
    for port in ports.iter().copied() {
        tries.spawn(async move {
            let _permit = UNDECLARED_TRIES.acquire().await.ok()?;
            let address = SocketAddr::new(mapped.into(), port);
            match timeout(UNDECLARED_TRY, TcpStream::connect(address)).await {
                Ok(Ok(_)) => Some(TriedPort { port, answers: true }),
                Ok(Err(error)) if !is_from_there(error.kind()) => {
                    tracing::warn!(%address, %error, "an undeclared port cannot be tried");
                    None
                }
                Ok(Err(_)) | Err(_) => Some(TriedPort { port, answers: false }),
            }
        });
    }
    let mut tried: Vec<TriedPort> = tries.join_all().await.into_iter().flatten().collect();
    tried.sort_unstable_by_key(|tried| tried.port);
    tried
}

/// Whether a failed connection tells of the other side or of the way to it, and not of this machine.
fn is_from_there(kind: ErrorKind) -> bool {
    use ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, TimedOut};
    matches!(kind, ConnectionRefused | ConnectionReset | HostUnreachable | TimedOut)
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

#[cfg(test)]
mod tests {
    use branchline_protocol::ids::{Hash, NodeId, PlanHash, SessionId};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_probe_tells_open_ports_from_closed_ones_declared_or_not() {
        let mapped = Ipv4Addr::LOCALHOST;
        let (declared, open) =
            (TcpListener::bind((mapped, 0)).await.unwrap(), TcpListener::bind((mapped, 0)).await.unwrap());
        let closed = TcpListener::bind((mapped, 0)).await.unwrap().local_addr().unwrap().port();
        let (declared_port, open_port) = (declared.local_addr().unwrap().port(), open.local_addr().unwrap().port());
        let request = ProbeRequest {
            session: SessionId { node: NodeId([1; 32]), generation: 1 },
            plan: PlanHash(Hash::of(b"plan")),
            mapped,
            ports: vec![(declared_port, String::new())],
            undeclared: vec![open_port, closed],
            attempt: 1,
        };
        let result = probe("store-17".parse().unwrap(), &request).await;
        assert!(result.passed(), "{result:?}");
        let mut wanted = [TriedPort { port: open_port, answers: true }, TriedPort { port: closed, answers: false }];
        wanted.sort_unstable_by_key(|tried| tried.port);
        assert_eq!(result.undeclared, wanted);
    }

    #[tokio::test]
    async fn many_ports_are_tried_in_turns() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let open = listener.local_addr().unwrap().port();
        let ports = vec![open; 2 * HEADQUARTERS_UNDECLARED_TRIES_MAX];
        tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        let tried = try_undeclared(Ipv4Addr::LOCALHOST, &ports).await;
        assert_eq!(tried, vec![TriedPort { port: open, answers: true }; ports.len()]);
    }

    #[test]
    fn what_this_machine_lacks_says_nothing_of_the_other() {
        let exhausted = std::io::Error::from_raw_os_error(24);
        assert!(!is_from_there(exhausted.kind()), "too many open files: {:?}", exhausted.kind());
        for own in [ErrorKind::PermissionDenied, ErrorKind::AddrNotAvailable, ErrorKind::NetworkUnreachable] {
            assert!(!is_from_there(own), "{own:?}");
        }
    }
}
