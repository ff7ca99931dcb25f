//! Keeps what a node has resident near to what it uses.
use std::time::Duration;

use branchline_resident::ProgramPages;
use tokio::time::{MissedTickBehavior, interval};

/// How often pages of the program that may not be used any more are given back. Those that are come back within a
/// millisecond, which is a ten-thousandth of this.
const EVERY: Duration = Duration::from_secs(15);

/// Gives back the code that the start or a rare task needed, as long as the node runs.
pub(super) async fn keep_small(pages: std::io::Result<ProgramPages>) {
    let pages = match pages {
        Ok(pages) => pages,
        Err(error) => {
            return tracing::debug!(%error, "the program's own pages cannot be found; all of them stay resident");
        }
    };
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        if let Err(error) = pages.unmap() {
            return tracing::debug!(%error, "the program's own pages cannot be given back; all of them stay resident");
        }
    }
}
