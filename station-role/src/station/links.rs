//! Which machine is at a host's inside address, by its link address, also while nobody there speaks Branchline (R116).
//!
//! A host that is off cannot say that its address is somebody else's now, and a stranger does not. But who answers for an
//! IPv4 address in the station's own segment shows a link address (RFC 826). The runtime tells what it sees; a link address
//! counts as the host's own once the host has reported after it was seen. Where another one answers while the host is
//! not connected, the host's row is taken away until it reports again.
use std::{
    fmt::{self, Display, Formatter},
    net::Ipv4Addr,
    time::Duration,
};

use branchline_protocol::{
    ids::NodeId,
    time::{Monotonic, Now},
};
use serde::{Deserialize, Serialize};

use super::{
    machine::StationMachine,
    state::{Binding, StationEvent},
};

/// Who was heard within this time is there, whatever was seen meanwhile.
const HEARD: Duration = Duration::from_secs(3);
/// A stranger has been seen twice when so much lies between two looks.
const LOOKS_APART: Duration = Duration::from_millis(500);

/// An Ethernet address, or one of a medium that has the same form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LinkAddress(pub [u8; 6]);

impl Display for LinkAddress {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// A host whose inside address should be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchedHost {
    /// The host.
    pub node: NodeId,
    /// Where it should be.
    pub inside: Ipv4Addr,
    /// Its own link address, where that is known.
    pub link: Option<LinkAddress>,
    /// Whether a row leads there, so that it matters who is there while the host is off.
    pub is_mapped: bool,
}

impl StationMachine {
    /// The hosts whose inside addresses should be looked at, in order of nodes.
    pub fn watched_hosts(&self) -> impl Iterator<Item = WatchedHost> + '_ {
        let watched = self.state.hosts.iter().filter(|(_, host)| !host.revoked && host.taken_by.is_none());
        watched.map(|(node, host)| WatchedHost {
            node: *node,
            inside: host.inside,
            link: host.link,
            is_mapped: host.binding == Binding::Bound,
        })
    }

    pub(super) fn on_link_seen(
        &mut self,
        now: Now,
        node: NodeId,
        inside: Ipv4Addr,
        link: LinkAddress,
        is_connected: bool,
    ) {
        let Some(host) = self.state.hosts.get(&node) else { return };
        if host.inside != inside || host.taken_by.is_some() || host.link == Some(link) {
            return;
        }
        if is_connected {
            return self.learn_link(now.monotonic, node, link);
        }
        // Of a host that was never seen by its link address nothing can be said, and one that was heard just now is there.
        let is_heard = self.contacts.get(&node).is_some_and(|contact| now.monotonic.since(contact.heard_at) < HEARD);
        if host.link.is_none() || host.binding != Binding::Bound || is_heard {
            return;
        }
        let since = match self.strangers.get(&node) {
            Some((seen, since)) if *seen == link => *since,
            _ => {
                self.strangers.insert(node, (link, now.monotonic));
                return;
            }
        };
        // Two looks must agree: what is on its way while a host comes back says nothing.
        if now.monotonic.since(since) >= LOOKS_APART {
            self.strangers.remove(&node);
            let text = format!(
                "{} is off, and the machine with link address {link} has its address {inside}: it is not mapped there \
                 before it reports again",
                host.host_name
            );
            let session = self.state.current(node).map(|(session, _)| session);
            self.journal(StationEvent::InsideAnswered { at: now.wall, node, link });
            self.attention(session, text);
        }
    }

    /// A connection may outlive its host by a while, in which a stranger answers already: only a report that comes after
    /// the link address was seen first proves that the host is there.
    fn learn_link(&mut self, now: Monotonic, node: NodeId, link: LinkAddress) {
        let Some(contact) = self.contacts.get_mut(&node) else { return };
        match contact.link {
            Some((seen, since)) if seen == link => {
                if contact.heard_at > since {
                    contact.link = None;
                    self.journal(StationEvent::LinkLearnt { node, link });
                }
            }
            _ => contact.link = Some((link, now)),
        }
    }
}
