//! Headquarters' HTTP: Prometheus service discovery (R34), hosts and reports (R33, R95). For the operator's network only.
use std::net::SocketAddr;

use anyhow::{Context, Result};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use branchline_protocol::ids::{NodeId, SessionId};
use tokio::net::TcpListener;

use crate::runtime::HeadquartersDesk;

/// Serves until the runtime ends. `/targets` is for `http_sd_configs`, `/hosts` lists the mirror, `/reports/NODE/GENERATION`
/// gives a report.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve_headquarters(listen: SocketAddr, desk: HeadquartersDesk) -> Result<()> {
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("listening at {listen} for service discovery"))?;
    let router = Router::new()
        .route("/targets", get(targets))
        .route("/hosts", get(hosts))
        .route("/reports/{node}/{generation}", get(report))
        .with_state(desk);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "service discovery has ended");
        }
    });
    Ok(())
}

async fn targets(State(desk): State<HeadquartersDesk>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], desk.targets.borrow().clone()).into_response()
}

async fn hosts(State(desk): State<HeadquartersDesk>) -> Response {
    match desk.handle.query(|machine| machine.hosts()).await {
        Ok(hosts) => Json(hosts).into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn report(State(desk): State<HeadquartersDesk>, Path((node, generation)): Path<(String, u32)>) -> Response {
    let Ok(node) = node.parse::<NodeId>() else { return StatusCode::NOT_FOUND.into_response() };
    let session = SessionId { node, generation };
    match desk.handle.query(move |machine| machine.report_html(session).map(str::to_owned)).await {
        Ok(Some(html)) => Html(html).into_response(),
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
