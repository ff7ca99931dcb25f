//! Headquarters' HTTP: Prometheus service discovery (R34), hosts and reports (R33, R95), for those who have its token.
use std::net::SocketAddr;

use anyhow::{Context, Result};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::{StatusCode, header},
    middleware::from_fn_with_state,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use branchline_protocol::ids::{NodeId, SessionId};
use tokio::net::TcpListener;

use super::{ConnectionLimits, HttpToken, serve_connections, token};
use crate::runtime::HeadquartersDesk;

/// Serves until the runtime ends. `/targets` is for `http_sd_configs`, `/hosts` lists the mirror, `/reports/NODE/GENERATION`
/// gives a report.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve_headquarters(listen: SocketAddr, token: HttpToken, desk: HeadquartersDesk) -> Result<()> {
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("listening at {listen} for service discovery (is the port taken?)"))?;
    let router = Router::new()
        .route("/targets", get(targets))
        .route("/hosts", get(hosts))
        .route("/reports/{node}/{generation}", get(report))
        .with_state(desk)
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(from_fn_with_state(token, token::require));
    tokio::spawn(serve_connections(listener, None, ConnectionLimits::default(), move |_| router.clone()));
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
