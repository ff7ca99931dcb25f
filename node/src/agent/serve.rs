//! The agent's HTTP server and its clock.
use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use thiserror::Error;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use super::{
    config::{AgentConfig, Failure},
    measure::Measures,
};

/// Pause between two looks for alarms.
const ALARM_PAUSE: Duration = Duration::from_secs(5);

/// Why the agent ends with a fault.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The configuration asks for it.
    #[error("the agent does not start, because its configuration says fail = \"start\"")]
    AskedToFail,
    /// The configuration asked for it.
    #[error("the agent ends after {0} s, because its configuration says fail = \"crash-after-seconds\"")]
    AskedToCrash(u64),
    /// The address cannot be used.
    #[error("the agent cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The server broke.
    #[error("the agent's server broke: {0}")]
    Serve(#[source] io::Error),
}

async fn metrics(State(config): State<Arc<AgentConfig>>) -> impl IntoResponse {
    let text = Measures::take(&config).text(&config);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

async fn health(State(config): State<Arc<AgentConfig>>) -> impl IntoResponse {
    match config.fail {
        Some(Failure::Health) => (StatusCode::SERVICE_UNAVAILABLE, "not well, as the configuration asks\n"),
        _ => (StatusCode::OK, "ok\n"),
    }
}

async fn configuration(State(config): State<Arc<AgentConfig>>) -> Json<AgentConfig> {
    Json((*config).clone())
}

/// Writes a line when a threshold is crossed, in either direction.
async fn watch_alarms(config: Arc<AgentConfig>) {
    let mut before = Measures::default().alarms;
    loop {
        let now = Measures::take(&config).alarms;
        for (name, exceeded) in &now {
            if before.get(name).copied().unwrap_or(false) != *exceeded {
                eprintln!("alarm: threshold {name} is {}", if *exceeded { "exceeded" } else { "kept again" });
            }
        }
        before = now;
        tokio::time::sleep(ALARM_PAUSE).await;
    }
}

async fn crash(config: &AgentConfig) {
    match config.fail {
        Some(Failure::CrashAfterSeconds) => tokio::time::sleep(Duration::from_secs(config.fail_after_seconds)).await,
        _ => std::future::pending().await,
    }
}

/// Serves until SIGTERM or SIGINT, or until a failure that the configuration asks for.
///
/// # Errors
/// See [`AgentError`].
pub async fn run(config: AgentConfig) -> Result<(), AgentError> {
    if config.fail == Some(Failure::Start) {
        return Err(AgentError::AskedToFail);
    }
    let address = config.listen;
    let listener = TcpListener::bind(address).await.map_err(|source| AgentError::Listen { address, source })?;
    let mut terminate = signal(SignalKind::terminate()).map_err(AgentError::Serve)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AgentError::Serve)?;
    let config = Arc::new(config);
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .route("/configuration", get(configuration))
        .with_state(Arc::clone(&config));
    eprintln!("sample agent on http://{address}, modules: {}", config.modules.join(", "));
    tokio::select! {
        served = async { axum::serve(listener, routes).await } => served.map_err(AgentError::Serve),
        () = crash(&config) => Err(AgentError::AskedToCrash(config.fail_after_seconds)),
        () = watch_alarms(Arc::clone(&config)) => Ok(()),
        _ = terminate.recv() => { eprintln!("ending on SIGTERM"); Ok(()) }
        _ = interrupt.recv() => { eprintln!("ending on SIGINT"); Ok(()) }
    }
}
