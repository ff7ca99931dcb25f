//! Hosts whose bulk plane lies: what they say instead of the truth.
use branchline_protocol::{
    content::Bitmap,
    ids::{Hash, PackId},
    refusal::RefusalKind,
    wire::bulk::BulkMessage,
};

use super::SiteWorld;

impl SiteWorld {
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
