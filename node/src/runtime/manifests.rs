//! Where manifests come from, and who waits for them.
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use branchline_protocol::{
    content::Pack,
    ids::{NodeId, PackId},
    wire::control::{ControlAnswer, ControlRequest},
};
use tokio::sync::watch;

use super::Packs;

/// How often a manifest that nobody has yet is asked for again.
const MANIFEST_RETRY: Duration = Duration::from_millis(500);
/// How long a node that learns a manifest itself lets others wait for it: below the patience of a request.
const MANIFEST_PATIENCE: Duration = Duration::from_secs(5);
/// A manifest is being learnt as long as this is held.
pub struct Learning {
    learning: Arc<watch::Sender<BTreeMap<PackId, u32>>>,
    pack: PackId,
}

impl Drop for Learning {
    fn drop(&mut self) {
        self.learning.send_modify(|learning| match learning.get_mut(&self.pack) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(learning.remove(&self.pack)),
        });
    }
}

impl Packs {
    /// The manifest from the own store, else from the station, else from headquarters; its hash is the pack's name, so
    /// it does not matter who gives it.
    pub(super) async fn learn_manifest(&self, pack: PackId) -> Option<Arc<Pack>> {
        loop {
            if let Some(known) = self.store.pack(pack) {
                return Some(known);
            }
            for site in self.documents.sites() {
                let Some(authority) = self.documents.authority(&site) else { continue };
                let charter = authority.charter();
                for node in [charter.station.node, charter.headquarters.node] {
                    if node == self.documents.node() {
                        continue;
                    }
                    if let Ok(answer) = self.mesh.request(node, ControlRequest::Manifest(pack)).await
                        && let Some(known) = read_manifest(node, pack, &answer)
                    {
                        return Some(Arc::new(known));
                    }
                }
            }
            tokio::time::sleep(MANIFEST_RETRY).await;
        }
    }

    /// Lets whoever asks this node for the manifest wait for it, until what is given is dropped.
    pub fn learn(&self, pack: PackId) -> Learning {
        self.learning.send_modify(|learning| *learning.entry(pack).or_default() += 1);
        Learning { learning: Arc::clone(&self.learning), pack }
    }

    /// The encoded manifest, where it is here or comes soon: a member that hears of a pack before its station has the
    /// manifest would otherwise fetch it over the line, or come back half a second later.
    pub async fn manifest(&self, pack: PackId) -> Option<Vec<u8>> {
        let mut learning = self.learning.subscribe();
        if self.store.pack(pack).is_none() {
            let learnt = learning.wait_for(|learning| !learning.contains_key(&pack));
            let _ = tokio::time::timeout(MANIFEST_PATIENCE, learnt).await;
        }
        self.store.manifest(pack)
    }
}

/// The manifest in a node's answer. One that is not this pack's is told of, and another node is asked: nothing of it is
/// believed, so that whoever gave it can do no harm with it.
fn read_manifest(node: NodeId, pack: PackId, answer: &ControlAnswer) -> Option<Pack> {
    let ControlAnswer::Manifest(bytes) = answer else { return None };
    match Pack::decode_as(pack, bytes) {
        Ok(known) => Some(known),
        Err(error) => {
            tracing::warn!(%node, %pack, "this node gives a manifest that is none of the pack, another is asked: {error}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use branchline_protocol::{
        content::build_pack,
        refusal::{Refusal, RefusalKind},
    };

    use super::*;

    #[test]
    fn only_the_packs_own_manifest_is_taken() {
        let node = NodeId([1; 32]);
        let pack_of = |raw: &[u8]| build_pack("agent", raw, 1 << 16, std::io::sink()).unwrap();
        let (wanted, other) = (pack_of(&[1; 100_000]), pack_of(&[2; 100_000]));
        let manifest = wanted.manifest().encode().unwrap();
        let read = |bytes: &[u8]| read_manifest(node, wanted.id(), &ControlAnswer::Manifest(bytes.to_vec()));
        assert_eq!(read(&manifest).map(|known| known.id()), Some(wanted.id()));
        assert!(read(&other.manifest().encode().unwrap()).is_none());
        assert!(read(&manifest[..manifest.len() - 1]).is_none());
        assert!(read(&[manifest.as_slice(), &[0]].concat()).is_none());
        assert!(read(&[]).is_none());
        let refused = ControlAnswer::Refused(Refusal::new(RefusalKind::NotFound, "it is not here"));
        assert!(read_manifest(node, wanted.id(), &refused).is_none());
    }
}
