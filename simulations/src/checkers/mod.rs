//! What must always hold in a site world. One property each; each says what it saw where it is broken.
use serde::{Deserialize, Serialize};

pub mod addresses;
pub mod approval;
pub mod bounds;
pub mod content;
pub mod durability;
pub mod line;
pub mod progress;
pub mod queue;
pub mod slots;

/// What kind of promise was broken. Each kind has an exit code of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Bytes count that are not proven, or a corrupt byte is kept.
    Integrity,
    /// Slots or the order of the queue.
    Sessions,
    /// What was acknowledged is gone.
    Durability,
    /// Something passed without an approval that is bound to it.
    Approvals,
    /// Mappings, rows, the router's table.
    Addresses,
    /// A queue, a table, a message or the bytes over the line exceed their bound.
    Bounds,
    /// A healthy core does not get done.
    Liveness,
    /// A machine broke an invariant of its own, or panicked.
    Machine,
    /// One seed gave two runs.
    Determinism,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Integrity,
        Self::Sessions,
        Self::Durability,
        Self::Approvals,
        Self::Addresses,
        Self::Bounds,
        Self::Liveness,
        Self::Machine,
        Self::Determinism,
    ];

    /// The exit code of a process that found this kind first: 10 to 18.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Integrity => 10,
            Self::Sessions => 11,
            Self::Durability => 12,
            Self::Approvals => 13,
            Self::Addresses => 14,
            Self::Bounds => 15,
            Self::Liveness => 16,
            Self::Machine => 17,
            Self::Determinism => 18,
        }
    }

    /// The kind in one word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Integrity => "integrity",
            Self::Sessions => "sessions",
            Self::Durability => "durability",
            Self::Approvals => "approvals",
            Self::Addresses => "addresses",
            Self::Bounds => "bounds",
            Self::Liveness => "liveness",
            Self::Machine => "machine",
            Self::Determinism => "determinism",
        }
    }
}

/// A property that was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{property}: {what}")]
pub struct Violation {
    /// What kind of promise it belongs to.
    pub kind: Kind,
    /// Which property, in words.
    pub property: &'static str,
    /// What was seen.
    pub what: String,
}

/// Says that `property` is broken unless `holds`.
///
/// # Errors
/// Where it does not hold.
pub fn ensure(kind: Kind, property: &'static str, holds: bool, what: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation { kind, property, what: what() }) }
}

#[cfg(test)]
mod tests {
    //! Each checker finds what it is for: a checker that cannot fail proves nothing.
    use std::{
        collections::{BTreeMap, BTreeSet},
        net::Ipv4Addr,
        time::Duration,
    };

    use branchline_protocol::{
        ids::{Hash, NodeId, PlanHash, SessionId},
        session::Stage,
        time::Monotonic,
    };

    use super::{
        Kind,
        addresses::{AddressWatch, table_is_as_planned},
        approval,
        durability::Acknowledged,
        line, progress, slots,
    };

    #[test]
    fn every_checker_can_fail() {
        assert!(line::bytes_are_bounded(110, 100, 1, 10).is_ok());
        assert!(line::bytes_are_bounded(111, 100, 1, 10).is_err());
        assert!(slots::slots_are_kept(&[0, 1], 2).is_ok());
        assert!(slots::slots_are_kept(&[0, 1], 1).is_err());
        assert!(
            approval::is_approved("mapped", NodeId([1; 32]), &[(PlanHash(Hash([1; 32])), BTreeSet::new())], &[])
                .is_err()
        );
        let session = SessionId { node: NodeId([1; 32]), generation: 1 };
        let mut acknowledged = Acknowledged::default();
        Acknowledged::note(&mut acknowledged.events, session, 5);
        assert!(acknowledged.check_station(&BTreeMap::from([(session, 5)])).is_ok());
        assert!(acknowledged.check_station(&BTreeMap::from([(session, 4)])).is_err());
        let denied = progress::Outcome {
            host: 0,
            expected: Stage::Denied,
            stage: Some(Stage::Denied),
            mapped: true,
            target: false,
        };
        assert!(progress::everybody_is_done(&[denied]).is_err());
        let mut watch = AddressWatch::default();
        let [one, two, three] = [10, 11, 64].map(|low| Ipv4Addr::new(10, 1, 0, low));
        assert!(watch.row_made(7, one, three).is_ok() && watch.row_made(7, one, three).is_ok());
        assert!(watch.row_made(7, two, three).is_err());
        let planned = BTreeMap::from([(three, one)]);
        assert!(table_is_as_planned(&planned, &planned).is_ok());
        assert!(table_is_as_planned(&planned, &BTreeMap::new()).is_err());
    }

    #[test]
    fn every_kind_has_an_exit_code_of_its_own() {
        let codes: BTreeSet<u8> = Kind::ALL.iter().map(|kind| kind.exit_code()).collect();
        assert_eq!(codes, (10..19).collect());
        let words: BTreeSet<&str> = Kind::ALL.iter().map(|kind| kind.word()).collect();
        assert_eq!(words.len(), Kind::ALL.len());
    }

    #[test]
    fn an_address_that_changes_hands_too_early_is_seen() {
        let (mapped, one, two) =
            (Ipv4Addr::new(198, 51, 100, 64), Ipv4Addr::new(10, 1, 0, 10), Ipv4Addr::new(10, 1, 0, 11));
        let rest = Duration::from_secs(20);
        let mut watch = AddressWatch::default();
        let mut look = |seconds, table: &[(Ipv4Addr, Ipv4Addr)]| {
            let owner = |inside| usize::from(inside == two);
            watch.look(Monotonic::from_seconds(seconds), &table.iter().copied().collect(), owner, rest)
        };
        assert!(look(1, &[(mapped, one)]).is_ok());
        assert!(look(2, &[]).is_ok());
        assert!(look(3, &[(mapped, one)]).is_ok());
        assert!(look(4, &[(mapped, one), (Ipv4Addr::new(198, 51, 100, 65), one)]).is_err());
        assert!(look(5, &[(mapped, two)]).is_err());
        assert!(look(6, &[]).is_ok());
        assert!(look(40, &[(mapped, one)]).is_ok());
        assert!(look(900, &[(mapped, two)]).is_err(), "it had stood until now");
    }
}
