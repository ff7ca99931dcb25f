//! Updates move patches (R73), and only one of patch and whole pack crosses the line (R70): in a site of which half has
//! the base, nobody has it, or the patch is worth nothing.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use branchline::catalogue::CatalogueDirectory;
use branchline::config::Bundle;
use branchline_protocol::content::{build_pack, patch::PATCH_STALL};
use branchline_tests::site::{SITE, Site, SiteOptions};
use branchline_tests::{payload, return_without_lab};
use serde_json::Value;

const HOSTS: [&str; 4] = ["host1", "host2", "host3", "host4"];
/// The hosts that get the first version where some do.
const HALF: [&str; 2] = ["host1", "host2"];
/// Who was refused a lease asks again within ten seconds.
const ASKED_AGAIN: Duration = Duration::from_secs(15);

/// Two versions of a package that no survey selects: it is staged.
fn versions(directory: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    let (definition, first) = payload::generated(directory, "till", 2, ":", "false")?;
    let mut bytes = std::fs::read(&first)?;
    // A change in the middle of the data, where the archive's own headers stay as they are.
    let middle = bytes.len() / 2;
    bytes[middle..middle + 1000].reverse();
    let second = directory.join("till_1.1_amd64.deb");
    std::fs::write(&second, bytes)?;
    let newer = directory.join("till-1.1.toml");
    std::fs::write(&newer, std::fs::read_to_string(&definition)?.replace("version = \"1.0\"", "version = \"1.1\""))?;
    Ok(vec![(definition, first), (newer, second)])
}

/// Frame bytes that headquarters sent into the site, by pack.
fn sent(site: &Site) -> Result<BTreeMap<String, u64>> {
    let transfers: Value = site.headquarters_json(&["status", "--transfers"])?;
    let mut sent = BTreeMap::new();
    for record in transfers["origin"].as_array().context("headquarters has no meter")? {
        let pack = record["pack"].as_str().context("a record without a pack")?.to_owned();
        *sent.entry(pack).or_default() += record["meter"]["bytes"].as_u64().unwrap_or(0);
    }
    Ok(sent)
}

/// What one test wants of its site.
#[derive(Clone, Copy)]
struct Plan {
    id: &'static str,
    /// The machines that get the first version.
    with_base: &'static [&'static str],
    /// `updates` of the site policy; empty: a policy that says nothing of it.
    policy: &'static str,
    /// The catalogue's patch makes nothing.
    patch_is_broken: bool,
}

struct Update {
    site: Site,
    whole: String,
    whole_bytes: u64,
    patch: String,
    patch_bytes: u64,
    before: BTreeMap<String, u64>,
}

impl Update {
    /// A site in which some have the first version, and the second is published.
    fn prepare(made: &Path, plan: Plan) -> Result<Self> {
        let options = SiteOptions::new(plan.id, HOSTS.len(), versions(made)?);
        let site = Site::up(&SiteOptions { rules: String::new(), ..options })?;
        if plan.patch_is_broken {
            break_patch(&site)?;
        }
        let bundle = site.path("bundle").display().to_string();
        let catalogue: Value =
            serde_json::from_str(&site.command(&["catalogue", "list", "--bundle", &bundle, "--json"])?)?;
        let patch = &catalogue["patches"][0];
        let payload = &catalogue["packages"][1]["payload"];
        ensure!(patch["target"] == payload["image"], "the catalogue has no patch to the newer version: {catalogue:#}");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        site.publish()?;
        if !plan.policy.is_empty() {
            publish_policy(&site, 2, plan.policy)?;
        }
        let token = site.token("station", HOSTS.len())?;
        for host in HOSTS {
            site.start_host(host, &token)?;
        }
        site.wait_until(60, "every host knows the catalogue", || {
            Ok(HOSTS
                .iter()
                .chain(&["station"])
                .all(|machine| site.node(machine, &["packs", "show", "till@1.0"]).is_ok()))
        })?;
        for machine in plan.with_base {
            site.node(machine, &["packs", "stage", "till@1.0", "--here"])?;
            site.node(machine, &["packs", "wait", "till@1.0"])?;
        }
        let before = sent(&site)?;
        Ok(Self {
            whole: text(&payload["pack"]),
            whole_bytes: payload["pack_bytes"].as_u64().context("no length")?,
            patch: text(&patch["pack"]),
            patch_bytes: patch["pack_bytes"].as_u64().context("no length")?,
            before,
            site,
        })
    }

    /// Stages the second version to everybody.
    fn stage(&self) -> Result<()> {
        self.site.node("station", &["packs", "stage", "till@1.1"]).map(drop)
    }

    /// What crossed the line of patch and whole pack.
    fn crossed(&self) -> Result<(u64, u64)> {
        let after = sent(&self.site)?;
        let crossed = |pack: &String| after.get(pack).unwrap_or(&0) - self.before.get(pack).unwrap_or(&0);
        println!(
            "patch {} of {}, whole {} of {}",
            crossed(&self.patch),
            self.patch_bytes,
            crossed(&self.whole),
            self.whole_bytes
        );
        Ok((crossed(&self.patch), crossed(&self.whole)))
    }

    /// Waits until everybody has the second version, and gives what crossed the line of patch and whole pack.
    fn wait(&self) -> Result<(u64, u64)> {
        for machine in HOSTS.iter().chain(&["station"]) {
            self.site.node(machine, &["packs", "wait", "till@1.1"])?;
        }
        self.crossed()
    }

    /// Whether a machine's `branchline status` has a notice with all of these words.
    fn notices(&self, machine: &str, words: &[&str]) -> Result<bool> {
        let status: Value = self.site.node_json(machine, &["status"])?;
        let notices = status["notices"].as_array().context("no notices")?;
        let has = |notice: &Value| words.iter().all(|word| notice.as_str().unwrap_or_default().contains(word));
        Ok(notices.iter().any(has))
    }
}

fn publish_policy(site: &Site, version: u64, updates: &str) -> Result<()> {
    let (file, bundle) = (site.path("policy.toml"), site.path("bundle").display().to_string());
    std::fs::write(&file, format!("site = \"{SITE}\"\nversion = {version}\nupdates = \"{updates}\"\n"))?;
    site.headquarters(&["publish", "--policy", &file.display().to_string(), "--bundle", &bundle]).map(drop)
}

/// Publishes rules under which the line has this rate.
fn publish_line_rate(site: &Site, version: u64, rate: &str) -> Result<()> {
    let (file, bundle) = (site.path("bandwidth.toml"), site.path("bundle").display().to_string());
    let rules = format!("site = \"{SITE}\"\nversion = {version}\ntime_zone = \"UTC\"\n\n[line]\nrate = \"{rate}\"\n");
    std::fs::write(&file, rules)?;
    site.headquarters(&["publish", "--bandwidth", &file.display().to_string(), "--bundle", &bundle]).map(drop)
}

/// Puts a pack of other bytes in the place of the catalogue's patch, and signs that.
fn break_patch(site: &Site) -> Result<()> {
    let bundle = Bundle::open(&site.path("bundle"))?;
    let directory = CatalogueDirectory::new(site.path("bundle/catalogue"));
    let mut catalogue = directory.verified(bundle.public_keys()?.catalogue)?;
    let bytes: Vec<u8> = (0..40_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let mut frames = Vec::new();
    let pack = build_pack("broken.patch", &bytes[..], 64 << 10, &mut frames)?;
    let packs = site.path("bundle/catalogue/packs");
    std::fs::write(packs.join(format!("{}.pack", pack.id())), frames)?;
    std::fs::write(packs.join(format!("{}.manifest", pack.id())), pack.manifest().encode()?)?;
    let patch = catalogue.patches.first_mut().context("there is no patch to break")?;
    (patch.pack, patch.pack_bytes, patch.raw_bytes) = (pack.id(), pack.length(), bytes.len() as u64);
    catalogue.version += 1;
    bundle.sign_catalogue(&catalogue).map(drop)
}

#[test]
fn lab_an_update_moves_only_its_patch() -> Result<()> {
    return_without_lab!(Ok(()));
    let made = tempfile::tempdir()?;
    let plan = Plan { id: "blpatch", with_base: &HALF, policy: "", patch_is_broken: false };
    let update = Update::prepare(made.path(), plan)?;
    update.stage()?;
    assert_eq!(update.wait()?, (update.patch_bytes, 0));
    assert!(update.patch_bytes * 100 < update.whole_bytes, "{} {}", update.patch_bytes, update.whole_bytes);
    Ok(())
}

fn turn_line_off(site: &Site) -> Result<()> {
    publish_line_rate(site, 2, "off")?;
    site.wait_until(20, "everybody knows that the line is off", || {
        let knows = |machine: &&str| site.node(machine, &["status"]).is_ok_and(|status| status.contains("rate: off"));
        Ok(HOSTS.iter().chain(&["station"]).all(knows))
    })
}

/// Two sites wait at the same time: one in which nobody has the update, and one whose station has it.
#[test]
fn lab_an_update_waits_for_a_line_that_is_off_unless_a_neighbour_has_it() -> Result<()> {
    return_without_lab!(Ok(()));
    let made = [tempfile::tempdir()?, tempfile::tempdir()?];
    let plan = Plan { id: "bloff", with_base: &HALF, policy: "", patch_is_broken: false };
    let update = Update::prepare(made[0].path(), plan)?;
    let with_base = &["host1"];
    let plan = Plan { id: "bloffmade", with_base, policy: "whole", patch_is_broken: false };
    let at_station = Update::prepare(made[1].path(), plan)?;
    at_station.site.node("station", &["packs", "stage", "till@1.1", "--here"])?;
    at_station.site.node("station", &["packs", "wait", "till@1.1"])?;
    publish_policy(&at_station.site, 3, "patch")?;
    turn_line_off(&at_station.site)?;
    turn_line_off(&update.site)?;

    update.stage()?;
    at_station.site.node("host1", &["packs", "stage", "till@1.1", "--here"])?;
    let began = Instant::now();
    at_station.site.node("host1", &["packs", "wait", "till@1.1"])?;
    assert!(began.elapsed() > PATCH_STALL / 2, "the host with the base did not wait for the patch");
    assert_eq!(at_station.crossed()?, (0, at_station.whole_bytes));

    sleep((PATCH_STALL + ASKED_AGAIN).saturating_sub(began.elapsed()));
    assert_eq!(update.crossed()?, (0, 0));
    publish_line_rate(&update.site, 3, "unlimited")?;
    assert_eq!(update.wait()?, (update.patch_bytes, 0));
    Ok(())
}

#[test]
fn lab_an_update_moves_only_its_whole_pack_where_the_policy_says_so() -> Result<()> {
    return_without_lab!(Ok(()));
    let made = tempfile::tempdir()?;
    let with_base = &["host1", "host2", "station"];
    let plan = Plan { id: "blwhole", with_base, policy: "whole", patch_is_broken: false };
    let update = Update::prepare(made.path(), plan)?;
    update.stage()?;
    assert_eq!(update.wait()?, (0, update.whole_bytes));
    Ok(())
}

#[test]
fn lab_under_patch_only_nothing_crosses_where_nobody_has_a_base_and_the_operator_is_told() -> Result<()> {
    return_without_lab!(Ok(()));
    let made = tempfile::tempdir()?;
    let plan = Plan { id: "blpatchonly", with_base: &[], policy: "patch_only", patch_is_broken: false };
    let update = Update::prepare(made.path(), plan)?;
    update.stage()?;
    let told = [update.whole.as_str(), "waits", "patch_only"];
    update.site.wait_until(30, "the station's notices tell of the update", || update.notices("station", &told))?;
    sleep(ASKED_AGAIN);
    assert_eq!(update.crossed()?, (0, 0));
    publish_policy(&update.site, 3, "patch")?;
    assert_eq!(update.wait()?, (0, update.whole_bytes));
    assert!(update.notices("station", &[&update.whole, "this is over"])?, "the notice is over");
    Ok(())
}

#[test]
fn lab_the_whole_pack_crosses_after_all_where_its_patch_cannot_be_applied() -> Result<()> {
    return_without_lab!(Ok(()));
    let made = tempfile::tempdir()?;
    let with_base = &["host1", "host2", "station"];
    let plan = Plan { id: "blbroken", with_base, policy: "patch", patch_is_broken: true };
    let update = Update::prepare(made.path(), plan)?;
    update.stage()?;
    assert_eq!(update.wait()?, (update.patch_bytes, update.whole_bytes));
    Ok(())
}

#[test]
fn lab_under_patch_only_the_whole_pack_stays_out_where_its_patch_cannot_be_applied() -> Result<()> {
    return_without_lab!(Ok(()));
    let made = tempfile::tempdir()?;
    let with_base = &["host1", "host2", "station"];
    let plan = Plan { id: "blbrokenonly", with_base, policy: "patch_only", patch_is_broken: true };
    let update = Update::prepare(made.path(), plan)?;
    update.stage()?;
    for machine in with_base {
        let told = [update.whole.as_str(), "could not be made", "patch_only"];
        update.site.wait_until(60, "its notices tell of the update", || update.notices(machine, &told))?;
    }
    sleep(ASKED_AGAIN);
    assert_eq!(update.crossed()?, (update.patch_bytes, 0));
    Ok(())
}
