//! Inputs, outputs and events of the crossing desk.
use std::collections::{BTreeMap, BTreeSet};

use branchline_protocol::{
    catalogue::UpdateTravel,
    ids::{ImageId, NodeId, PackId},
};
use serde::{Deserialize, Serialize};

/// What a desk is built from besides its journal: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrossingSetup;

/// A patch that the catalogue offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatchFrom {
    /// The patch's pack.
    pub patch: PackId,
    /// Sum of its frame lengths in bytes.
    pub bytes: u64,
    /// The image that it needs.
    pub base: ImageId,
    /// The pack of that image, where the catalogue still names it: members can be asked for it.
    pub base_pack: Option<PackId>,
}

/// What the documents say of one update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateOffer {
    /// How updates cross the line, by the site policy.
    pub travel: UpdateTravel,
    /// The patches that make the pack, in any order.
    pub patches: Vec<PatchFrom>,
}

/// Which encoding of an update crosses the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Crossing {
    /// The whole pack.
    Whole,
    /// One patch.
    Patch {
        /// Its pack.
        patch: PackId,
        /// Whether the station holds the base, so that it can use the patch.
        by_station: bool,
    },
}

/// What is journaled. New variants are appended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CrossingEvent {
    /// It was decided what crosses; the last decision about a pack counts, as long as what it follows from is so.
    Decided {
        /// The pack.
        pack: PackId,
        /// The policy that it follows from.
        travel: UpdateTravel,
        /// The patches that were on offer, in order of their identities.
        patches: Vec<PackId>,
        /// What crosses.
        crossing: Crossing,
    },
}

/// What can happen.
#[derive(Clone, Debug)]
pub enum CrossingInput {
    /// What the catalogue and the site policy in force say of every update. It must come before a wish that was made
    /// under them.
    Documents {
        /// The updates by the packs that they give; packs to which no patch is offered are left out.
        updates: BTreeMap<PackId, UpdateOffer>,
    },
    /// The station keeps this pack, and brings what crosses of it where it can use that: also where a later document makes
    /// it an update.
    Keep {
        /// The pack.
        pack: PackId,
    },
    /// A node, perhaps the station, wants a lease of this pack, or its renewal.
    Wish {
        /// Who.
        node: NodeId,
        /// The pack: an update, a patch, or anything else.
        pack: PackId,
    },
    /// The answer to [`CrossingOutput::LookHere`].
    Here {
        /// The update.
        pack: PackId,
        /// Which of the bases the station holds complete.
        bases: BTreeSet<ImageId>,
    },
    /// The answer to [`CrossingOutput::AskMembers`].
    AtMembers {
        /// The update.
        pack: PackId,
        /// The base that they were asked for.
        base: PackId,
        /// Whether one of them holds all of it.
        held: bool,
    },
    /// The station has the patch and could not make the pack from it: nobody can.
    StationFailed {
        /// The update.
        pack: PackId,
        /// The patch that is worth nothing.
        patch: PackId,
    },
}

/// What people are to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrossingNews {
    /// Nobody in the site holds a base, and the policy forbids the whole pack: nothing crosses.
    NoBase,
    /// Nobody has worked on the patch for ten minutes, and the policy forbids the whole pack.
    Stuck,
    /// Nobody has worked on the patch for ten minutes: the whole pack may cross from now on.
    WholeAfterAll,
    /// What [`CrossingNews::NoBase`] or [`CrossingNews::Stuck`] said is over.
    Over,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CrossingOutput {
    /// See which of these bases the station's own store holds; answer with [`CrossingInput::Here`].
    LookHere {
        /// The update.
        pack: PackId,
        /// The bases.
        bases: Vec<ImageId>,
    },
    /// Ask the members that are connected whether one of them holds all of this pack; answer with
    /// [`CrossingInput::AtMembers`].
    AskMembers {
        /// The update.
        pack: PackId,
        /// The pack of the base.
        base: PackId,
    },
    /// The answer to a wish.
    Answer {
        /// Who wished.
        node: NodeId,
        /// For what.
        pack: PackId,
        /// Whether it crosses: then the lease desk decides who brings it.
        crosses: bool,
        /// Whether it is a patch that the station keeps and can use, so that it is the one to bring it.
        by_station: bool,
    },
    /// Tell people.
    Tell {
        /// The update.
        pack: PackId,
        /// What.
        news: CrossingNews,
    },
}
