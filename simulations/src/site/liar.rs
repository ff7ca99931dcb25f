//! Hosts whose bulk plane lies: what they say instead of the truth.
use branchline_protocol::{
    content::Bitmap,
    ids::{Hash, PackId},
    refusal::RefusalKind,
    wire::bulk::BulkMessage,
};

use super::{SiteWorld, happening::End};

impl SiteWorld {
    /// What a host tells the station that it holds instead of the truth, where it is a liar that claims everything.
    pub(super) fn claimed_holdings(&self, number: usize, pack: PackId) -> Option<Vec<u8>> {
        let lies = self.scenario.hazards.lies.claims_all && self.weather.liars.contains(&number);
        let payload = self.payloads.iter().find(|payload| lies && payload.id() == pack)?;
        Some(Bitmap::full(payload.pack.frames()).to_bytes())
    }

    /// R70 is kept by those who speak the truth. A frame that nobody but liars holds is lost to the others, who have banned
    /// them; and to a liar that claims everything nobody gives anything, so that as an inlet it fetches for itself what the
    /// site holds. The desk believes such claims for five minutes; what crosses the line for them after that is allowed.
    pub(super) fn count_fetched_for_liars(&mut self, from: End, pack: PackId, index: u32, bytes: u64) {
        let lies = |number: &usize| self.weather.liars.contains(number);
        let holds = |number: &usize| {
            let store = self.hosts[*number].store.get(&pack);
            End::Host(*number) != from && store.is_some_and(|store| store.frame(index).is_some())
        };
        let holders: Vec<usize> = (0..self.hosts.len()).filter(holds).collect();
        let by_liar = matches!(from, End::Host(number) if lies(&number));
        if !holders.is_empty() && (by_liar || holders.iter().all(lies)) {
            self.watch.bytes_lost += bytes;
        }
    }

    /// What a liar says instead; nothing where it stays silent.
    pub(super) fn lie(&mut self, liar: usize, message: BulkMessage) -> Option<BulkMessage> {
        let lies = self.scenario.hazards.lies;
        let frames = |pack: PackId| {
            let known = self.payloads.iter().find(|payload| payload.id() == pack);
            known.map_or(0, |payload| payload.pack.frames())
        };
        Some(match message {
            BulkMessage::Frame { pack, index, mut bytes } => {
                if self.chance.happens(lies.silent_per_mille) {
                    return None;
                }
                if self.chance.happens(lies.corrupt_per_mille) {
                    self.note(format_args!("host {liar} serves a corrupt frame {index}"));
                    let place = usize::try_from(self.chance.below(bytes.len() as u64)).unwrap_or(0);
                    bytes.get_mut(place).into_iter().for_each(|byte| *byte ^= 0x40);
                }
                BulkMessage::Frame { pack, index, bytes }
            }
            BulkMessage::Have { pack, .. } if self.chance.happens(lies.malformed_per_mille) => {
                BulkMessage::Have { pack, bitmap: Hash::of(&pack.0.0).0[..7].to_vec() }
            }
            BulkMessage::Have { pack, .. } if lies.claims_all => {
                BulkMessage::Have { pack, bitmap: Bitmap::full(frames(pack)).to_bytes() }
            }
            BulkMessage::HaveFrames { pack, .. } if lies.claims_all => {
                BulkMessage::HaveFrames { pack, indexes: (0..frames(pack)).collect() }
            }
            BulkMessage::Refuse { ref refusal, .. }
                if refusal.kind == RefusalKind::NotFound && self.chance.happens(lies.silent_per_mille) =>
            {
                return None;
            }
            other => other,
        })
    }
}
