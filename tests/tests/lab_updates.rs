//! Updates move patches (R73), and only one of patch and whole pack crosses the line (R70): in a site of which half has
//! the base.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use branchline_tests::site::{Site, SiteOptions};
use branchline_tests::{payload, return_without_lab};
use serde_json::Value;

const HOSTS: [&str; 4] = ["host1", "host2", "host3", "host4"];
/// The hosts that get the first version.
const WITH_BASE: [&str; 2] = ["host1", "host2"];

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

struct Update {
    site: Site,
    whole: String,
    whole_bytes: u64,
    patch: String,
    patch_bytes: u64,
    before: BTreeMap<String, u64>,
}

impl Update {
    /// A site in which station or not, and half of the hosts, have the first version, and the second is published.
    fn prepare(id: &str, made: &Path, station_has_it: bool, policy: &str) -> Result<Self> {
        let options = SiteOptions::new(id, HOSTS.len(), versions(made)?);
        let site = Site::up(&SiteOptions { rules: String::new(), ..options })?;
        let bundle = site.path("bundle").display().to_string();
        let catalogue: Value =
            serde_json::from_str(&site.command(&["catalogue", "list", "--bundle", &bundle, "--json"])?)?;
        let patch = &catalogue["patches"][0];
        let payload = &catalogue["packages"][1]["payload"];
        ensure!(patch["target"] == payload["image"], "the catalogue has no patch to the newer version: {catalogue:#}");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        site.publish()?;
        if !policy.is_empty() {
            let file = site.path("policy.toml");
            std::fs::write(&file, format!("site = \"lab\"\nversion = 2\nupdates = \"{policy}\"\n"))?;
            site.headquarters(&["publish", "--policy", &file.display().to_string(), "--bundle", &bundle])?;
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
        for machine in WITH_BASE.iter().chain(station_has_it.then_some(&"station")) {
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

    /// Stages the second version to everybody, waits, and gives what crossed the line of patch and whole pack.
    fn run(&self) -> Result<(u64, u64)> {
        self.site.node("station", &["packs", "stage", "till@1.1"])?;
        for machine in HOSTS.iter().chain(&["station"]) {
            self.site.node(machine, &["packs", "wait", "till@1.1"])?;
        }
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
}

#[test]
fn lab_an_update_moves_only_its_patch() -> Result<()> {
    return_without_lab!(Ok(()));
    let made = tempfile::tempdir()?;
    let update = Update::prepare("blpatch", made.path(), false, "")?;
    assert_eq!(update.run()?, (update.patch_bytes, 0));
    assert!(update.patch_bytes * 100 < update.whole_bytes, "{} {}", update.patch_bytes, update.whole_bytes);
    Ok(())
}

#[test]
fn lab_an_update_moves_only_its_whole_pack_where_the_policy_says_so() -> Result<()> {
    return_without_lab!(Ok(()));
    let made = tempfile::tempdir()?;
    let update = Update::prepare("blwhole", made.path(), true, "whole")?;
    assert_eq!(update.run()?, (0, update.whole_bytes));
    Ok(())
}
