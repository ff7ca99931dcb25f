//! Payloads of the world, and what a host's disk holds of them.
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use branchline_protocol::{
    content::{Bitmap, Pack, build_pack, verify_frame},
    ids::{Hash, ImageId, PackId, PlanHash},
    time::Monotonic,
};

use crate::world::chance::Chance;

/// A payload as a pack, with the bytes of its frames.
#[derive(Clone, Debug)]
pub struct Payload {
    /// The checked manifest.
    pub pack: Arc<Pack>,
    frames: Vec<Vec<u8>>,
}

impl Payload {
    /// A payload of random bytes, which no encoding makes shorter.
    ///
    /// # Panics
    /// Never: memory takes what is written, and the sizes are those of a scenario.
    pub fn random(name: &str, raw_bytes: usize, chunk_bytes: usize, chance: &mut Chance) -> Self {
        let mut raw = Vec::with_capacity(raw_bytes + 32);
        while raw.len() < raw_bytes.max(1) {
            raw.extend(chance.seed());
        }
        let mut bytes = Vec::new();
        let pack = build_pack(name, raw.as_slice(), chunk_bytes, &mut bytes).expect("memory takes what is written");
        let mut rest = bytes.as_slice();
        let mut frames = Vec::new();
        for index in 0..pack.frames() {
            let length = usize::try_from(pack.frame_length(index)).expect("a frame fits memory");
            let (frame, after) = rest.split_at(length);
            frames.push(frame.to_vec());
            rest = after;
        }
        Self { pack: Arc::new(pack), frames }
    }

    /// The pack's name.
    pub fn id(&self) -> PackId {
        self.pack.id()
    }

    /// The image.
    pub fn image(&self) -> ImageId {
        self.pack.manifest().image
    }

    /// A frame's bytes.
    pub fn frame(&self, index: u32) -> &[u8] {
        self.frames.get(index as usize).map_or(&[], Vec::as_slice)
    }
}

/// What one host's disk holds of a pack.
#[derive(Clone, Debug, Default)]
pub struct PackStore {
    frames: BTreeMap<u32, (Vec<u8>, Monotonic)>,
    synced: bool,
}

/// A group commit of frames lasts no longer than this (R72).
const COMMIT_EVERY: Duration = Duration::from_secs(1);

impl PackStore {
    /// Checks a frame against the manifest and writes it; says whether it was what it should be.
    pub fn write(&mut self, now: Monotonic, pack: &Pack, index: u32, bytes: Vec<u8>) -> bool {
        let good = pack.chunk(index).is_some_and(|entry| verify_frame(entry, &bytes).is_ok());
        if good {
            self.frames.insert(index, (bytes, now));
        }
        good
    }

    /// A frame's bytes as they were written.
    pub fn frame(&self, index: u32) -> Option<&[u8]> {
        self.frames.get(&index).map(|(bytes, _)| bytes.as_slice())
    }

    /// Every frame with its bytes as they were written.
    pub fn frames(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.frames.iter().map(|(index, (bytes, _))| (*index, bytes.as_slice()))
    }

    /// Changes a byte of the first frame that is held, as no machine may; says whether there was one.
    pub(super) fn spoil(&mut self) -> bool {
        let first = self.frames.values_mut().next();
        first.and_then(|(bytes, _)| bytes.first_mut()).map(|byte| *byte ^= 1).is_some()
    }

    /// Makes everything durable.
    pub fn sync(&mut self) {
        self.synced = true;
    }

    /// Power goes: of the frames of the last group any may be gone.
    pub fn crash(&mut self, now: Monotonic, chance: &mut Chance) {
        if !self.synced {
            self.frames.retain(|_, (_, written)| now.since(*written) > COMMIT_EVERY || chance.happens(500));
        }
    }

    /// The frames that are there.
    pub fn kept(&self, frames: u32) -> Bitmap {
        let mut kept = Bitmap::new(frames);
        for index in self.frames.keys() {
            kept.insert(*index);
        }
        kept
    }
}

/// What one kind of host is to run: the stand-in for catalogue, policy and selection, which have tests of their own.
#[derive(Clone, Debug)]
pub struct PlanScript {
    /// The plan's name.
    pub plan: PlanHash,
    /// Packs to fetch.
    pub packs: Vec<PackId>,
    /// Images to install.
    pub images: Vec<ImageId>,
}

impl PlanScript {
    /// The plan over these payloads.
    pub fn over(payloads: &[&Payload]) -> Self {
        let packs: Vec<PackId> = payloads.iter().map(|payload| payload.id()).collect();
        let text: String = packs.iter().map(ToString::to_string).collect();
        let plan = PlanHash(Hash::in_domain("site world plan", text.as_bytes()));
        Self { plan, packs, images: payloads.iter().map(|payload| payload.image()).collect() }
    }
}
