//! Asks an agent on this host whether it works (R84, R94).
//!
//! The installer has no network: it opens one kind of connection, to an address that is this host's own, for this
//! question, and the book says so. It listens nowhere but on its Unix socket.
use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use branchline_protocol::plan::HealthCheck;

/// How long one question may take.
const QUESTION_LIMIT: Duration = Duration::from_secs(5);
/// Pause between two questions.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Asks once.
///
/// # Errors
/// A sentence: what was asked, and what came instead of a good answer.
pub fn ask(check: &HealthCheck) -> Result<(), String> {
    let url = format!("http://{}:{}{}", check.address, check.port, check.http_path);
    let address: IpAddr =
        check.address.parse().map_err(|_| format!("{url}: the plan's health check must name an address"))?;
    if UdpSocket::bind((address, 0)).is_err() {
        return Err(format!("{url}: {address} is not an address of this host, and the installer asks no other"));
    }
    if !check.http_path.starts_with('/') || check.http_path.chars().any(|c| c.is_control() || c == ' ') {
        return Err(format!("{url}: the path of the plan's health check is not usable"));
    }
    let answer =
        get(SocketAddr::new(address, check.port), &check.http_path).map_err(|error| format!("{url}: {error}"))?;
    let status = answer.split_whitespace().nth(1).unwrap_or("nothing");
    if status != "200" {
        return Err(format!("{url} answered {status} instead of 200"));
    }
    match &check.expected_text {
        Some(text) if !answer.contains(text.as_str()) => Err(format!("{url} answered, but without {text:?}")),
        _ => Ok(()),
    }
}

/// Status line, headers and body, as they came (HTTP/1.0, so that the body is never in chunks; RFC 1945).
fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, QUESTION_LIMIT)?;
    stream.set_read_timeout(Some(QUESTION_LIMIT))?;
    stream.set_write_timeout(Some(QUESTION_LIMIT))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: */*\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Asks until the answer is good, `alive` says that the service has ended for good, or the check's time is over. `alive`
/// is told whether there was a good answer, which another process may have given.
///
/// # Errors
/// The last fault.
pub fn wait(check: &HealthCheck, mut alive: impl FnMut(bool) -> Result<(), String>) -> Result<(), String> {
    let limit = Duration::from_secs(u64::from(check.timeout_seconds));
    let started = Instant::now();
    loop {
        let fault = match ask(check) {
            Ok(()) => return alive(true),
            Err(fault) => fault,
        };
        alive(false)?;
        if started.elapsed() >= limit {
            return Err(format!("{fault} (for {} s)", limit.as_secs()));
        }
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn check(port: u16) -> HealthCheck {
        HealthCheck {
            address: "127.0.0.1".into(),
            port,
            http_path: "/health".into(),
            expected_text: Some("ok".into()),
            timeout_seconds: 0,
        }
    }

    fn answering(answer: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 512];
                let _ = stream.read(&mut request);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        port
    }

    #[test]
    fn good_and_bad_answers_are_told_apart() {
        assert_eq!(ask(&check(answering("HTTP/1.0 200 OK\r\n\r\nok\n"))), Ok(()));
        let fault = ask(&check(answering("HTTP/1.0 503 Busy\r\n\r\nok\n"))).unwrap_err();
        assert!(fault.contains("503"), "{fault}");
        let fault = ask(&check(answering("HTTP/1.0 200 OK\r\n\r\nno\n"))).unwrap_err();
        assert!(fault.contains("without \"ok\""), "{fault}");
    }

    #[test]
    fn no_other_host_is_asked() {
        let other = HealthCheck { address: "192.0.2.1".into(), ..check(80) };
        assert!(ask(&other).unwrap_err().contains("is not an address of this host"));
    }

    #[test]
    fn a_service_that_ended_is_not_waited_for() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let check = HealthCheck { timeout_seconds: 600, ..check(port) };
        assert_eq!(wait(&check, |_| Err("it ended".into())), Err("it ended".into()));
    }
}
