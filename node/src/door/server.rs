//! The station's side of the door.
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use branchline_protocol::{
    charter::{BeginRequest, Signed},
    refusal::{Refusal, RefusalKind},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{BeginAnswer, REQUEST_BYTES_MAX};
use crate::config::DoorCertificate;

/// Connections at once; more wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 64;
/// How long a handshake and a request's head may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may last: enough for the install tool over a thin line.
const CONNECTION_LIFE: Duration = Duration::from_secs(600);

/// A request to begin, and where its answer goes.
pub struct BeginInquiry {
    /// What was posted; nothing of it is verified yet.
    pub request: Signed<BeginRequest>,
    /// Where it came from.
    pub from: SocketAddr,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<BeginAnswer, Refusal>>,
}

/// What the door gives away.
#[derive(Clone, Debug)]
pub struct DoorFiles {
    /// The survey script, whole.
    pub survey_script: Arc<str>,
    /// The signatures by file name.
    pub signatures: Arc<[(String, String)]>,
    /// The install tool: this binary.
    pub install_tool: PathBuf,
}

#[derive(Clone)]
struct Shared {
    files: DoorFiles,
    inquiries: mpsc::Sender<BeginInquiry>,
    from: SocketAddr,
}

/// The listening door.
pub struct Door;

impl Door {
    /// Listens; serves until the task is dropped with the runtime.
    ///
    /// # Errors
    /// The address cannot be listened on, or the certificate does not fit its key.
    pub async fn open(
        listen: SocketAddr,
        certificate: &DoorCertificate,
        files: DoorFiles,
    ) -> Result<mpsc::Receiver<BeginInquiry>> {
        let chain = vec![CertificateDer::from(certificate.certificate.clone())];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certificate.key.clone()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .context("using the public door's certificate")?;
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("listening at {listen} for the public door (is the port taken?)"))?;
        let (inquiries, receiver) = mpsc::channel(64);
        tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), files, inquiries));
        Ok(receiver)
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, files: DoorFiles, inquiries: mpsc::Sender<BeginInquiry>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, from)) = listener.accept().await else {
            // Out of file descriptors: an immediate retry would spin.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let acceptor = acceptor.clone();
        let service =
            TowerToHyperService::new(router(Shared { files: files.clone(), inquiries: inquiries.clone(), from }));
        tokio::spawn(async move {
            let _place = place;
            let Ok(Ok(stream)) = timeout(PATIENCE, acceptor.accept(stream)).await else { return };
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
            let _ = timeout(CONNECTION_LIFE, http.serve_connection(TokioIo::new(stream), service)).await;
        });
    }
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/survey.sh", get(survey_script))
        .route("/signatures", get(signatures))
        .route("/signatures/{name}", get(signature))
        .route("/install-tool", get(install_tool))
        .route("/begin", post(begin))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .with_state(shared)
}

fn script(text: String) -> Response {
    ([(header::CONTENT_TYPE, "text/x-shellscript; charset=utf-8")], text).into_response()
}

async fn survey_script(State(shared): State<Shared>) -> Response {
    script(shared.files.survey_script.to_string())
}

async fn signatures(State(shared): State<Shared>) -> Response {
    let names: Vec<&str> = shared.files.signatures.iter().map(|(name, _)| name.as_str()).collect();
    Json(names).into_response()
}

async fn signature(State(shared): State<Shared>, Path(name): Path<String>) -> Response {
    match shared.files.signatures.iter().find(|(known, _)| *known == name) {
        Some((_, text)) => script(text.clone()),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn install_tool(State(shared): State<Shared>) -> Response {
    match tokio::fs::File::open(&shared.files.install_tool).await {
        Ok(file) => Body::from_stream(tokio_util::io::ReaderStream::new(file)).into_response(),
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn begin(State(shared): State<Shared>, body: Bytes) -> Response {
    let Ok(request) = serde_json::from_slice::<Signed<BeginRequest>>(&body) else {
        return refused(&Refusal::new(RefusalKind::Malformed, "this is no signed begin request"));
    };
    let (answer, receiver) = oneshot::channel();
    let inquiry = BeginInquiry { request, from: shared.from, answer };
    if shared.inquiries.try_send(inquiry).is_err() {
        return refused(&Refusal::new(RefusalKind::Busy, "the station is busy; try again in a few seconds"));
    }
    match timeout(PATIENCE, receiver).await {
        Ok(Ok(Ok(answer))) => Json(answer).into_response(),
        Ok(Ok(Err(refusal))) => refused(&refusal),
        _ => refused(&Refusal::new(RefusalKind::Busy, "the station did not answer in time; try again")),
    }
}

fn refused(refusal: &Refusal) -> Response {
    let status = match refusal.kind {
        RefusalKind::Busy => StatusCode::SERVICE_UNAVAILABLE,
        RefusalKind::Malformed | RefusalKind::TooLarge => StatusCode::BAD_REQUEST,
        _ => StatusCode::FORBIDDEN,
    };
    (status, Json(refusal)).into_response()
}
