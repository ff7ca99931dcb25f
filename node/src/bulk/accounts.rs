//! Who sent what to whom, over WAN or LAN: a bounded table with totals (R70).
use std::collections::BTreeMap;

use branchline_protocol::{
    ids::{NodeId, PackId},
    limits::TRANSFER_RECORDS_MAX,
    swarm::Place,
};
use serde::{Deserialize, Serialize};

/// Seen from this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Came in.
    Received,
    /// Went out.
    Sent,
}

/// What is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TransferKey {
    /// The other end.
    pub peer: NodeId,
    /// The pack.
    pub pack: PackId,
    /// Which way.
    pub direction: Direction,
    /// [`Place::Inside`] is LAN: both addresses lie in the charter's prefixes. All else is WAN.
    pub place: Place,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Frames.
    pub frames: u64,
    /// Frame bytes, duplicates included.
    pub bytes: u64,
    /// Bytes of frames that were here already.
    pub duplicate_bytes: u64,
}

impl Transfer {
    fn add(&mut self, bytes: u64, useful: bool) {
        self.frames += 1;
        self.bytes += bytes;
        self.duplicate_bytes += if useful { 0 } else { bytes };
    }
}

/// All transfers of one node. The caller persists it and gives it back at the next start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accounts {
    /// By peer, pack, direction and path; serialized as a list, because its keys are not texts.
    #[serde(with = "as_list")]
    pub transfers: BTreeMap<TransferKey, Transfer>,
    /// What came in over the LAN, ever.
    pub received_lan: Transfer,
    /// What came in over the WAN, ever.
    pub received_wan: Transfer,
    /// What went out over the LAN, ever.
    pub sent_lan: Transfer,
    /// What went out over the WAN, ever.
    pub sent_wan: Transfer,
}

impl Accounts {
    /// Counts one frame. Where the table is full, new keys count in the totals only.
    pub fn add(&mut self, key: TransferKey, bytes: u64, useful: bool) {
        let total = match (key.direction, key.place) {
            (Direction::Received, Place::Inside) => &mut self.received_lan,
            (Direction::Received, _) => &mut self.received_wan,
            (Direction::Sent, Place::Inside) => &mut self.sent_lan,
            (Direction::Sent, _) => &mut self.sent_wan,
        };
        total.add(bytes, useful);
        if self.transfers.len() < TRANSFER_RECORDS_MAX || self.transfers.contains_key(&key) {
            self.transfers.entry(key).or_default().add(bytes, useful);
        }
    }
}

mod as_list {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Transfer, TransferKey};

    pub fn serialize<S: Serializer>(map: &BTreeMap<TransferKey, Transfer>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<TransferKey, Transfer>, D::Error> {
        Ok(Vec::deserialize(deserializer)?.into_iter().collect())
    }
}
