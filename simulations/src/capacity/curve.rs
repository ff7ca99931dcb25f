//! How much of the payload has crossed the line into a site, by time.
use std::sync::Arc;

use super::units::{NEVER, Rate, Time, Volume, duration};

/// The level of the uplink over time, shared by all curves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Levels {
    /// Since when, what a levelled flow had got by then, and the level.
    steps: Vec<(Time, Volume, Rate)>,
}

impl Levels {
    pub fn push(&mut self, at: Time, volume: Volume, level: Rate) {
        self.steps.push((at, volume, level));
    }

    pub fn close(&mut self, at: Time, volume: Volume, level: Rate) {
        self.push(at, volume, level);
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The steps before `at`.
    fn until(&self, at: Time) -> &[(Time, Volume, Rate)] {
        &self.steps[..self.steps.partition_point(|(since, ..)| *since < at)]
    }

    fn volume_at(&self, at: Time) -> Volume {
        let after = self.steps.partition_point(|(since, ..)| *since <= at);
        let Some((since, volume, level)) = after.checked_sub(1).map(|step| self.steps[step]) else { return 0 };
        volume + Volume::from(level) * Volume::from(at - since)
    }

    fn time_of(&self, wanted: Volume) -> Time {
        let after = self.steps.partition_point(|(_, volume, _)| *volume <= wanted);
        let Some((since, volume, level)) = after.checked_sub(1).map(|step| self.steps[step]) else { return 0 };
        since.saturating_add(duration(wanted - volume, level))
    }
}

/// A time in which a site fetched in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub from: Time,
    pub until: Time,
    /// What it had when the piece began.
    pub volume: Volume,
    /// The level's volume at that time where the level bound; `None`: its own limit did.
    pub level: Option<Volume>,
}

/// What has crossed the line into one site, by time: it never falls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Curve {
    /// When the site's turn came; [`NEVER`] where it did not.
    pub began: Time,
    /// When everything had crossed.
    pub done: Time,
    pieces: Vec<Piece>,
    total: Volume,
    limit: Rate,
    levels: Arc<Levels>,
}

impl Curve {
    pub fn new(began: Time, done: Time, pieces: Vec<Piece>, total: Volume, limit: Rate, levels: Arc<Levels>) -> Self {
        Self { began, done, pieces, total, limit, levels }
    }

    /// A line that nobody else shares.
    pub fn alone(at: Time, total: Volume, limit: Rate) -> Self {
        let done = at.saturating_add(duration(total, limit));
        let pieces = vec![Piece { from: at, until: done, volume: 0, level: None }];
        Self::new(at, done, pieces, total, limit, Arc::default())
    }

    /// Nothing has to cross.
    pub fn nothing(at: Time) -> Self {
        Self::new(at, at, Vec::new(), 0, 1, Arc::default())
    }

    /// Whether the same crosses at the same times: what the uplink does once everything has crossed does not count.
    pub fn brings_the_same_as(&self, other: &Self) -> bool {
        let own =
            (self.began, self.done, self.total, self.limit) == (other.began, other.done, other.total, other.limit);
        let levelled = self.pieces.iter().any(|piece| piece.level.is_some());
        own && self.pieces == other.pieces
            && (!levelled || self.levels.until(self.done) == other.levels.until(self.done))
    }

    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    pub fn total(&self) -> Volume {
        self.total
    }

    fn end_of(&self, piece: &Piece) -> Volume {
        self.within(piece, piece.until)
    }

    fn within(&self, piece: &Piece, at: Time) -> Volume {
        let got = match piece.level {
            Some(level) => self.levels.volume_at(at).saturating_sub(level),
            None => Volume::from(self.limit) * Volume::from(at - piece.from),
        };
        (piece.volume + got).min(self.total)
    }

    /// What had crossed by `at`.
    pub fn volume_at(&self, at: Time) -> Volume {
        let begun = self.pieces.partition_point(|piece| piece.from <= at);
        match begun.checked_sub(1).map(|piece| &self.pieces[piece]) {
            Some(piece) => self.within(piece, at.min(piece.until)),
            None => 0,
        }
    }

    /// When `wanted` had crossed; beyond the whole, as if the line went on at the site's own limit.
    pub fn time_of(&self, wanted: Volume) -> Time {
        if self.done == NEVER {
            return NEVER;
        }
        if wanted > self.total {
            return self.done.saturating_add(duration(wanted - self.total, self.limit));
        }
        if wanted == self.total {
            return self.done;
        }
        let before = self.pieces.partition_point(|piece| piece.volume < wanted);
        let Some(piece) = before.checked_sub(1).map(|piece| &self.pieces[piece]) else { return self.began };
        let more = wanted - piece.volume;
        let at = match piece.level {
            Some(level) => self.levels.time_of(level + more),
            None => piece.from.saturating_add(duration(more, self.limit)),
        };
        debug_assert!(wanted > self.end_of(piece) || at <= piece.until);
        at.min(piece.until)
    }

    /// When a transfer of `volume` is over that begins at `start`, at the rates of this curve.
    pub fn transfer(&self, start: Time, volume: Volume) -> Time {
        if start >= self.done {
            return start.saturating_add(duration(volume, self.limit));
        }
        self.time_of(self.volume_at(start) + volume).max(start)
    }
}
