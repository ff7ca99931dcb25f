//! What operators see of a running node: its log.
use tracing_subscriber::EnvFilter;

/// Starts the log on standard error; `BRANCHLINE_LOG` filters it (`info`, `branchline=debug`, ...).
pub fn start_log(json: bool) {
    let filter = EnvFilter::try_from_env("BRANCHLINE_LOG").unwrap_or_else(|_| EnvFilter::new("info,libp2p=warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second start in one process (tests) keeps the first.
    let _ = if json { builder.json().try_init() } else { builder.with_ansi(false).try_init() };
}
