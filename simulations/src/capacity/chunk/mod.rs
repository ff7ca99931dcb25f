//! The spread inside a site frame by frame: every node's swarm machine decides, this world only carries.
//!
//! A node's card sends one frame after another, at its rate. A frame is received while it is sent; it waits at the switch
//! where the receiver's card is taken, which works off what comes in the order in which it was sent, and is not kept from
//! others by a slow sender's frame. The sender's slot is free once the receiver has it all. A radio medium carries one
//! frame at a time, too. Small messages take a tenth of a millisecond and no room. The line into the site carries frames
//! in the order in which they were asked for, at the rates that the uplink's shares leave to the site. Disks and checks of
//! hashes take no time.
//!
//! What station and headquarters do for a lease is modelled, not run: the station is the inlet; when it fails, or the
//! inlet leaves, the next host that asks gets the lease as soon as the old one is over.
//!
//! | file | holds |
//! | --- | --- |
//! | `world` | nodes, events in time, what the machines want done |
//! | `links` | who is connected with whom; hosts that come and go |
//! | `carry` | cards, medium, messages and the line |
//! | `slots` | what the rule for slots needs to know of a site |
mod carry;
mod links;
mod slots;
#[cfg(test)]
mod tests;
mod world;

use std::sync::Arc;

use branchline_protocol::{
    charter::{Lease, Signed},
    content::{ChunkEntry, Manifest, ManifestError, OriginalFile, PACK_FORMAT, Pack},
    ids::{Epoch, Hash, NodeId, SiteName},
    limits::CHUNK_BYTES_MAX,
    swarm::{GrantedLease, LinkFigures, Tuning},
};
use ed25519_dalek::SigningKey;

use super::local::{LocalSite, Spread};

/// How long a lease lasts, in milliseconds; the station's own figure.
const LEASE_LIFE_MILLISECONDS: u64 = branchline_station_role::station::leases::LEASE_LIFE.as_millis() as u64;

/// A payload as the machines know it: lengths and names, no bytes. One serves all sites of a scenario.
#[derive(Clone, Debug)]
pub struct Content {
    pack: Arc<Pack>,
    signed: Signed<Lease>,
    lease: Lease,
    /// How much at a time each machine pushes, serves and asks for, by its link: [`Tuning::for_link`], unless something
    /// else is to be measured.
    pub rule: fn(LinkFigures) -> Tuning,
    /// What every machine takes instead, whatever its link: for measurements.
    pub tuning: Option<Tuning>,
}

impl Content {
    /// A payload of `payload_bytes` in frames of `frame_bytes`, at most 4 MiB.
    ///
    /// # Errors
    /// More frames than a manifest holds, or none.
    pub fn new(payload_bytes: u64, frame_bytes: u64) -> Result<Self, ManifestError> {
        let frame_bytes = frame_bytes.clamp(1, CHUNK_BYTES_MAX as u64);
        let entry = |number: u64| {
            let length = frame_bytes.min(payload_bytes - number * frame_bytes) as u32;
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&number.to_le_bytes());
            let hash = Hash(hash);
            ChunkEntry { raw_hash: hash, raw_length: length, frame_hash: hash, frame_length: length }
        };
        let chunks: Vec<ChunkEntry> = (0..payload_bytes.div_ceil(frame_bytes)).map(entry).collect();
        let original = OriginalFile { name: "payload".to_owned(), sha256: Hash([0; 32]), length: payload_bytes };
        let manifest = Manifest { format: PACK_FORMAT, image: Manifest::image_of(&chunks), original, chunks };
        let pack = Arc::new(Pack::new(manifest)?);
        let lease = Lease {
            site: "site".parse::<SiteName>().expect("a site may be called so"),
            epoch: Epoch::default(),
            sequence: 0,
            holder: NodeId([0; 32]),
            pack: pack.id(),
            life_milliseconds: LEASE_LIFE_MILLISECONDS,
        };
        // Nobody checks it: the origin of this world lets the inlet through.
        let signed = Signed::sign(&lease, &SigningKey::from_bytes(&[1; 32]));
        Ok(Self { pack, signed, lease, rule: Tuning::for_link, tuning: None })
    }

    fn grant(&self, sequence: u64, held: Vec<u8>) -> Box<GrantedLease> {
        let lease = Lease { sequence, ..self.lease.clone() };
        Box::new(GrantedLease { signed: self.signed.clone(), lease, held })
    }
}

/// Spreads the payload frame by frame.
pub fn spread(site: &LocalSite, content: &Content) -> Spread {
    world::World::new(site, content).run()
}
