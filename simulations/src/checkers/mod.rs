//! What must always hold in a site world. One property each; each says what it saw where it is broken.
pub mod addresses;
pub mod approval;
pub mod content;
pub mod durability;
pub mod line;
pub mod progress;
pub mod slots;

/// A property that was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{property}: {what}")]
pub struct Violation {
    /// Which property, in words.
    pub property: &'static str,
    /// What was seen.
    pub what: String,
}

/// Says that `property` is broken unless `holds`.
///
/// # Errors
/// Where it does not hold.
pub fn ensure(property: &'static str, holds: bool, what: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation { property, what: what() }) }
}

#[cfg(test)]
mod tests {
    //! Each checker finds what it is for: a checker that cannot fail proves nothing.
    use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

    use branchline_protocol::{
        ids::{Hash, NodeId, PlanHash, SessionId},
        session::Stage,
        time::Monotonic,
    };

    use super::{addresses::AddressWatch, approval, durability::Acknowledged, line, progress, slots};

    #[test]
    fn every_checker_can_fail() {
        assert!(line::bytes_are_bounded(110, 100, 1, 10).is_ok());
        assert!(line::bytes_are_bounded(111, 100, 1, 10).is_err());
        assert!(slots::slots_are_kept(&[0, 1], 2).is_ok());
        assert!(slots::slots_are_kept(&[0, 1], 1).is_err());
        assert!(approval::is_approved("mapped", NodeId([1; 32]), PlanHash(Hash([1; 32])), &[]).is_err());
        let session = SessionId { node: NodeId([1; 32]), generation: 1 };
        let mut acknowledged = Acknowledged::default();
        Acknowledged::note(&mut acknowledged.events, session, 5);
        assert!(acknowledged.check_station(&BTreeMap::from([(session, 5)])).is_ok());
        assert!(acknowledged.check_station(&BTreeMap::from([(session, 4)])).is_err());
        let denied = progress::Outcome { denied: true, stage: Some(Stage::Denied), mapped: true, target: false };
        assert!(progress::everybody_is_done(&[denied]).is_err());
    }

    #[test]
    fn an_address_that_changes_hands_too_early_is_seen() {
        let (mapped, one, two) =
            (Ipv4Addr::new(198, 51, 100, 64), Ipv4Addr::new(10, 1, 0, 10), Ipv4Addr::new(10, 1, 0, 11));
        let rest = Duration::from_secs(20);
        let mut watch = AddressWatch::default();
        let mut look = |seconds, table: &[(Ipv4Addr, Ipv4Addr)]| {
            watch.look(Monotonic::from_seconds(seconds), &table.iter().copied().collect(), rest)
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
