//! The rates in force: bandwidth rules and `node.toml`, looked up every second by the wall clock (R71).
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use branchline_protocol::{
    catalogue::{Catalogue, Package},
    ids::{PackId, SiteName},
    rates::{BandwidthRules, Rate, RolloutLimit, Schedule},
    time::UnixSeconds,
};
use serde_json::{Value, json};

use super::{
    clock::wall_time,
    packs::{PackSet, Packs},
};
use crate::{
    bulk::{Bucket, Shaper},
    config::{BandwidthConfig, Zone},
    mesh::{Documents, SiteState},
};

/// How often the schedules are looked up.
const LOOK: Duration = Duration::from_secs(1);

/// One limit, whatever rate it has now.
#[derive(Clone, Debug)]
struct Limit {
    bucket: Bucket,
    /// What it limits, for people.
    name: String,
    schedule: Schedule,
    zone: Arc<Zone>,
}

/// When a pack may cross the line.
#[derive(Clone, Debug)]
struct RolloutHere {
    pack: PackId,
    schedule: Schedule,
    zone: Arc<Zone>,
}

impl RolloutHere {
    fn is_off(&self, wall: UnixSeconds) -> bool {
        self.schedule.rate_at(self.zone.offsets(), wall) == Rate::Off
    }
}

/// How a line is to be used by the node that brings packs over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineUse {
    /// The transfer yields to other traffic that adds this delay; `None`: it does not yield.
    pub background: Option<Duration>,
}

/// What the background mode did last, for people.
#[derive(Clone, Copy, Debug)]
pub struct BackgroundNow {
    /// Bytes per second that headquarters may send.
    pub bytes_per_second: u64,
    /// The delay that was seen, in microseconds.
    pub queueing_microseconds: Option<u64>,
}

#[derive(Default)]
struct State {
    limits: Vec<Limit>,
    rollouts: Vec<RolloutHere>,
    line: Option<LineUse>,
    background: Option<BackgroundNow>,
}

/// The limits of one node; cheap to clone.
#[derive(Clone)]
pub struct Bandwidth {
    documents: Documents,
    own: BandwidthConfig,
    shaper: Shaper,
    rollouts_off: PackSet,
    state: Arc<Mutex<State>>,
}

impl Bandwidth {
    /// Begins to keep the rates of the packs' bulk plane, and to say which packs' rollouts are off.
    ///
    /// # Errors
    /// `[bandwidth]` of `node.toml` names no time zone, or a rate that cannot work.
    pub fn start(documents: &Documents, own: &BandwidthConfig, packs: &Packs) -> Result<Self> {
        own.check().context("reading [bandwidth] of node.toml")?;
        let (shaper, rollouts_off) = (packs.bulk().shaper().clone(), Arc::clone(packs.rollouts_off()));
        let state = Arc::default();
        let bandwidth = Self { documents: documents.clone(), own: own.clone(), shaper, rollouts_off, state };
        bandwidth.look(wall_time(), true);
        tokio::spawn(bandwidth.clone().keep());
        Ok(bandwidth)
    }

    async fn keep(self) {
        let mut changes = self.documents.changes();
        loop {
            let changed = tokio::select! {
                () = tokio::time::sleep(LOOK) => false,
                changed = changes.changed() => changed.is_ok(),
            };
            self.look(wall_time(), changed);
        }
    }

    fn look(&self, wall: UnixSeconds, documents_changed: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if documents_changed {
            (state.limits, state.line) = self.limits(wall);
            state.rollouts = self.rollouts(wall);
        }
        let mut rates: Vec<(Bucket, Rate)> = Vec::new();
        for limit in &state.limits {
            let rate = limit.schedule.rate_at(limit.zone.offsets(), wall);
            match rates.iter_mut().find(|(bucket, _)| *bucket == limit.bucket) {
                Some((_, strictest)) => *strictest = rate.min(*strictest),
                None => rates.push((limit.bucket.clone(), rate)),
            }
        }
        let off = state.rollouts.iter().filter(|rollout| rollout.is_off(wall)).map(|rollout| rollout.pack).collect();
        drop(state);
        self.shaper.set_rates(&rates);
        *self.rollouts_off.lock().unwrap_or_else(PoisonError::into_inner) = off;
    }

    /// The rules of all sites whose time zone is known here, with their sites.
    fn rules(&self, wall: UnixSeconds) -> Vec<(SiteState, BandwidthRules, Arc<Zone>)> {
        let states = self.documents.sites().into_iter().filter_map(|site| self.documents.site(&site));
        let with_rules = states.filter_map(|state| {
            let rules = state.bandwidth_rules()?;
            let zone = Zone::named(&rules.time_zone, wall).ok()?;
            Some((state, rules, Arc::new(zone)))
        });
        with_rules.collect()
    }

    /// The rollouts into this node's site. Headquarters keeps to them; members only know by them what cannot come.
    fn rollouts(&self, wall: UnixSeconds) -> Vec<RolloutHere> {
        let mut rollouts = Vec::new();
        for (state, rules, zone) in self.rules(wall) {
            for rollout in &rules.rollouts {
                let here = |pack| RolloutHere { pack, schedule: rollout.schedule(), zone: Arc::clone(&zone) };
                rollouts.extend(packs_of(&state, rollout).into_iter().map(here));
            }
        }
        rollouts
    }

    fn limits(&self, wall: UnixSeconds) -> (Vec<Limit>, Option<LineUse>) {
        let (mut limits, mut line) = (Vec::new(), None);
        let mut add = |bucket, name: &str, schedule: &Schedule, zone: &Arc<Zone>| {
            if *schedule != Schedule::default() {
                limits.push(Limit {
                    bucket,
                    name: name.to_owned(),
                    schedule: schedule.clone(),
                    zone: Arc::clone(zone),
                });
            }
        };
        if let Ok(zone) = Zone::named(&self.own.time_zone, wall).map(Arc::new) {
            add(Bucket::Upload, "upload of this node (node.toml)", &self.own.upload, &zone);
            add(Bucket::Download, "download of this node (node.toml)", &self.own.download, &zone);
        }
        for (state, rules, zone) in self.rules(wall) {
            let site = state.authority.charter().site.clone();
            if state.authority.charter().headquarters.node == self.documents.node() {
                let bucket = Bucket::LineOut(site.clone());
                add(bucket, &format!("line to site {site}"), &rules.line.schedule(), &zone);
                for rollout in &rules.rollouts {
                    let name = format!("{} on the line to site {site}", rollout.package);
                    for pack in packs_of(&state, rollout) {
                        add(Bucket::Rollout(site.clone(), pack), &name, &rollout.schedule(), &zone);
                    }
                }
            } else {
                add(Bucket::LineIn, "line from headquarters", &rules.line.schedule(), &zone);
                add(Bucket::Upload, "upload of every node", &rules.host.upload, &zone);
                add(Bucket::Download, "download of every node", &rules.host.download, &zone);
                line = Some(line_use(&rules));
            }
        }
        (limits, line)
    }

    /// How the line into this node's site is to be used.
    pub fn line_use(&self) -> Option<LineUse> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).line
    }

    /// Notes what the background mode does; `None`: it rests.
    pub fn note_background(&self, now: Option<BackgroundNow>) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).background = now;
    }

    /// The rates of the plane.
    pub fn shaper(&self) -> &Shaper {
        &self.shaper
    }

    /// Every limit with its rate now, when the next one begins, and which, for people.
    pub fn report(&self, wall: UnixSeconds) -> Value {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines: Vec<Value> = state.limits.iter().map(|limit| limit.report(wall)).collect();
        if state.line.is_some_and(|line| line.background.is_some()) {
            lines.push(match state.background {
                None => json!({ "limit": "background on the line", "rate": "nothing is under way" }),
                Some(now) => json!({
                    "limit": "background on the line",
                    "rate": Rate::Bits(now.bytes_per_second / 125 * 1_000).to_string(),
                    "delay_by_others_milliseconds": now.queueing_microseconds.map(|micros| micros as f64 / 1e3),
                }),
            });
        }
        Value::Array(lines)
    }
}

impl Limit {
    fn report(&self, wall: UnixSeconds) -> Value {
        let mut line = json!({ "limit": self.name, "rate": self.schedule.rate_at(self.zone.offsets(), wall) });
        if let (Some((at, rate)), Some(fields)) =
            (self.schedule.next_change(self.zone.offsets(), wall), line.as_object_mut())
        {
            fields.insert("until".to_owned(), self.zone.text(at).into());
            fields.insert("then".to_owned(), rate.to_string().into());
        }
        line
    }
}

fn line_use(rules: &BandwidthRules) -> LineUse {
    let delay = Duration::from_millis(rules.line.background_delay_milliseconds.into());
    LineUse { background: rules.line.background.then_some(delay) }
}

/// The packs of a rollout, by the catalogue that this node holds: payloads, and the patches that make them.
fn packs_of(state: &SiteState, rollout: &RolloutLimit) -> Vec<PackId> {
    state.selection_documents().map_or(Vec::new(), |((catalogue, _), _)| rollout_packs(&catalogue, rollout))
}

fn rollout_packs(catalogue: &Catalogue, rollout: &RolloutLimit) -> Vec<PackId> {
    let meant = |package: &&Package| {
        let definition = &package.definition;
        definition.name == rollout.package
            && rollout.version.as_ref().is_none_or(|version| *version == definition.version)
    };
    let payloads = catalogue.packages.iter().filter(meant).map(|package| &package.payload);
    let with_patches = payloads.flat_map(|payload| {
        let patches = catalogue.patches.iter().filter(|patch| patch.target == payload.image);
        patches.map(|patch| patch.pack).chain([payload.pack])
    });
    with_patches.collect()
}

/// The name of each pack's package, by the catalogue that this node holds.
pub fn package_names(documents: &Documents, site: &SiteName) -> Vec<(PackId, String, u64)> {
    let Some(Ok(((catalogue, _), _))) = documents.site(site).map(|state| state.selection_documents()) else {
        return Vec::new();
    };
    let named = catalogue.packages.iter().map(|package| {
        let name = format!("{} {}", package.definition.name, package.definition.version);
        (package.payload.pack, name, package.payload.pack_bytes)
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use branchline_protocol::ids::Hash;

    use super::super::crossing::tests::{offer, package};
    use super::*;

    #[test]
    fn a_rollout_is_limited_whichever_encoding_crosses() {
        let (packages, patches) = (vec![package(1, 11), package(2, 12)], vec![offer(1, 2, 21), offer(9, 3, 22)]);
        let catalogue = Catalogue { packages, patches, version: 1, expires_at: None };
        let packs = |package: &str, version: Option<&str>| {
            let (package, version) = (package.to_owned(), version.map(str::to_owned));
            let limit = RolloutLimit { package, version, rate: Rate::Unlimited, windows: vec![] };
            rollout_packs(&catalogue, &limit)
        };
        let pack = |number: u8| PackId(Hash([number; 32]));
        let all = [pack(11), pack(21), pack(12)];
        assert_eq!(packs("sample-agent", None), all);
        assert_eq!(packs("sample-agent", Some("1.0.0")), all);
        assert_eq!((packs("sample-agent", Some("7")), packs("other", None)), (vec![], vec![]));
    }
}
