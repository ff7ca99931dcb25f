//! Staging: packs are brought to the members of a site ahead of the sessions that need them, so that a rollout's window
//! is not spent on transfers.
//!
//! The station remembers what is staged (`staged.json`) and tells every member, those that come later at their hello.
//! A member takes only packs that the signed catalogue names: a captured station cannot fill its disk.
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use branchline_protocol::{
    catalogue::{Catalogue, Package},
    charter::Role,
    ids::{NodeId, PackId},
    refusal::{Refusal, RefusalKind},
    wire::control::{ControlAnswer, ControlRequest, Staging},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::timeout};

use super::node::Node;
use crate::mesh::Admission;

/// Where the station remembers what is staged.
const FILE: &str = "staged.json";
/// How long a member has to learn the manifest and to take the room.
const PREPARE_PATIENCE: Duration = Duration::from_secs(30);

/// Which pack a command means: its identity, a package's name, or `NAME@VERSION`.
pub type PackSelector = String;

/// What may be asked about packs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PacksCommand {
    /// The packs of the catalogue and of the store, and how far each is here.
    List,
    /// One pack, and who served whom as this node saw it.
    Show(PackSelector),
    /// Bring a pack: at the station to every member of the site, elsewhere to this node.
    Stage {
        /// Which.
        pack: PackSelector,
        /// How far.
        staging: Staging,
        /// To this node only, also where it is the station.
        here: bool,
    },
    /// The station no longer tells newcomers of the pack; what is fetched stays.
    Unstage(PackSelector),
    /// Answered once the pack is complete on this node.
    Wait(PackSelector),
}

/// Answers a command.
///
/// # Errors
/// The pack is not in the catalogue, or the disk fails.
pub async fn answer(node: &Arc<Node>, command: PacksCommand) -> Result<Value> {
    match command {
        PacksCommand::List => list(node).map(Value::Array),
        PacksCommand::Show(selector) => show(node, find(node, &selector)?),
        PacksCommand::Stage { pack, staging, here } => {
            let pack = find(node, &pack)?;
            stage(node, pack, staging, here).await
        }
        PacksCommand::Unstage(selector) => {
            let pack = find(node, &selector)?;
            let mut staged = staged(node)?;
            let was = staged.remove(&pack).is_some();
            node.home.write_json(FILE, &staged)?;
            Ok(json!({ "pack": pack, "was_staged": was }))
        }
        PacksCommand::Wait(selector) => {
            let pack = find(node, &selector)?;
            let (wan_bytes, lan_bytes) = node.packs.completed(pack).await;
            Ok(json!({ "pack": pack, "wan_bytes": wan_bytes, "lan_bytes": lan_bytes }))
        }
    }
}

fn catalogues(node: &Node) -> Vec<Catalogue> {
    let verified = |site| {
        let state = node.documents.site(&site)?;
        state.catalogue?.verify(state.authority.charter().keys.catalogue).ok()
    };
    node.documents.sites().into_iter().filter_map(verified).collect()
}

/// The pack that `selector` means; it must be in the catalogue.
fn find(node: &Node, selector: &str) -> Result<PackId> {
    let catalogues = catalogues(node);
    let packages: Vec<&Package> = catalogues.iter().flat_map(|catalogue| &catalogue.packages).collect();
    choose(selector, &packages)
}

fn choose(selector: &str, packages: &[&Package]) -> Result<PackId> {
    let (name, version) = selector.split_once('@').map_or((selector, None), |(name, version)| (name, Some(version)));
    let identity = selector.parse::<PackId>().ok();
    let is_meant = |package: &Package| {
        identity == Some(package.payload.pack)
            || (package.definition.name == name && version.is_none_or(|version| package.definition.version == version))
    };
    let mut found: Vec<&Package> = packages.iter().copied().filter(|package| is_meant(package)).collect();
    found.sort_by_key(|package| package.payload.pack);
    found.dedup_by_key(|package| package.payload.pack);
    match found.as_slice() {
        [only] => Ok(only.payload.pack),
        [] => bail!("no package of the catalogue is {selector:?}; `branchline packs list` shows all"),
        several => {
            let named: Vec<String> = several
                .iter()
                .map(|Package { definition, payload }| {
                    format!("{}@{} {} ({})", definition.name, definition.version, payload.pack, payload.file_name)
                })
                .collect();
            bail!("{selector:?} means several packs; say which: {}", named.join(", "))
        }
    }
}

fn staged(node: &Node) -> Result<BTreeMap<PackId, Staging>> {
    Ok(node.home.read_json(FILE)?.unwrap_or_default())
}

async fn stage(node: &Arc<Node>, pack: PackId, staging: Staging, here: bool) -> Result<Value> {
    if here || node.station().is_none() {
        bring(node, pack, staging).await?;
        return Ok(json!({ "pack": pack, "members": [] }));
    }
    let mut staged = staged(node)?;
    staged.insert(pack, staging);
    node.home.write_json(FILE, &staged)?;
    let own = node.documents.node();
    let members: Vec<NodeId> = {
        let admitted = node.mesh.admitted();
        let admitted = admitted.borrow();
        admitted.values().filter(|peer| is_member(peer)).map(|peer| peer.node).filter(|peer| *peer != own).collect()
    };
    // Members ask the station for the manifest, and may be quicker than its own wish for it.
    let learning = node.packs.learn(pack);
    let mut asked = JoinSet::new();
    for member in members {
        let mesh = node.mesh.clone();
        asked.spawn(async move { (member, mesh.request(member, ControlRequest::Stage { pack, staging }).await) });
    }
    bring(node, pack, staging).await?;
    drop(learning);
    let mut answers = BTreeMap::new();
    while let Some(answer) = asked.join_next().await {
        let (member, answer) = answer?;
        answers.insert(member, answer.err().map(|error| error.to_string()));
    }
    let members: Vec<Value> =
        answers.into_iter().map(|(member, refusal)| json!({ "node": member, "refusal": refusal })).collect();
    Ok(json!({ "pack": pack, "members": members }))
}

/// Headquarters has every pack that it publishes.
fn is_member(peer: &Admission) -> bool {
    !peer.roles.contains(&Role::Headquarters)
}

async fn bring(node: &Node, pack: PackId, staging: Staging) -> Result<()> {
    match staging {
        Staging::Prepared => timeout(PREPARE_PATIENCE, node.packs.prepare(pack))
            .await
            .with_context(|| format!("nobody gave the manifest of pack {pack} within {PREPARE_PATIENCE:?}"))?,
        Staging::Fetched => {
            node.packs.keep(vec![pack]).await;
            Ok(())
        }
    }
}

/// A request of the station.
pub async fn take(node: &Node, from: &Admission, pack: PackId, staging: Staging) -> ControlAnswer {
    if !from.roles.contains(&Role::Station) {
        let reason = "only the station of the site stages packs";
        return ControlAnswer::Refused(Refusal::new(RefusalKind::NotAuthorised, reason));
    }
    let named = |catalogue: &Catalogue| catalogue.packages.iter().any(|package| package.payload.pack == pack);
    if !catalogues(node).iter().any(named) {
        let reason = format!("pack {pack} is not in the catalogue that this node holds; publish it first");
        return ControlAnswer::Refused(Refusal::new(RefusalKind::NotFound, reason));
    }
    match bring(node, pack, staging).await {
        Ok(()) => ControlAnswer::Done,
        Err(error) => ControlAnswer::Refused(Refusal::new(RefusalKind::Internal, format!("{error:#}"))),
    }
}

/// The station tells a member that has just come, or that has newer documents now, what is staged.
pub async fn tell_newcomer(node: Arc<Node>, admission: Admission) {
    if node.station().is_none() || !is_member(&admission) {
        return;
    }
    let staged = match staged(&node) {
        Ok(staged) => staged,
        Err(error) => return tracing::warn!("what is staged cannot be read: {error:#}"),
    };
    for (pack, staging) in staged {
        if let Err(error) = node.mesh.request(admission.node, ControlRequest::Stage { pack, staging }).await {
            tracing::debug!(member = %admission.node, %pack, %error, "a staged pack is not taken yet");
        }
    }
}

fn list(node: &Node) -> Result<Vec<Value>> {
    let catalogues = catalogues(node);
    let packages = catalogues.iter().flat_map(|catalogue| &catalogue.packages);
    let mut rows: BTreeMap<PackId, Value> = BTreeMap::new();
    for Package { definition, payload } in packages {
        let row = json!({
            "pack": payload.pack, "package": definition.name, "version": definition.version, "bytes": payload.pack_bytes,
        });
        rows.insert(payload.pack, row);
    }
    for pack in node.packs.stored() {
        let row = || json!({ "pack": pack.id(), "package": null, "version": null, "bytes": pack.length() });
        rows.entry(pack.id()).or_insert_with(row);
    }
    let (staged, progress) = (staged(node)?, node.packs.progress());
    for (pack, row) in &mut rows {
        let own = progress.iter().find(|own| own.pack == *pack);
        row["staged"] = json!(staged.get(pack));
        row["state"] = json!(match own {
            None => "absent",
            Some(own) if own.complete => "complete",
            Some(_) => "fetching",
        });
        row["bytes_here"] = json!(own.map_or(0, |own| own.bytes));
    }
    Ok(rows.into_values().collect())
}

fn show(node: &Node, pack: PackId) -> Result<Value> {
    let rows = list(node)?;
    let name = serde_json::to_value(pack)?;
    let mut row = rows.into_iter().find(|row| row["pack"] == name).context("the pack is gone")?;
    let progress = node.packs.progress().into_iter().find(|own| own.pack == pack);
    row["progress"] = serde_json::to_value(progress)?;
    let transfers = node.packs.accounts().transfers.into_iter().filter(|(key, _)| key.pack == pack);
    let transfers: Vec<Value> = transfers
        .map(|(key, sum)| {
            json!({
                "peer": key.peer, "direction": key.direction, "place": key.place, "frames": sum.frames,
                "bytes": sum.bytes, "duplicate_bytes": sum.duplicate_bytes,
            })
        })
        .collect();
    row["transfers"] = Value::Array(transfers);
    Ok(row)
}

#[cfg(test)]
mod tests {
    use branchline_protocol::{
        catalogue::{PackageDefinition, Payload},
        ids::{Hash, ImageId},
    };

    use super::*;

    fn package(version: &str, pack: u8) -> Package {
        let text = include_str!("../demo/packages/sample-agent.toml");
        let text = text.replace("version = \"1.0.0\"", &format!("version = \"{version}\""));
        let payload = Payload {
            image: ImageId(Hash([pack; 32])),
            pack: PackId(Hash([pack; 32])),
            pack_bytes: 1,
            raw_bytes: 1,
            sha256: Hash([0; 32]),
            file_name: "agent.tar".to_owned(),
        };
        Package { definition: PackageDefinition::from_toml(&text).unwrap(), payload }
    }

    #[test]
    fn a_pack_is_named_by_identity_name_or_version_and_never_guessed() {
        let (old, new) = (package("1.0.0", 1), package("2.0.0", 2));
        let all = [&old, &new];
        assert_eq!(choose("sample-agent@2.0.0", &all).unwrap(), new.payload.pack);
        assert_eq!(choose(&old.payload.pack.to_string(), &all).unwrap(), old.payload.pack);
        assert_eq!(choose("sample-agent", &all[..1]).unwrap(), old.payload.pack);
        assert!(choose("sample-agent", &all).unwrap_err().to_string().contains("sample-agent@1.0.0"));
        assert!(choose("other", &all).unwrap_err().to_string().contains("packs list"));
        assert!(choose(&PackId(Hash([9; 32])).to_string(), &all).is_err(), "a pack outside the catalogue");
    }
}
