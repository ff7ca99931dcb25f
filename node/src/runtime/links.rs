//! Looks who answers at the inside addresses of hosts, in the station's own segment (R116).
//!
//! The kernel knows the link addresses of its neighbours (RFC 826); reading them needs no privileges. Behind another
//! router nothing is seen, and nothing is concluded. See `station::links` for what follows.
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use branchline_station_role::station::{LinkAddress, StationInput, WatchedHost};

use super::{node::Node, station::StationContext};

/// The kernel's neighbours of IPv4; `proc_net(5)`.
const NEIGHBOURS: &str = "/proc/net/arp";
/// Between two looks. A stranger that asks for anybody's link address is seen by the next one, one that only answers once the
/// kernel has given the former neighbour up, which takes it 8 to 53 s by its defaults (`arp(7)`).
const LOOK: Duration = Duration::from_secs(1);
/// Addresses that are asked about in one look; the others follow in the next ones.
const ASKED_MAX: usize = 64;
/// The port of RFC 863: whatever comes there is thrown away.
const DISCARD_PORT: u16 = 9;

/// Tells the station's machine whom it sees, for as long as this node is station.
pub(super) async fn watch(node: Arc<Node>, station: Arc<StationContext>) {
    let mut from = 0;
    loop {
        tokio::time::sleep(LOOK).await;
        if !node.station().is_some_and(|present| Arc::ptr_eq(&present, &station)) {
            return;
        }
        let Ok(watched) = station.handle.query(|machine| machine.station().watched_hosts().collect::<Vec<_>>()).await
        else {
            return;
        };
        let table = match std::fs::read_to_string(NEIGHBOURS) {
            Ok(table) => table,
            Err(error) => {
                tracing::info!("{NEIGHBOURS} cannot be read ({error}): a stranger at a host's address is not noticed");
                return;
            }
        };
        let neighbours = read_table(&table);
        let connected = |host: &WatchedHost| node.mesh.admitted().borrow().contains_key(&host.node);
        let absent: Vec<Ipv4Addr> =
            watched.iter().filter(|host| host.is_mapped && !connected(host)).map(|host| host.inside).collect();
        from = ask(&absent, from);
        for host in &watched {
            let Some(link) = neighbours.get(&host.inside).copied().filter(|link| host.link != Some(*link)) else {
                continue;
            };
            let (node, inside, is_connected) = (host.node, host.inside, connected(host));
            station.station(StationInput::LinkSeen { node, inside, link, is_connected }).await;
        }
    }
}

/// Has the kernel find out who has these addresses, by sending nothing to each; from the `from`th on. Gives where to go
/// on.
fn ask(addresses: &[Ipv4Addr], from: usize) -> usize {
    let Ok(socket) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)) else { return from };
    if socket.set_nonblocking(true).is_err() || addresses.is_empty() {
        return 0;
    }
    for address in addresses.iter().cycle().skip(from % addresses.len()).take(ASKED_MAX.min(addresses.len())) {
        // An address without a route is one of which nothing is learnt.
        let _ = socket.send_to(&[], (*address, DISCARD_PORT));
    }
    (from + ASKED_MAX) % addresses.len()
}

/// The complete entries of the kernel's table, without addresses that it has twice: on two interfaces, say.
fn read_table(text: &str) -> BTreeMap<Ipv4Addr, LinkAddress> {
    let mut found: BTreeMap<Ipv4Addr, Option<LinkAddress>> = BTreeMap::new();
    for (address, link) in text.lines().filter_map(read_line) {
        found.entry(address).and_modify(|known| *known = None).or_insert(Some(link));
    }
    found.into_iter().filter_map(|(address, link)| Some((address, link?))).collect()
}

/// Address, kind of hardware, flags, link address, mask, device.
fn read_line(line: &str) -> Option<(Ipv4Addr, LinkAddress)> {
    const COMPLETE: u32 = 2;
    let mut words = line.split_whitespace();
    let address: Ipv4Addr = words.next()?.parse().ok()?;
    let flags = u32::from_str_radix(words.nth(1)?.strip_prefix("0x")?, 16).ok()?;
    let mut bytes = words.next()?.split(':').map(|byte| u8::from_str_radix(byte, 16));
    let mut link = [0; 6];
    for place in &mut link {
        *place = bytes.next()?.ok()?;
    }
    let is_whole = bytes.next().is_none() && flags & COMPLETE != 0 && link != [0; 6];
    is_whole.then_some((address, LinkAddress(link)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_neighbours_that_answered_are_read() {
        let text = "IP address       HW type     Flags       HW address            Mask     Device\n\
                    10.1.1.1         0x1         0x2         02:00:00:00:01:01     *        eth0\n\
                    10.1.1.2         0x1         0x0         00:00:00:00:00:00     *        eth0\n\
                    10.1.1.3         0x1         0x0         02:00:00:00:01:03     *        eth0\n\
                    10.1.1.4         0x1         0x6         02:00:00:00:01:04     *        eth0\n\
                    10.1.1.5         0x20        0x2         80:00:02:08:fe:80:00:00     *        ib0\n\
                    10.1.1.7         0x1         0x2         02:00:00:00:01:07     *        eth0\n\
                    10.1.1.7         0x1         0x2         02:00:00:00:02:07     *        eth1\n\
                    10.1.1.6         0x1\n\n";
        let link = |last| LinkAddress([2, 0, 0, 0, 1, last]);
        let expected = [(Ipv4Addr::new(10, 1, 1, 1), link(1)), (Ipv4Addr::new(10, 1, 1, 4), link(4))];
        assert_eq!(read_table(text), BTreeMap::from(expected));
        assert_eq!(link(4).to_string(), "02:00:00:00:01:04");
    }

    #[test]
    fn all_absent_hosts_get_their_turn() {
        let many: Vec<Ipv4Addr> = (0..100).map(|last| Ipv4Addr::new(127, 0, 1, last)).collect();
        assert_eq!(ask(&many, 0), 64);
        assert_eq!(ask(&many, 64), 28);
        assert_eq!(ask(&many[..3], 1), (1 + 64) % 3, "each of the three was asked");
        assert_eq!(ask(&[], 5), 0);
    }
}
