//! The world's keys and documents. They are real: every signature that a machine's runtime would check is checked.
use branchline_protocol::{
    charter::{
        Authority, Charter, HeadquartersSeat, Keys, NodeAddresses, PublicKey, Signed, SiteLimits, SitePolicies,
        StationSeat, Warrant,
    },
    ids::{Hash, NodeId, SiteName},
};
use ed25519_dalek::SigningKey;

use crate::{scenario::SiteScenario, world::clock::WALL_START};

/// Keys, charter and the judge that everybody shares.
#[derive(Clone, Debug)]
pub struct Trust {
    /// The owner's key.
    owner: SigningKey,
    /// Headquarters' node key.
    pub headquarters: SigningKey,
    /// An approver's key.
    pub approver: SigningKey,
    /// The station's node key.
    pub station: SigningKey,
    /// What everybody holds for true.
    pub authority: Authority,
    /// The station's warrant.
    pub warrant: Signed<Warrant>,
}

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

fn addresses(ip: &str) -> NodeAddresses {
    let at = |port: u16| format!("{ip}:{port}").parse().expect("a literal address");
    NodeAddresses { control: at(7400), bulk: at(7401) }
}

impl Trust {
    /// Documents for a scenario's site.
    ///
    /// # Panics
    /// Never: the charter is made of literals.
    pub fn new(scenario: &SiteScenario) -> Self {
        let (owner, station, headquarters, approver) = (key(201), key(202), key(203), key(204));
        let charter = Charter {
            site: site_name(),
            version: 1,
            issued_at: WALL_START,
            owner: "Owner".into(),
            operator: "Operator".into(),
            prefixes: vec!["10.1.0.0/24".parse().expect("a literal prefix")],
            station: StationSeat {
                node: PublicKey::of(&station).0,
                addresses: addresses("10.1.0.2"),
                door: "10.1.0.2:7443".parse().expect("a literal address"),
                door_fingerprint: Hash::of(b"door"),
            },
            headquarters: HeadquartersSeat {
                node: PublicKey::of(&headquarters).0,
                addresses: addresses("203.0.113.1"),
            },
            keys: Keys {
                catalogue: PublicKey::of(&owner),
                administrator: PublicKey::of(&owner),
                approvers: vec![PublicKey::of(&approver)],
            },
            electors: Vec::new(),
            former_stations: Vec::new(),
            limits: SiteLimits {
                members_max: 100,
                sessions_max: scenario.sessions_max,
                leased_bytes_max: scenario.leased_bytes_max,
            },
            policies: SitePolicies {
                approve_before_installation: scenario.hazards.approve_first,
                on_denied: scenario.hazards.on_denied,
                ..SitePolicies::default()
            },
        };
        let authority = Authority::establish(PublicKey::of(&owner), Signed::sign(&charter, &owner));
        let authority = authority.expect("the owner signed a sound charter");
        let warrant = authority.sign_warrant(&station);
        Self { owner, headquarters, approver, station, authority, warrant }
    }

    /// The owner signs a charter with the next version, which designates another station (R4).
    ///
    /// # Panics
    /// Never: the charter differs from a sound one in its version and its station.
    pub fn move_station(&mut self) {
        let mut charter = self.authority.charter().clone();
        charter.former_stations.push((charter.station.node, charter.epoch()));
        charter.version += 1;
        self.station = key(u8::try_from(205 + charter.version % 40).unwrap_or(205));
        charter.station.node = PublicKey::of(&self.station).0;
        let taken = self.authority.take_charter(Signed::sign(&charter, &self.owner));
        assert_eq!(taken, Ok(true), "the next charter is newer");
        self.warrant = self.authority.sign_warrant(&self.station);
    }

    /// Headquarters' identity.
    pub fn headquarters_node(&self) -> NodeId {
        PublicKey::of(&self.headquarters).0
    }
}

/// The world's site.
///
/// # Panics
/// Never: the name is a literal.
pub fn site_name() -> SiteName {
    "store-17".parse().expect("a literal name")
}
