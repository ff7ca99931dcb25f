//! The SNMP driver against the demo's router, over real sockets on loopback.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use branchline::{
    demo::router::{DemoRouter, DemoRouterConfig},
    router::{RouterConfig, RouterCredentials, SnmpRouter},
};
use branchline_protocol::charter::AddressBatch;
use branchline_station_role::router::{
    NatTable, RouterError, RouterOperation, RouterResult, RowGeneration, RowIndex, RowStatus,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

const INSIDE: Ipv4Addr = Ipv4Addr::new(127, 81, 1, 10);

/// A router in this process, and what a driver needs to reach it.
struct Lab {
    directory: tempfile::TempDir,
    config: DemoRouterConfig,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn credentials(authentication: &str, privacy: &str) -> RouterCredentials {
    RouterCredentials { authentication_passphrase: authentication.to_owned(), privacy_passphrase: privacy.to_owned() }
}

/// `net` keeps the tests' mapped addresses apart: they run at the same time.
fn mapped(net: u8, last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 82, net, last)
}

async fn lab(net: u8, ports: Vec<u16>, change: impl FnOnce(&mut DemoRouterConfig)) -> Lab {
    let mut config = DemoRouterConfig {
        snmp_address: SocketAddr::from((Ipv4Addr::new(127, 80, net, 1), 0)),
        interface_index: 2,
        forwarded_ports: ports,
        user: "station".to_owned(),
        read_only_user: Some("reader".to_owned()),
        rows_max: 100,
        read_only: false,
        only_in_steps: false,
        state_file: None,
        mapped_addresses: vec![AddressBatch { first: mapped(net, 1), last: mapped(net, 99) }],
        credentials: credentials("authentication-1", "privacy-phrase-1"),
    };
    change(&mut config);
    let router = DemoRouter::bind(config.clone()).await.unwrap();
    let address = router.snmp_address();
    let serving = tokio::spawn(async move { router.run().await.unwrap() });
    Lab { directory: tempfile::tempdir().unwrap(), config, address, serving }
}

impl Lab {
    fn write_credentials(&self, credentials: &RouterCredentials) -> PathBuf {
        let path = self.directory.path().join("credentials.toml");
        std::fs::write(&path, toml::to_string(credentials).unwrap()).unwrap();
        path
    }

    fn driver_with(&self, credentials: &RouterCredentials, change: impl FnOnce(&mut RouterConfig)) -> SnmpRouter {
        let mut config = RouterConfig {
            address: self.address,
            interface_index: 2,
            user: "station".to_owned(),
            credentials_file: self.write_credentials(credentials),
            profile: "nat-mib".to_owned(),
            // On a busy machine half a second can pass in silence.
            request_timeout_milliseconds: 5_000,
            retries: 0,
        };
        change(&mut config);
        SnmpRouter::new(config).unwrap()
    }

    fn driver(&self) -> SnmpRouter {
        self.driver_with(&self.config.credentials, |_| {})
    }
}

fn row(sequence: u32) -> RowIndex {
    RowIndex::new(RowGeneration::new(1, 0).unwrap(), sequence).unwrap()
}

fn map(sequence: u32, inside: Ipv4Addr, mapped: Ipv4Addr) -> RouterOperation {
    RouterOperation::Map { row: row(sequence), inside, mapped }
}

async fn table(driver: &SnmpRouter) -> NatTable {
    match driver.perform(&RouterOperation::ReadTable).await.unwrap() {
        RouterResult::Table(table) => table,
        other => panic!("{other:?}"),
    }
}

/// A host inside that sends back what it gets, with a greeting.
async fn host(address: Ipv4Addr) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 64];
                while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                    if stream.write_all(&[b"inside:", &buffer[..length]].concat()).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    (port, serving)
}

async fn say(stream: &mut TcpStream, text: &str) -> std::io::Result<String> {
    stream.write_all(text.as_bytes()).await?;
    let mut buffer = [0; 64];
    let length = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut buffer)).await.unwrap()?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

#[tokio::test]
async fn a_mapping_carries_traffic_until_it_is_removed() {
    let (port, _host) = host(INSIDE).await;
    let lab = lab(1, vec![port], |_| {}).await;
    let driver = lab.driver();
    assert_eq!(table(&driver).await, NatTable::default());

    let outside = mapped(1, 1);
    let made = driver.perform(&map(1, INSIDE, outside)).await.unwrap();
    let RouterResult::Mapped(found) = &made else { panic!("{made:?}") };
    assert!(found.is_binding(INSIDE, outside));
    let mut flow = TcpStream::connect((outside, port)).await.unwrap();
    assert_eq!(say(&mut flow, "hello").await.unwrap(), "inside:hello");
    assert!(table(&driver).await.rows.into_values().eq([found.clone()]));

    // The same once more, as after a lost answer, is no error and cuts nothing.
    assert_eq!(driver.perform(&map(1, INSIDE, outside)).await.unwrap(), made);
    assert_eq!(say(&mut flow, "again").await.unwrap(), "inside:again");

    for _ in 0..2 {
        let gone = driver.perform(&RouterOperation::Unmap { row: row(1) }).await.unwrap();
        assert_eq!(gone, RouterResult::Unmapped(row(1)));
    }
    let end = say(&mut flow, "anybody?").await;
    assert!(end.as_ref().is_ok_and(String::is_empty) || end.is_err(), "the flow lives on: {end:?}");
    assert!(TcpStream::connect((outside, port)).await.is_err(), "the listener lives on");
    assert_eq!(table(&driver).await, NatTable::default());
}

#[tokio::test]
async fn addresses_in_use_are_refused_and_change_nothing() {
    let lab = lab(2, vec![], |_| {}).await;
    let driver = lab.driver();
    driver.perform(&map(1, INSIDE, mapped(2, 1))).await.unwrap();
    let before = table(&driver).await;
    let other = Ipv4Addr::new(127, 81, 1, 11);
    for operation in [
        map(1, other, mapped(2, 1)),
        map(2, other, mapped(2, 1)),
        map(2, INSIDE, mapped(2, 2)),
        map(2, other, Ipv4Addr::new(127, 83, 0, 1)),
    ] {
        let error = driver.perform(&operation).await.unwrap_err();
        assert!(matches!(error, RouterError::InUse { .. }), "{operation}: {error:?}");
        assert_eq!(table(&driver).await, before, "{operation} left something behind");
    }
}

#[tokio::test]
async fn a_router_that_takes_rows_in_steps_only_gets_them_so() {
    let lab = lab(3, vec![], |config| config.only_in_steps = true).await;
    let driver = lab.driver();
    driver.perform(&map(1, INSIDE, mapped(3, 1))).await.unwrap();
    let error = driver.perform(&map(2, INSIDE, mapped(3, 2))).await.unwrap_err();
    assert!(matches!(error, RouterError::InUse { .. }), "{error:?}");
    let rows = table(&driver).await.rows;
    assert_eq!(rows.len(), 1, "nothing half made stays behind: {rows:?}");
    assert!(rows.values().all(|row| row.status == RowStatus::Active));
}

#[tokio::test]
async fn a_hundred_rows_are_read_and_the_next_does_not_fit() {
    let lab = lab(4, vec![], |config| config.rows_max = 99).await;
    let driver = lab.driver();
    let inside = |number: u8| Ipv4Addr::new(127, 81, 4, number);
    for number in 1..=99 {
        driver.perform(&map(u32::from(number), inside(number), mapped(4, number))).await.unwrap();
    }
    let rows = table(&driver).await.rows;
    assert_eq!(rows.len(), 99);
    for (number, row) in (1..=99).zip(rows.values()) {
        assert!(row.is_binding(inside(number), mapped(4, number)), "{row:?}");
    }
    let error = driver.perform(&map(100, inside(100), mapped(4, 1))).await.unwrap_err();
    assert_eq!(error, RouterError::TableFull);
}

#[tokio::test]
async fn who_may_not_write_is_told_so() {
    let lab = lab(5, vec![], |_| {}).await;
    let good = lab.config.credentials.clone();
    let operation = map(1, INSIDE, mapped(5, 1));

    let reader = lab.driver_with(&good, |config| config.user = "reader".to_owned());
    assert_eq!(table(&reader).await, NatTable::default());
    let error = reader.perform(&operation).await.unwrap_err();
    assert!(matches!(error, RouterError::NoAccess { .. }), "{error:?}");

    let stranger = lab.driver_with(&good, |config| config.user = "stranger".to_owned());
    let error = stranger.perform(&operation).await.unwrap_err();
    // The agent reports an unknown user (RFC 3414, 3.2), and the driver asks for that report.
    assert!(matches!(error, RouterError::Unauthorised { .. }), "{error:?}");

    let wrong = lab.driver_with(&credentials("another-phrase", "privacy-phrase-1"), |_| {});
    let error = wrong.perform(&operation).await.unwrap_err();
    assert!(matches!(error, RouterError::Unauthorised { .. }), "{error:?}");
    assert!(error.outcome_is_unknown(), "the report that says so can be forged");

    // A wrong privacy passphrase is reported by some routers and ignored by others.
    let wrong = lab.driver_with(&credentials("authentication-1", "another-phrase"), |config| {
        config.request_timeout_milliseconds = 500;
    });
    let error = wrong.perform(&operation).await.unwrap_err();
    assert!(matches!(error, RouterError::Unauthorised { .. } | RouterError::NoAnswer { .. }), "{error:?}");

    let elsewhere = lab.driver_with(&good, |config| config.interface_index = 7);
    let error = elsewhere.perform(&operation).await.unwrap_err();
    assert_eq!(error, RouterError::UnknownInterface { interface: 7 });

    assert_eq!(table(&lab.driver()).await, NatTable::default(), "nobody of them changed anything");
}

#[tokio::test]
async fn a_router_that_is_read_only_or_gone_is_told_apart() {
    let lab = lab(6, vec![], |config| config.read_only = true).await;
    let operation = map(1, INSIDE, mapped(6, 1));
    let error = lab.driver().perform(&operation).await.unwrap_err();
    assert!(matches!(error, RouterError::NotWritable { .. }), "{error:?}");
    assert!(error.needs_a_person());

    let nobody = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let silent = lab.driver_with(&lab.config.credentials.clone(), |config| {
        config.address = nobody.local_addr().unwrap();
        config.request_timeout_milliseconds = 100;
    });
    let error = silent.perform(&operation).await.unwrap_err();
    assert!(matches!(error, RouterError::NoAnswer { .. }), "{error:?}");
    assert!(error.outcome_is_unknown());
}

#[tokio::test]
async fn an_address_that_cannot_be_listened_on_fails_the_commit_and_changes_nothing() {
    let (port, _host) = host(INSIDE).await;
    let lab = lab(7, vec![port], |_| {}).await;
    let taken = TcpListener::bind((mapped(7, 1), port)).await.unwrap();
    let error = lab.driver().perform(&map(1, INSIDE, mapped(7, 1))).await.unwrap_err();
    assert_eq!(error, RouterError::CommitFailed);
    assert_eq!(table(&lab.driver()).await, NatTable::default());
    drop(taken);
    lab.driver().perform(&map(1, INSIDE, mapped(7, 1))).await.unwrap();
}

#[tokio::test]
async fn rows_survive_a_restart_of_the_router_and_the_driver_finds_it_again() {
    let (port, _host) = host(INSIDE).await;
    let directory = tempfile::tempdir().unwrap();
    let state_file = directory.path().join("router.json");
    let mut first = lab(8, vec![port], |config| config.state_file = Some(state_file.clone())).await;
    let driver = first.driver();
    driver.perform(&map(1, INSIDE, mapped(8, 1))).await.unwrap();
    let before = table(&driver).await;
    first.serving.abort();
    assert!((&mut first.serving).await.unwrap_err().is_cancelled());

    let address = first.address;
    let _second = lab(8, vec![port], |config| {
        config.snmp_address = address;
        config.state_file = Some(state_file);
    })
    .await;
    let mut after = driver.perform(&RouterOperation::ReadTable).await;
    if after.is_err() {
        // The engine's clock went back to zero: learned anew at the second attempt.
        after = driver.perform(&RouterOperation::ReadTable).await;
    }
    assert_eq!(after, Ok(RouterResult::Table(before)));
    let mut flow = TcpStream::connect((mapped(8, 1), port)).await.unwrap();
    assert_eq!(say(&mut flow, "still").await.unwrap(), "inside:still");
}
