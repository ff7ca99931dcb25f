//! A host's events: those that its station does not hold yet (bounded, terminal events never dropped), and the newest, which
//! its own operator reads.
use std::collections::VecDeque;

use crate::{
    limits::{
        EVENT_BUFFER_BYTES_MAX, EVENT_BUFFER_EVENTS_MAX, EVENT_TEXT_BYTES_MAX, HOST_EVENTS_SHOWN_MAX, REPORT_EVENTS_MAX,
    },
    report::{EventBody, ReportEvent},
    time::UnixSeconds,
};

/// Events in order, numbered from 1 without gaps. What does not fit is counted and said in a note (R83, R85).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventBuffer {
    events: VecDeque<ReportEvent>,
    newest: VecDeque<ReportEvent>,
    last_number: u64,
    text_bytes: usize,
    cut_bytes: u64,
}

impl EventBuffer {
    /// The number of the last event; 0 where there was none.
    pub fn last_number(&self) -> u64 {
        self.last_number
    }

    /// Whether every event is durable at the station.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// How many events wait.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether an event that is not terminal would be cut.
    pub fn is_full(&self) -> bool {
        self.events.len() >= EVENT_BUFFER_EVENTS_MAX || self.text_bytes >= EVENT_BUFFER_BYTES_MAX
    }

    /// Bytes that were cut since the last note about it.
    pub fn cut_bytes(&self) -> u64 {
        self.cut_bytes
    }

    /// Counts text that is not kept.
    pub fn cut(&mut self, bytes: u64) {
        self.cut_bytes = self.cut_bytes.saturating_add(bytes);
    }

    /// Appends an event. The caller has asked [`EventBuffer::is_full`] for events that are not terminal.
    pub fn push(&mut self, at: UnixSeconds, body: EventBody) {
        if self.cut_bytes > 0 {
            let cut = std::mem::take(&mut self.cut_bytes);
            let note = format!("{cut} bytes of progress and output were cut: too much waited for the station");
            self.append(at, EventBody::Note(note));
        }
        self.append(at, body);
    }

    fn append(&mut self, at: UnixSeconds, body: EventBody) {
        self.last_number += 1;
        self.text_bytes += text_bytes(&body);
        let event = ReportEvent { number: self.last_number, at, body };
        if self.newest.len() >= HOST_EVENTS_SHOWN_MAX {
            self.newest.pop_front();
        }
        self.newest.push_back(event.clone());
        self.events.push_back(event);
    }

    /// The newest events, oldest first, whether the station holds them or not (R83).
    pub fn newest(&self) -> impl Iterator<Item = &ReportEvent> {
        self.newest.iter()
    }

    /// Forgets the events up to `number`, which the station holds.
    pub fn acknowledge(&mut self, number: u64) {
        while self.events.front().is_some_and(|event| event.number <= number) {
            if let Some(event) = self.events.pop_front() {
                self.text_bytes -= text_bytes(&event.body);
            }
        }
    }

    /// The oldest events, as many as one report may carry.
    pub fn head(&self) -> Vec<ReportEvent> {
        self.events.iter().take(REPORT_EVENTS_MAX).cloned().collect()
    }

    /// Numbers the events anew from 1, for a new generation: what the station did not get of the old one goes with it.
    pub fn renumber(&mut self) {
        self.last_number = 0;
        for event in &mut self.events {
            self.last_number += 1;
            event.number = self.last_number;
        }
        let older = self.events.len().saturating_sub(HOST_EVENTS_SHOWN_MAX);
        self.newest = self.events.iter().skip(older).cloned().collect();
    }

    /// The numbers of the first and last waiting event, for invariants.
    pub fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.events.iter().map(|event| event.number)
    }
}

/// How much text an event carries.
pub(super) fn text_bytes(body: &EventBody) -> usize {
    match body {
        EventBody::Output { text, .. } | EventBody::Note(text) | EventBody::Unknown(text) => text.len(),
        EventBody::StepStarted { title, .. } => title.len(),
        _ => 64,
    }
}

/// Cuts `text` into pieces of at most `EVENT_TEXT_BYTES_MAX` bytes at the edges of characters.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = rest.len().min(EVENT_TEXT_BYTES_MAX);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (piece, others) = rest.split_at(end);
        rest = others;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_newest_events_are_shown_also_when_the_station_has_them() {
        let mut buffer = EventBuffer::default();
        let output = |line: usize| EventBody::Output { step: 1, text: format!("line {line}") };
        for line in 1..=HOST_EVENTS_SHOWN_MAX + 5 {
            buffer.push(UnixSeconds(1), output(line));
        }
        buffer.acknowledge(HOST_EVENTS_SHOWN_MAX as u64 + 3);
        let shown: Vec<u64> = buffer.newest().map(|event| event.number).collect();
        assert_eq!((buffer.len(), shown), (2, (6..=HOST_EVENTS_SHOWN_MAX as u64 + 5).collect()));

        buffer.renumber();
        assert!(buffer.newest().eq(&buffer.events), "a new generation shows what waits, by its new numbers");
        assert_eq!(buffer.newest().next().map(|event| event.number), Some(1));
    }

    #[test]
    fn what_is_cut_is_said_before_the_next_event() {
        let mut buffer = EventBuffer::default();
        while !buffer.is_full() {
            buffer.push(UnixSeconds(1), EventBody::Output { step: 1, text: "x".repeat(100) });
        }
        buffer.cut(500);
        buffer.push(UnixSeconds(2), EventBody::Refused("no".into()));
        let last: Vec<_> = buffer.events.iter().rev().take(2).map(|event| event.body.clone()).collect();
        assert_eq!(last[0], EventBody::Refused("no".into()));
        assert!(matches!(&last[1], EventBody::Note(text) if text.starts_with("500 bytes")), "{:?}", last[1]);
        assert_eq!(buffer.head().len(), REPORT_EVENTS_MAX);
        buffer.acknowledge(buffer.last_number());
        assert!(buffer.is_empty() && !buffer.is_full() && buffer.text_bytes == 0);
    }

    proptest! {
        #[test]
        fn pieces_are_the_text(text in "[aü€𝄞\n]{0,9000}") {
            let cut: Vec<_> = pieces(&text).collect();
            prop_assert!(cut.iter().all(|piece| !piece.is_empty() && piece.len() <= EVENT_TEXT_BYTES_MAX));
            prop_assert_eq!(cut.concat(), text);
        }
    }
}
