//! Cards, medium, messages and the line.
use branchline_protocol::swarm::{PeerKey, SwarmInput, Word};

use super::{
    super::{
        local::LAN_LATENCY,
        units::{Time, duration, volume},
    },
    links::Link,
    world::{Event, Letter, ORIGIN, PACK, STATION, World},
};

impl World<'_> {
    /// Sends a message, or asks the origin.
    pub fn say(&mut self, node: u32, peer: PeerKey, word: Word) {
        let Some(link) = self.link_of(node, peer) else { return };
        if link.node == ORIGIN {
            if let Word::Request(index) = word {
                self.fetch(node, peer.0, link.number, index);
            }
            return;
        }
        let word = match word {
            Word::Busy { index, retry_after_milliseconds, instead } => {
                let instead = instead.and_then(|peer| self.as_seen_by(node, peer, link.node));
                Word::Busy { index, retry_after_milliseconds, instead }
            }
            word => word,
        };
        self.order += 1;
        let (at, order) = (self.now + LAN_LATENCY, self.order);
        self.letters.push_back(Letter { at, order, to: link.node, slot: link.slot, link: link.number, word });
    }

    /// The key by which `reader` knows a neighbour of `speaker`; `None` where the two are not connected.
    fn as_seen_by(&self, speaker: u32, peer: PeerKey, reader: u32) -> Option<PeerKey> {
        let named = self.link_of(speaker, peer)?.node;
        let links = &self.nodes[reader as usize].links;
        let known = (0..).zip(links).find(|(_, link)| link.is_some_and(|link| link.node == named));
        known.map(|(slot, _)| PeerKey(slot))
    }

    pub fn serve(&mut self, node: u32, peer: PeerKey, index: u32) {
        let Some(link) = self.link_of(node, peer) else { return };
        self.nodes[node as usize].uploads.push_back((peer.0, link.number, index));
        // Whoever waits already has a turn planned.
        if self.nodes[node as usize].uploads.len() == 1 {
            self.send_next(node);
        }
    }

    /// Sends the next frame, if the card is free; else as soon as it is.
    pub fn send_next(&mut self, node: u32) {
        while let Some((slot, number, index)) = self.nodes[node as usize].uploads.front().copied() {
            let free = self.nodes[node as usize].sends_until;
            if free > self.now {
                return self.plan(free, Event::CardFree(node));
            }
            self.nodes[node as usize].uploads.pop_front();
            // Whoever is gone gets nothing more; its machine was told so.
            if let Some(link) = self.link_of(node, PeerKey(slot)).filter(|link| link.number == number) {
                self.send(node, link, index);
            }
        }
    }

    /// A frame leaves: it passes both cards at the same time, each at its own rate, and waits at the switch where the
    /// receiver's is taken. The receiver's is taken for as long as it needs itself, not for as long as a slow sender
    /// takes: meanwhile it receives from others, as it does with connections side by side. So by any time it has received
    /// no more than its rate allows. The sender's slot is free once the receiver has it all, as a connection's buffers
    /// are.
    fn send(&mut self, node: u32, link: Link, index: u32) {
        let (up, _) = self.frame_times(node, index);
        let (_, down) = self.frame_times(link.node, index);
        let sent = self.now.saturating_add(up).max(self.medium(node, link.node, index));
        self.nodes[node as usize].sends_until = sent;
        let to = &mut self.nodes[link.node as usize];
        to.receives_until = self.now.max(to.receives_until).saturating_add(down);
        let received = sent.max(to.receives_until);
        self.plan(received, Event::Carried { node: link.node, link: link.number, slot: link.slot, index });
    }

    /// How long a frame takes to leave a node, and to reach it.
    fn frame_times(&self, node: u32, index: u32) -> (Time, Time) {
        let (of, length) = (&self.nodes[node as usize], self.site.length_of(index));
        if length == self.site.frame_bytes {
            return (of.frame_up, of.frame_down);
        }
        (duration(volume(length), of.card.up), duration(volume(length), of.card.down))
    }

    /// When a frame that is sent now has crossed the radio medium, once for each host that it goes from or to.
    fn medium(&mut self, from: u32, to: u32, index: u32) -> Time {
        let Some(rate) = self.site.medium else { return self.now };
        let crossings = u64::from(from != STATION) + u64::from(to != STATION);
        let airtime = duration(volume(self.site.length_of(index)), rate).saturating_mul(crossings);
        self.medium_free = self.medium_free.max(self.now).saturating_add(airtime);
        self.medium_free
    }

    /// A frame is there: the sender's slot is free, and the receiver has it.
    pub fn carried(&mut self, node: u32, number: u32, slot: u16, index: u32) {
        let linked = |world: &Self| world.link_of(node, PeerKey(slot)).filter(|link| link.number == number);
        let Some(link) = linked(self) else { return };
        if link.node != ORIGIN {
            self.input(link.node, SwarmInput::FrameServed { peer: PeerKey(link.slot), pack: PACK, index });
            if linked(self).is_none() {
                return;
            }
        }
        let length = self.site.length_of(index);
        self.nodes[node as usize].took = false;
        let input =
            SwarmInput::FrameArrived { peer: PeerKey(slot), pack: PACK, index, length: length as u32, raw: false };
        self.input(node, input);
        let came = if link.node == ORIGIN { &mut self.spread.wan_bytes } else { &mut self.spread.lan_bytes };
        *came += length;
        if link.node == ORIGIN {
            self.spread.fetched = self.now;
        }
        if !self.nodes[node as usize].took {
            self.spread.wasted_bytes += length;
        }
    }

    /// Brings a frame over the line, behind what was asked for before. The first comes a round trip after it was asked
    /// for; what round trips between two frames cost is in the line's rate.
    fn fetch(&mut self, node: u32, slot: u16, link: u32, index: u32) {
        let line = &self.site.line;
        let start = self.now.max(self.line_free).max(line.began);
        let received = line.transfer(start, volume(self.site.length_of(index)));
        self.line_free = received;
        self.plan(received, Event::Carried { node, link, slot, index });
    }
}
