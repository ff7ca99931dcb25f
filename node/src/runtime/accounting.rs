//! The account of each pack: why its bytes crossed the line, and who served whom (R126).
//!
//! Headquarters knows what left it, per lease holder: that is the meter of R70. The station gathers what its members
//! counted: who received how much from whom. Each tells what it knows; neither guesses what the other knows.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::Result;
use branchline_protocol::{
    charter::Role,
    ids::{NodeId, PackId, SiteName},
    limits::ACCOUNT_LINES_MAX,
    swarm::{FenceRecord, Place},
    wire::control::{AccountLine, ControlAnswer, ControlRequest},
};
use futures::{StreamExt, stream};
use serde::Serialize;
use serde_json::Value;
use tokio::time::timeout;

use super::{bandwidth::package_names, node::Node};
use crate::bulk::{Accounts, Direction};

/// Members that are asked at a time.
const ASKED_AT_ONCE: usize = 16;
/// How long a member has for its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The account of one pack in one site.
#[derive(Clone, Debug, Serialize)]
pub struct PackAccount {
    /// The site.
    pub site: SiteName,
    /// The pack.
    pub pack: PackId,
    /// Name and version of its package, where this node's catalogue has it.
    pub package: Option<String>,
    /// P of R70.
    pub length_bytes: Option<u64>,
    /// Frame bytes that crossed the line.
    pub wan_bytes: u64,
    /// `wan_bytes / length_bytes`.
    pub wan_ratio: Option<f64>,
    /// Why more or less than the pack crossed, where it did.
    pub remark: Option<String>,
    /// Over the line: to whom, and why.
    pub line: Vec<LineEntry>,
    /// Inside the site: who served whom.
    pub inside: Vec<InsideEntry>,
    /// Members that did not answer.
    pub unanswered: Vec<String>,
}

/// What one inlet got over the line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LineEntry {
    /// The inlet.
    pub to: String,
    /// Frame bytes.
    pub bytes: u64,
    /// Frames.
    pub frames: u64,
    /// Since when, in seconds since 1970, where headquarters saw it.
    pub since: Option<u64>,
    /// Why it was this node.
    pub why: String,
}

/// What one node got from another inside the site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InsideEntry {
    /// Who served.
    pub from: String,
    /// Whom.
    pub to: String,
    /// Frame bytes.
    pub bytes: u64,
    /// Frames.
    pub frames: u64,
    /// Bytes of frames that were there already.
    pub duplicate_bytes: u64,
}

/// What this node received and sent of a pack, the most bytes first.
pub fn own_lines(accounts: &Accounts, pack: PackId) -> Vec<AccountLine> {
    let of_pack = accounts.transfers.iter().filter(|(key, _)| key.pack == pack);
    let mut lines: Vec<AccountLine> = of_pack
        .map(|(key, transfer)| AccountLine {
            peer: key.peer,
            sent: key.direction == Direction::Sent,
            place: key.place,
            frames: transfer.frames,
            bytes: transfer.bytes,
            duplicate_bytes: transfer.duplicate_bytes,
        })
        .collect();
    lines.sort_by_key(|line| std::cmp::Reverse(line.bytes));
    lines.truncate(ACCOUNT_LINES_MAX);
    lines
}

/// The names by which people know nodes.
type Names = BTreeMap<NodeId, String>;

fn name_of(names: &Names, node: NodeId) -> String {
    names.get(&node).cloned().unwrap_or_else(|| node.to_string())
}

/// The accounts that this node can give: of its sites at headquarters, of its site at a station, else its own part.
///
/// # Errors
/// A machine of this node has stopped.
pub async fn site_account(node: &Node) -> Result<Value> {
    let names = names(node).await?;
    let accounts = if node.desk.is_some() {
        at_headquarters(node, &names)
    } else {
        let members = match node.station() {
            Some(station) => members(node, &station.site),
            None => Vec::new(),
        };
        in_a_site(node, &names, members).await
    };
    Ok(serde_json::to_value(accounts)?)
}

async fn names(node: &Node) -> Result<Names> {
    let mut names = Names::new();
    if let Some(desk) = &node.desk {
        let hosts = desk.handle.query(|machine| machine.hosts()).await?;
        names.extend(hosts.into_iter().map(|host| (host.session.node, host.host_name)));
    }
    if let Some(station) = node.station() {
        let views = station.handle.query(|machine| machine.station().sessions().collect::<Vec<_>>()).await?;
        names.extend(views.into_iter().map(|view| (view.session.node, view.host_name)));
    }
    for site in node.documents.sites() {
        let Some(authority) = node.documents.authority(&site) else { continue };
        let charter = authority.charter();
        names.insert(charter.headquarters.node, "headquarters".to_owned());
        names.entry(charter.station.node).or_insert_with(|| format!("station of {site}"));
    }
    Ok(names)
}

fn members(node: &Node, site: &SiteName) -> Vec<NodeId> {
    let admitted = node.mesh.admitted();
    let admitted = admitted.borrow();
    let inside = admitted.values().filter(|peer| peer.site == *site && !peer.roles.contains(&Role::Headquarters));
    inside.map(|peer| peer.node).collect()
}

fn at_headquarters(node: &Node, names: &Names) -> Vec<PackAccount> {
    let mut known = BTreeMap::new();
    for site in node.documents.sites() {
        known.insert(site.clone(), package_names(&node.documents, &site));
    }
    let account = |record: &FenceRecord| {
        let named = known.get(&record.site).and_then(|packs| packs.iter().find(|(pack, ..)| *pack == record.pack));
        from_fence(record, named.map(|(_, name, length)| (name.as_str(), *length)), names)
    };
    node.packs.bulk().fence_records().iter().map(account).collect()
}

async fn in_a_site(node: &Node, names: &Names, members: Vec<NodeId>) -> Vec<PackAccount> {
    let own = node.packs.bulk().accounts();
    let Some(site) = node.documents.sites().into_iter().next() else { return Vec::new() };
    let known = package_names(&node.documents, &site);
    let packs: BTreeSet<PackId> =
        own.transfers.keys().map(|key| key.pack).chain(known.iter().map(|(pack, ..)| *pack)).collect();
    let mut accounts = Vec::new();
    let mut silent: BTreeSet<NodeId> = BTreeSet::new();
    for pack in packs {
        let mut told = vec![(node.documents.node(), Some(own_lines(&own, pack)))];
        // Who was silent once is not waited for again for each pack.
        let (asks, skips): (Vec<_>, Vec<_>) = members.iter().copied().partition(|member| !silent.contains(member));
        told.extend(skips.into_iter().map(|member| (member, None)));
        let asked = stream::iter(asks).map(|member| async move {
            let request = node.mesh.request(member, ControlRequest::Account(pack));
            match timeout(PATIENCE, request).await {
                Ok(Ok(ControlAnswer::Account(mut lines))) => {
                    lines.truncate(ACCOUNT_LINES_MAX);
                    (member, Some(lines))
                }
                _ => (member, None),
            }
        });
        told.extend(asked.buffer_unordered(ASKED_AT_ONCE).collect::<Vec<_>>().await);
        silent.extend(told.iter().filter(|(_, lines)| lines.is_none()).map(|(member, _)| *member));
        let named = known.iter().find(|(of, ..)| *of == pack).map(|(_, name, length)| (name.as_str(), *length));
        let mut account = from_members(&site, pack, named, &told, names);
        if node.station().is_none() {
            // A host knows its own bytes only, and so nothing of what the site as a whole lacks.
            account.remark = None;
        }
        accounts.push(account);
    }
    accounts
}

fn from_fence(record: &FenceRecord, named: Option<(&str, u64)>, names: &Names) -> PackAccount {
    let mut before: Option<NodeId> = None;
    let mut line = Vec::new();
    for span in &record.spans {
        let (epoch, sequence) = span.rank;
        let why = match before {
            None => format!("the site's first inlet, by lease {epoch}/{sequence}"),
            Some(last) => {
                format!("went on where {} had lost the lease, by lease {epoch}/{sequence}", name_of(names, last))
            }
        };
        before = Some(span.holder);
        let since = span.since.map(|since| since.0);
        let (bytes, frames) = (span.meter.bytes, span.meter.frames);
        line.push(LineEntry { to: name_of(names, span.holder), bytes, frames, since, why });
    }
    PackAccount { line, ..summary(&record.site, record.pack, named, record.meter.bytes) }
}

fn from_members(
    site: &SiteName,
    pack: PackId,
    named: Option<(&str, u64)>,
    told: &[(NodeId, Option<Vec<AccountLine>>)],
    names: &Names,
) -> PackAccount {
    let (mut line, mut inside, mut unanswered) = (Vec::new(), Vec::new(), Vec::new());
    for (node, lines) in told {
        let to = name_of(names, *node);
        let Some(lines) = lines else {
            unanswered.push(to);
            continue;
        };
        for AccountLine { peer, frames, bytes, duplicate_bytes, place, .. } in lines.iter().filter(|line| !line.sent) {
            let (bytes, frames) = (*bytes, *frames);
            if *place == Place::Inside {
                let from = name_of(names, *peer);
                inside.push(InsideEntry { from, to: to.clone(), bytes, frames, duplicate_bytes: *duplicate_bytes });
            } else {
                let why = "an inlet of the site, by the station's lease".to_owned();
                line.push(LineEntry { to: to.clone(), bytes, frames, since: None, why });
            }
        }
    }
    line.sort_by(|a, b| a.to.cmp(&b.to));
    inside.sort_by(|a, b| (&a.to, &a.from).cmp(&(&b.to, &b.from)));
    unanswered.sort();
    // A member may say anything.
    let wan_bytes = line.iter().fold(0_u64, |sum, entry| sum.saturating_add(entry.bytes));
    PackAccount { line, inside, unanswered, ..summary(site, pack, named, wan_bytes) }
}

/// What can be said of the sum alone.
fn summary(site: &SiteName, pack: PackId, named: Option<(&str, u64)>, wan_bytes: u64) -> PackAccount {
    let length_bytes = named.map(|(_, length)| length).filter(|length| *length > 0);
    let remark = length_bytes.and_then(|length| match wan_bytes.cmp(&length) {
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Greater => Some(format!(
            "{} bytes more than the pack: sent to an inlet or over a connection that was lost before a second node held \
             them",
            wan_bytes - length
        )),
        std::cmp::Ordering::Less if wan_bytes == 0 => None,
        std::cmp::Ordering::Less => Some(format!("{} bytes have not crossed, or not been counted, yet", length - wan_bytes)),
    });
    PackAccount {
        site: site.clone(),
        pack,
        package: named.map(|(name, _)| name.to_owned()),
        length_bytes,
        wan_bytes,
        wan_ratio: length_bytes.map(|length| wan_bytes as f64 / length as f64),
        remark,
        line: Vec::new(),
        inside: Vec::new(),
        unanswered: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use branchline_protocol::{
        ids::{Epoch, Hash},
        swarm::{LeaseSpan, OriginMeter},
        time::UnixSeconds,
    };

    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    fn names() -> Names {
        [(0, "headquarters"), (1, "station of store-17"), (2, "till-1"), (3, "till-2")]
            .map(|(number, name)| (node(number), name.to_owned()))
            .into()
    }

    fn pack() -> PackId {
        PackId(Hash([9; 32]))
    }

    #[test]
    fn headquarters_says_why_bytes_crossed() {
        let span = |holder, sequence, since, bytes| LeaseSpan {
            holder: node(holder),
            rank: (Epoch { charter_version: 2, term: 0 }, sequence),
            since: Some(UnixSeconds(since)),
            meter: OriginMeter { frames: bytes / 100, bytes },
        };
        let record = FenceRecord {
            site: "store-17".parse().unwrap(),
            pack: pack(),
            rank: (Epoch { charter_version: 2, term: 0 }, 9),
            holder: node(2),
            meter: OriginMeter { frames: 12, bytes: 1200 },
            spans: vec![span(1, 3, 1000, 700), span(2, 9, 1100, 500)],
        };
        let account = from_fence(&record, Some(("big-agent 2.0", 1000)), &names());
        insta::assert_json_snapshot!(account);
    }

    #[test]
    fn the_station_says_who_served_whom() {
        let line = |peer, place, sent, bytes| AccountLine {
            peer: node(peer),
            sent,
            place,
            frames: bytes / 100,
            bytes,
            duplicate_bytes: 0,
        };
        let told = [
            (node(1), Some(vec![line(0, Place::Origin, false, 1000), line(2, Place::Inside, true, 600)])),
            (node(2), Some(vec![line(1, Place::Inside, false, 600), line(3, Place::Inside, false, 400)])),
            (node(3), None),
        ];
        let account =
            from_members(&"store-17".parse().unwrap(), pack(), Some(("big-agent 2.0", 1000)), &told, &names());
        assert_eq!((account.wan_bytes, account.wan_ratio, &account.remark), (1000, Some(1.0), &None));
        insta::assert_json_snapshot!(account);
    }
}
