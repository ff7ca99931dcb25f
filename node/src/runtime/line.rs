//! The inlet's side of the line: in background mode it measures the round trip to headquarters and says how fast it may
//! send (R71).
use std::time::Duration;

use branchline_protocol::{
    ids::NodeId,
    rates::{Background, BackgroundSetup},
    wire::control::ControlRequest,
};
use tokio::time::{Instant, sleep, timeout};

use super::{
    bandwidth::{BackgroundNow, Bandwidth},
    clock::Clock,
};
use crate::{bulk::BulkHandle, mesh::Mesh};

/// Between two measurements.
const MEASURE: Duration = Duration::from_millis(50);
/// The longest pause between two measurements.
const MEASURE_MAX: Duration = Duration::from_millis(500);
/// What one measurement costs on the line, both ways, in bytes; it should be no more than a hundredth of the traffic.
const MEASURE_BYTES: u64 = 300;
/// A measurement that takes longer counts as this long.
const LOST: Duration = Duration::from_secs(1);
/// How often a node that is no inlet looks whether it has become one.
const LOOK: Duration = Duration::from_millis(250);

/// What the line's loop needs.
pub struct Line {
    /// The control plane, over which the measurements go.
    pub mesh: Mesh,
    /// The bulk plane.
    pub bulk: BulkHandle,
    /// The rates.
    pub bandwidth: Bandwidth,
    /// The process's clock.
    pub clock: Clock,
    /// Whom to tell.
    pub headquarters: NodeId,
}

impl Line {
    /// Runs until the process ends.
    pub async fn run(self) {
        let mut told = false;
        loop {
            match self.delay() {
                Some(delay) if self.is_inlet() => {
                    self.yield_while_inlet(delay).await;
                    told = true;
                }
                _ if told => {
                    self.bandwidth.note_background(None);
                    told = !self.tell(None).await.1;
                }
                _ => {}
            }
            sleep(LOOK).await;
        }
    }

    fn delay(&self) -> Option<Duration> {
        self.bandwidth.line_use()?.background
    }

    /// Whether packs are under way over the line.
    fn is_inlet(&self) -> bool {
        self.bulk.progress().borrow().iter().any(|pack| pack.inlet && !pack.complete)
    }

    async fn yield_while_inlet(&self, delay: Duration) {
        let mut control = Background::new(BackgroundSetup { delay });
        while self.delay() == Some(delay) && self.is_inlet() {
            let begun = Instant::now();
            let before = control.bytes_per_second();
            let (round_trip, _) = self.tell(Some(control.bytes_per_second())).await;
            let arrived = self.bandwidth.shaper().line_received_bytes();
            let rate = control.measured(self.clock.now().monotonic, round_trip, arrived, true);
            let queueing_microseconds = control.queueing_microseconds();
            tracing::debug!(
                round_trip_microseconds = round_trip.as_micros(),
                queueing_microseconds,
                step = ?control.step(),
                rate,
                arriving = control.arriving_bytes_per_second(),
                peak = control.peak_bytes_per_second(),
                "background on the line"
            );
            self.bandwidth.note_background(Some(BackgroundNow { bytes_per_second: rate, queueing_microseconds }));
            // A lower rate is told at once: others wait for it.
            if rate < before {
                continue;
            }
            sleep(pause(control.peak_bytes_per_second()).saturating_sub(begun.elapsed())).await;
        }
    }

    /// Says how fast headquarters may send; gives the round trip and whether it was heard.
    async fn tell(&self, bytes_per_second: Option<u64>) -> (Duration, bool) {
        let begun = Instant::now();
        let request = self.mesh.request(self.headquarters, ControlRequest::LineRate(bytes_per_second));
        match timeout(LOST, request).await {
            Ok(Ok(_)) => (begun.elapsed(), true),
            _ => (LOST, false),
        }
    }
}

/// Slow lines are measured less often.
fn pause(peak_bytes_per_second: u64) -> Duration {
    let micros = MEASURE_BYTES * 100 * 1_000_000 / peak_bytes_per_second.max(1);
    Duration::from_micros(micros).clamp(MEASURE, MEASURE_MAX)
}
