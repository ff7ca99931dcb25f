//! The station's side of the door.
use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use branchline_protocol::{
    charter::{BeginRequest, DoorFile, Signed},
    refusal::{Refusal, RefusalKind},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{BeginAnswer, DoorFiles, REQUEST_BYTES_MAX};
use crate::{
    config::DoorCertificate,
    web::{ConnectionLimits, serve_connections},
};

/// A request to begin, and where its answer goes.
pub struct BeginInquiry {
    /// What was posted; nothing of it is verified yet.
    pub request: Signed<BeginRequest>,
    /// Where it came from.
    pub from: SocketAddr,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<BeginAnswer, Refusal>>,
}

#[derive(Clone)]
struct Shared {
    files: DoorFiles,
    inquiries: mpsc::Sender<BeginInquiry>,
    from: SocketAddr,
    patience: Duration,
}

/// The listening door.
pub struct Door;

impl Door {
    /// Listens; serves until what is given is dropped.
    ///
    /// # Errors
    /// The address cannot be listened on, or the certificate does not fit its key.
    pub async fn open(
        listen: SocketAddr,
        certificate: &DoorCertificate,
        files: DoorFiles,
        limits: ConnectionLimits,
    ) -> Result<mpsc::Receiver<BeginInquiry>> {
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("listening at {listen} for the public door (is the port taken?)"))?;
        Self::serve(listener, certificate, files, limits)
    }

    /// As [`Door::open`], at a place that is listened on already.
    pub(super) fn serve(
        listener: TcpListener,
        certificate: &DoorCertificate,
        files: DoorFiles,
        limits: ConnectionLimits,
    ) -> Result<mpsc::Receiver<BeginInquiry>> {
        let chain = vec![CertificateDer::from(certificate.certificate.clone())];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certificate.key.clone()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .context("using the public door's certificate")?;
        let (inquiries, receiver) = mpsc::channel(64);
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let patience = limits.patience;
        let closed = inquiries.clone();
        let site = move |from| router(Shared { files: files.clone(), inquiries: inquiries.clone(), from, patience });
        let serves = serve_connections(listener, Some(acceptor), limits, site);
        tokio::spawn(async move {
            tokio::select! {
                () = serves => {}
                () = closed.closed() => {}
            }
        });
        Ok(receiver)
    }
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/survey.sh", get(survey_script))
        .route("/survey.sh.sig", get(script_signature))
        .route("/signatures", get(signatures))
        .route("/signatures/{name}", get(signature))
        .route("/install-tool", get(install_tool))
        .route("/install-tool.sig", get(tool_signature))
        .route("/begin", post(begin))
        .fallback(nothing_else)
        .method_not_allowed_fallback(nothing_else)
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
    match tokio::fs::File::open(shared.files.install_tool.path()).await {
        Ok(file) => Body::from_stream(tokio_util::io::ReaderStream::new(file)).into_response(),
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn script_signature(State(shared): State<Shared>) -> Response {
    owner_signature(shared, DoorFile::SurveyScript).await
}

async fn tool_signature(State(shared): State<Shared>) -> Response {
    owner_signature(shared, DoorFile::InstallTool).await
}

async fn owner_signature(shared: Shared, kind: DoorFile) -> Response {
    // A tool's file is read where it has changed.
    let looked = tokio::task::spawn_blocking(move || shared.files.signature_of(kind)).await;
    let (status, refusal) = match looked.map_err(io::Error::other).flatten() {
        Ok(Some(text)) => {
            return ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response();
        }
        Ok(None) => {
            let reason = format!(
                "the owner has not signed the {kind} that this door gives away; sign it with `branchline release`, and \
                 hand that to headquarters with `branchline publish --release FILE`"
            );
            (StatusCode::NOT_FOUND, Refusal::new(RefusalKind::NotFound, reason))
        }
        Err(error) => {
            tracing::warn!("the public door cannot read the {kind}: {error}; was it replaced? Start this node again");
            let reason = format!("the station cannot read its {kind}: {error}");
            (StatusCode::INTERNAL_SERVER_ERROR, Refusal::new(RefusalKind::Internal, reason))
        }
    };
    (status, Json(refusal)).into_response()
}

/// Whatever else is asked for: the door says what it is for, and nothing of the site.
async fn nothing_else() -> Response {
    let reason = "the public door gives GET /survey.sh, /install-tool, either with .sig, /signatures and /signatures/NAME, and \
                  takes POST /begin with a join token; everything else is for members";
    (StatusCode::NOT_FOUND, Json(Refusal::new(RefusalKind::NotFound, reason))).into_response()
}

async fn begin(State(shared): State<Shared>, body: Body) -> Response {
    let body = match timeout(shared.patience, axum::body::to_bytes(body, REQUEST_BYTES_MAX)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let reason = format!("a begin request has at most {REQUEST_BYTES_MAX} bytes, all of which are sent");
            return refused(&Refusal::new(RefusalKind::TooLarge, reason));
        }
        Err(_) => {
            let reason = format!("a begin request is sent within {} s", shared.patience.as_secs());
            return refused(&Refusal::new(RefusalKind::Malformed, reason));
        }
    };
    let Ok(request) = serde_json::from_slice::<Signed<BeginRequest>>(&body) else {
        return refused(&Refusal::new(RefusalKind::Malformed, "this is no signed begin request"));
    };
    let (answer, receiver) = oneshot::channel();
    let inquiry = BeginInquiry { request, from: shared.from, answer };
    if shared.inquiries.try_send(inquiry).is_err() {
        return refused(&Refusal::new(RefusalKind::Busy, "the station is busy; try again in a few seconds"));
    }
    match timeout(shared.patience, receiver).await {
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
