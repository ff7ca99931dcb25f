//! The service's part in R71: which rates a connection keeps to, and a line that is off.
use std::time::Duration;

use branchline_protocol::{
    rates::Rate,
    swarm::{NamedInput, Place},
};
use tokio::time::Instant;

use super::{
    connection::{Established, LinkKind},
    links::Link,
    service::Service,
    shaper::Bucket,
};

/// What headquarters had begun to send when the line went off arrives within this time.
const LINE_DRAINS: Duration = Duration::from_secs(20);

impl Service {
    /// Says which buckets the bytes of a new connection pass.
    pub(super) fn attach_lane(&self, new: &Established) {
        let lane = new.stream.get_ref().0.get_ref().lane();
        match new.kind {
            LinkKind::Client => lane.attach_to_client(&self.shaper, &new.site, new.peer),
            LinkKind::Swarm(Place::Origin) => lane.attach_to_origin(&self.shaper),
            LinkKind::Swarm(_) => lane.attach(&self.shaper),
        }
    }

    /// While the line is off nothing is asked of headquarters. What it had begun to send has time to arrive first; the
    /// connection goes before it would count as silent, so that nothing is asked for twice.
    pub(super) fn mind_the_line(&mut self) {
        if self.shaper.rate(&Bucket::LineIn) != Rate::Off {
            self.line_off_since = None;
            return;
        }
        let since = *self.line_off_since.get_or_insert_with(Instant::now);
        let origin = |link: &Link| link.kind == LinkKind::Swarm(Place::Origin);
        if since.elapsed() >= LINE_DRAINS {
            let gone: Vec<u64> = self.links.iter().filter(|(_, link)| origin(link)).map(|(number, _)| number).collect();
            gone.into_iter().for_each(|number| self.cut(number));
        }
    }

    /// Tells the machine what rules let this node send and receive.
    pub(super) fn mind_the_rates(&mut self) {
        let rates = [Bucket::Upload, Bucket::Download].map(|bucket| self.shaper.rate(&bucket));
        if std::mem::replace(&mut self.rates, rates) != rates {
            let [send_bytes_per_second, receive_bytes_per_second] = rates.map(|rate| match rate {
                Rate::Unlimited => None,
                Rate::Bits(bits) => Some(bits / 8),
                Rate::Off => Some(0),
            });
            self.input(NamedInput::Rates { send_bytes_per_second, receive_bytes_per_second });
        }
    }
}
