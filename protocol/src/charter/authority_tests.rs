use super::*;
use crate::{
    charter::{HeadquartersSeat, Keys, NodeAddresses, SiteLimits, SitePolicies, StationSeat},
    ids::PackId,
};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn node(seed: u8) -> NodeId {
    PublicKey::of(&key(seed)).0
}

const OWNER: u8 = 1;
const STATION: u8 = 2;
const HEADQUARTERS: u8 = 3;
const HOST: u8 = 4;
const NEXT_STATION: u8 = 5;

fn charter(version: u64, station: u8) -> Charter {
    let addresses = |ip: &str| NodeAddresses {
        control: format!("{ip}:7400").parse().unwrap(),
        bulk: format!("{ip}:7401").parse().unwrap(),
    };
    Charter {
        site: "store-17".parse().unwrap(),
        version,
        issued_at: UnixSeconds(1000),
        owner: "Owner".into(),
        operator: "Operator".into(),
        prefixes: vec!["10.1.0.0/24".parse().unwrap()],
        station: StationSeat {
            node: node(station),
            addresses: addresses("10.1.0.2"),
            door: "10.1.0.2:7443".parse().unwrap(),
            door_fingerprint: Hash::of(b"certificate"),
        },
        headquarters: HeadquartersSeat { node: node(HEADQUARTERS), addresses: addresses("203.0.113.1") },
        keys: Keys {
            catalogue: PublicKey::of(&key(10)),
            administrator: PublicKey::of(&key(11)),
            approvers: vec![PublicKey::of(&key(12))],
        },
        electors: vec![],
        former_stations: vec![],
        limits: SiteLimits::default(),
        policies: SitePolicies::default(),
    }
}

fn authority() -> Authority {
    let root = PublicKey::of(&key(OWNER));
    Authority::establish(root, Signed::sign(&charter(1, STATION), &key(OWNER))).unwrap()
}

fn moved() -> Signed<Charter> {
    let mut next = charter(2, NEXT_STATION);
    next.former_stations = vec![(node(STATION), Epoch { charter_version: 1, term: 0 })];
    Signed::sign(&next, &key(OWNER))
}

fn membership(by: u8, charter_version: u64) -> Signed<Membership> {
    let membership = Membership {
        site: "store-17".parse().unwrap(),
        node: node(HOST),
        machine_identifier: "m".into(),
        epoch: Epoch { charter_version, term: 0 },
        serial: 1,
        issued_at: UnixSeconds(1000),
        expires_at: UnixSeconds(2000),
    };
    Signed::sign(&membership, &key(by))
}

fn kind<T: std::fmt::Debug>(result: Result<T, Refusal>) -> RefusalKind {
    result.unwrap_err().kind
}

#[test]
fn only_the_owner_makes_a_charter_and_only_a_newer_one_counts() {
    let root = PublicKey::of(&key(OWNER));
    let by_station = Signed::sign(&charter(1, STATION), &key(STATION));
    assert_eq!(kind(Authority::establish(root, by_station.clone())), RefusalKind::BadSignature);
    assert_eq!(kind(Authority::establish_by_root_hash(root.root_hash(), by_station)), RefusalKind::BadSignature);

    let mut authority = authority();
    let first = authority.signed_charter().clone();
    assert_eq!(authority.take_charter(first.clone()), Ok(false));
    assert_eq!(authority.take_charter(moved()), Ok(true));
    assert_eq!(kind(authority.take_charter(first)), RefusalKind::Stale);
    let twin = Signed::sign(&charter(2, STATION), &key(OWNER));
    assert_eq!(kind(authority.take_charter(twin)), RefusalKind::Stale);
    let captured = Signed::sign(&charter(3, STATION), &key(STATION));
    assert_eq!(kind(authority.take_charter(captured)), RefusalKind::BadSignature);
}

#[test]
fn a_warrant_of_an_old_epoch_is_stale_after_a_move() {
    let mut authority = authority();
    let old = authority.sign_warrant(&key(STATION));
    assert!(authority.check_warrant(&old).is_ok());
    let pretender = authority.sign_warrant(&key(HOST));
    assert_eq!(kind(authority.check_warrant(&pretender)), RefusalKind::NotAuthorised);
    authority.take_charter(moved()).unwrap();
    assert_eq!(kind(authority.check_warrant(&old)), RefusalKind::Stale);
    let new = authority.sign_warrant(&key(NEXT_STATION));
    assert!(authority.check_warrant(&new).is_ok());
}

#[test]
fn memberships_of_a_former_station_count_until_they_expire() {
    let mut authority = authority();
    let given = membership(STATION, 1);
    let at = UnixSeconds(1500);
    assert!(authority.check_member(node(HOST), Some(&given), at).is_ok());
    authority.take_charter(moved()).unwrap();
    assert!(authority.check_member(node(HOST), Some(&given), at).is_ok());
    let late = membership(STATION, 2);
    assert_eq!(kind(authority.check_member(node(HOST), Some(&late), at)), RefusalKind::BadSignature);
    assert_eq!(kind(authority.check_member(node(HOST), Some(&given), UnixSeconds(2000))), RefusalKind::NotAMember);
    assert!(authority.check_membership(node(HOST), Some(&given)).is_ok(), "which the station may renew");
    assert_eq!(kind(authority.check_member(node(9), Some(&given), at)), RefusalKind::NotAMember);
    assert_eq!(kind(authority.check_member(node(HOST), None, at)), RefusalKind::NotAMember);
    assert!(authority.check_member(node(HEADQUARTERS), None, at).is_ok());
}

#[test]
fn a_revoked_member_is_out_and_the_list_cannot_be_turned_back() {
    let mut authority = authority();
    let list = |version, nodes: &[u8]| {
        let nodes = nodes.iter().map(|seed| node(*seed)).collect();
        Signed::sign(&Revocations { epoch: Epoch { charter_version: 1, term: 0 }, version, nodes }, &key(STATION))
    };
    assert_eq!(authority.take_revocations(list(2, &[HOST])), Ok(true));
    assert_eq!(authority.take_revocations(list(2, &[HOST])), Ok(false));
    assert_eq!(kind(authority.take_revocations(list(1, &[]))), RefusalKind::Stale);
    let given = membership(STATION, 1);
    let refused = authority.check_member(node(HOST), Some(&given), UnixSeconds(1500));
    assert_eq!(kind(refused), RefusalKind::NotAMember);
}

#[test]
fn a_new_station_takes_the_list_of_revoked_members_over_and_the_old_one_puts_nobody_out_any_more() {
    let mut authority = authority();
    let list = |version, seed| {
        let epoch = Epoch { charter_version: 1, term: 0 };
        Signed::sign(&Revocations { epoch, version, nodes: [node(seed)].into() }, &key(STATION))
    };
    let none = std::collections::BTreeSet::new();
    authority.take_revocations(list(7, 9)).unwrap();
    assert_eq!(authority.revocations_to_take_over(&none), None, "no other station was there before");
    authority.take_charter(moved()).unwrap();
    let own = authority.revocations_to_take_over(&[node(8)].into()).unwrap();
    assert_eq!(authority.take_revocations(Signed::sign(&own, &key(NEXT_STATION))), Ok(true));
    assert!(authority.is_revoked(node(9)), "who was put out stays out");
    assert!(authority.is_revoked(node(8)), "also where only the journal says so");
    assert_eq!(authority.revocations_to_take_over(&none), None);
    let refusal = authority.take_revocations(list(8, HOST)).unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Stale);
    assert!(refusal.reason.contains("of epoch 1.0") && refusal.reason.contains("of epoch 2.0"), "{}", refusal.reason);
    assert!(!authority.is_revoked(node(HOST)));
}

#[test]
fn leases_count_in_their_epoch_only() {
    let mut authority = authority();
    let lease = |by, charter_version| {
        let lease = Lease {
            site: "store-17".parse().unwrap(),
            epoch: Epoch { charter_version, term: 0 },
            sequence: 1,
            holder: node(HOST),
            pack: PackId(Hash::of(b"pack")),
            life_milliseconds: 1000,
        };
        Signed::sign(&lease, &key(by))
    };
    assert!(authority.check_lease(&lease(STATION, 1)).is_ok());
    assert_eq!(kind(authority.check_lease(&lease(HOST, 1))), RefusalKind::BadSignature);
    authority.take_charter(moved()).unwrap();
    assert_eq!(kind(authority.check_lease(&lease(STATION, 1))), RefusalKind::Stale);
    assert!(authority.check_lease(&lease(NEXT_STATION, 2)).is_ok());
}
