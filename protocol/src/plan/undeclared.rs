//! The ports of a host that no package of its plan declares.
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::types::PortDeclaration;
use crate::{
    limits::PROBE_UNDECLARED_PORTS_MAX,
    survey::{Descriptor, words::PortScope},
};

/// The TCP ports on which a host listens and that no package declares: nothing outside may reach them through the
/// host's mapping (R94).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndeclaredPorts {
    /// The ports, each once, sorted; at most `PROBE_UNDECLARED_PORTS_MAX`.
    pub ports: Vec<u16>,
    /// How many more there are.
    pub left_out: u32,
}

impl UndeclaredPorts {
    /// What `descriptor` saw listening on more than a loopback address, and what the node itself listens on (`own`),
    /// without what is `declared`. Where there are too many, the node's own ports come first, then the lowest.
    pub fn of(declared: &[PortDeclaration], descriptor: &Descriptor, own: impl IntoIterator<Item = u16>) -> Self {
        let declared: BTreeSet<u16> = declared.iter().map(|port| port.port).collect();
        let own: BTreeSet<u16> = own.into_iter().filter(|port| !declared.contains(port)).collect();
        let listening = descriptor.host.listening_ports.iter().filter(|port| port.scope != PortScope::Loopback);
        let others: BTreeSet<u16> =
            listening.map(|port| port.number).filter(|port| !declared.contains(port) && !own.contains(port)).collect();
        let all = own.len() + others.len();
        let mut ports: Vec<u16> = own.into_iter().chain(others).take(PROBE_UNDECLARED_PORTS_MAX).collect();
        ports.sort_unstable();
        let left_out = u32::try_from(all - ports.len()).unwrap_or(u32::MAX);
        Self { ports, left_out }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::{descriptor::ListeningPort, fixtures};

    fn undeclared(declared: &[u16], listening: &[(u16, PortScope)], own: &[u16]) -> UndeclaredPorts {
        let declaration = |port: &u16| PortDeclaration { port: *port, http_path: String::new(), scrape: true };
        let declared: Vec<PortDeclaration> = declared.iter().map(declaration).collect();
        let mut descriptor = fixtures::plain_host();
        descriptor.host.listening_ports =
            listening.iter().map(|(number, scope)| ListeningPort { number: *number, scope: *scope }).collect();
        UndeclaredPorts::of(&declared, &descriptor, own.iter().copied())
    }

    #[test]
    fn only_what_is_reachable_and_not_declared_is_tried_once() {
        use PortScope::{Address, Any, Loopback};
        let listening = [(9100, Any), (22, Any), (22, Address), (25, Loopback), (7400, Address), (80, Address)];
        let found = undeclared(&[9100, 7401], &listening, &[7400, 7401]);
        assert_eq!(found, UndeclaredPorts { ports: vec![22, 80, 7400], left_out: 0 });
        assert_eq!(undeclared(&[9100], &[(9100, Any), (25, Loopback)], &[]), UndeclaredPorts::default());
    }

    #[test]
    fn of_too_many_the_nodes_own_and_the_lowest_are_tried() {
        let listening: Vec<(u16, PortScope)> = (1000..1300).map(|port| (port, PortScope::Any)).collect();
        let found = undeclared(&[1000], &listening, &[7400, 7401]);
        assert_eq!((found.ports.len(), found.left_out), (PROBE_UNDECLARED_PORTS_MAX, 45));
        assert_eq!((found.ports[0], found.ports[253]), (1001, 1254));
        assert_eq!(found.ports[254..], [7400, 7401]);
    }
}
