use std::{net::SocketAddr, time::Duration};

use branchline_protocol::{
    catalogue::{Package, PackageDefinition, PatchOffer, Payload},
    charter::NodeAddresses,
    ids::Hash,
};
use branchline_station_role::station::crossings::{Crossing, CrossingEvent};
use ed25519_dalek::SigningKey;
use tokio::time::{sleep, timeout};

use super::*;
use crate::config::Home;

const PATIENCE: Duration = Duration::from_secs(30);
const HOST: NodeId = NodeId([7; 32]);
const UPDATE: PackId = PackId(Hash([12; 32]));
const PATCH: PackId = PackId(Hash([21; 32]));

pub fn package(image: u8, pack: u8) -> Package {
    let text = include_str!("../demo/packages/sample-agent.toml");
    let payload = Payload {
        image: ImageId(Hash([image; 32])),
        pack: PackId(Hash([pack; 32])),
        pack_bytes: 1,
        raw_bytes: 1,
        sha256: Hash([0; 32]),
        file_name: "agent.tar".to_owned(),
    };
    Package { definition: PackageDefinition::from_toml(text).unwrap(), payload }
}

pub fn offer(base: u8, target: u8, pack: u8) -> PatchOffer {
    PatchOffer {
        base: ImageId(Hash([base; 32])),
        target: ImageId(Hash([target; 32])),
        pack: PackId(Hash([pack; 32])),
        pack_bytes: u64::from(pack),
        raw_bytes: 1,
        original_bytes: 1,
    }
}

#[test]
fn the_desk_hears_of_every_patch_to_a_pack_that_the_catalogue_names() {
    let catalogue = Catalogue {
        packages: vec![package(1, 11), package(2, 12), package(2, 13)],
        // The last is for an image that no package has.
        patches: vec![offer(1, 2, 21), offer(9, 2, 22), offer(1, 8, 23)],
        version: 1,
        expires_at: None,
    };
    let updates = updates_of(&catalogue, UpdateTravel::Patch);
    let pack = |number: u8| PackId(Hash([number; 32]));
    assert_eq!(updates.keys().copied().collect::<Vec<_>>(), [pack(12), pack(13)]);
    let update = &updates[&pack(12)];
    assert_eq!(update, &updates[&pack(13)]);
    let patches: Vec<_> = update.patches.iter().map(|patch| (patch.patch, patch.base_pack)).collect();
    assert_eq!(patches, [(pack(21), Some(pack(11))), (pack(22), None)]);
}

/// A store in which the bases are or are not; members never answer.
#[derive(Clone)]
struct Store {
    has_all: bool,
}

impl Bases for Store {
    fn is_here(&self, _base: ImageId) -> bool {
        self.has_all
    }

    async fn is_held_by_a_member(&self, _base: PackId) -> bool {
        std::future::pending().await
    }
}

/// A node's home, which outlives the desks that are started in it.
struct Station {
    documents: Documents,
    journals: JournalStore,
    notices: Notices,
    clock: Clock,
    _home: tempfile::TempDir,
}

impl Station {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let journals = JournalStore::open(&home.path().join("journal.redb")).unwrap();
        let at = SocketAddr::from(([127, 0, 0, 1], 1));
        let addresses = NodeAddresses { control: at, bulk: at };
        let key = SigningKey::from_bytes(&[1; 32]);
        let documents = Documents::load(Home::create(home.path()).unwrap(), key, addresses, "machine").unwrap();
        let clock = Clock::start();
        Self { documents, journals, notices: Notices::new(clock), clock, _home: home }
    }

    fn try_start(&self, has_all: bool) -> Result<Crossings> {
        Crossings::start(&self.documents, Store { has_all }, self.notices.clone(), &self.journals, self.clock)
    }

    /// Starts a desk that knows one update.
    async fn start(&self, has_all: bool, travel: UpdateTravel) -> Crossings {
        let crossings = self.try_start(has_all).unwrap();
        // It has heard of this node's own documents, which are none, before it hears of others.
        crossings.keep(UPDATE).await;
        let patch = PatchFrom { patch: PATCH, bytes: 1, base: ImageId(UPDATE.0), base_pack: Some(PATCH) };
        let updates = [(UPDATE, UpdateOffer { travel, patches: vec![patch] })].into();
        crossings.handle.input(CrossingInput::Documents { updates }).await;
        crossings
    }

    fn decided(&self) -> Vec<(u64, Crossing)> {
        let records = self.journals.read::<CrossingEvent>(CROSSINGS_JOURNAL).unwrap();
        let crossing = |event| match event {
            CrossingEvent::Decided { crossing, .. } => crossing,
        };
        records.into_iter().map(|record| (record.sequence.0, crossing(record.event))).collect()
    }
}

#[tokio::test]
async fn a_desk_that_has_ended_writes_nothing_beside_the_next_one_whoever_still_holds_it() {
    let station = Station::new();
    let old = station.start(false, UpdateTravel::Patch).await;
    let wish = tokio::spawn({
        let old = old.clone();
        async move { old.wish(HOST, UPDATE).await }
    });
    // The wish waits at the desk: members are never heard of.
    while old.handle.query(|desk| format!("{desk:?}").contains("waiting: {}")).await.unwrap() {
        sleep(Duration::from_millis(5)).await;
    }
    let error = station.try_start(true).err().expect("two desks write one journal");
    assert!(error.to_string().contains("still being written"), "{error:#}");

    old.end().await;
    let new = station.start(true, UpdateTravel::Patch).await;
    assert_eq!(timeout(PATIENCE, wish).await.unwrap().unwrap(), Wish::Withheld, "nobody waits for the old desk");
    assert_eq!(timeout(PATIENCE, old.wish(HOST, PATCH)).await.unwrap(), Wish::Withheld);
    old.station_failed(UPDATE, PATCH).await;
    old.end().await;
    let crosses = timeout(PATIENCE, new.wish(HOST, PATCH)).await.unwrap();
    assert!(matches!(crosses, Wish::Crosses { .. }), "{crosses:?}");
    new.end().await;
    assert_eq!(station.decided(), [(1, Crossing::Patch { patch: PATCH, by_station: true })]);
}

#[tokio::test]
async fn what_a_desk_said_of_an_update_that_waits_is_over_when_the_role_ends() {
    let station = Station::new();
    let desk = station.start(false, UpdateTravel::PatchOnly).await;
    let (handle, answers, notices) = (desk.handle.clone(), desk.answers.clone(), station.notices.clone());
    let effects = CrossingEffects { handle, answers, bases: Store { has_all: false }, notices };
    effects.tell(UPDATE, CrossingNews::NoBase);
    station.notices.add_of(Cause::Router, "the router does not answer".to_owned());
    let is_over = || station.notices.list().iter().map(|text| text.ends_with("(this is over)")).collect::<Vec<_>>();
    assert_eq!(is_over(), [false, false]);
    desk.end().await;
    assert_eq!(is_over(), [true, false], "{:?}", station.notices.list());
}

#[tokio::test]
async fn what_a_desk_decided_is_durable_once_it_has_ended() {
    let station = Station::new();
    for sequence in 1..20 {
        // Each desk decides anew, for the policy is another one.
        let travel = if sequence % 2 == 0 { UpdateTravel::Patch } else { UpdateTravel::Whole };
        let desk = station.start(true, travel).await;
        desk.handle.input(CrossingInput::Wish { node: HOST, pack: UPDATE }).await;
        desk.handle.input(CrossingInput::Here { pack: UPDATE, bases: [ImageId(UPDATE.0)].into() }).await;
        desk.end().await;
        assert_eq!(station.decided().len(), sequence);
    }
}
