//! A journal with group commit, and what a crash leaves of it.
use branchline_protocol::machine::{Record, Sequence};

use super::chance::Chance;

/// Records in two parts: those that are durable, and those that were written since the last commit.
#[derive(Clone, Debug)]
pub struct Disk<E> {
    durable: Vec<Record<E>>,
    written: Vec<Record<E>>,
}

impl<E> Default for Disk<E> {
    fn default() -> Self {
        Self { durable: Vec::new(), written: Vec::new() }
    }
}

impl<E: Clone> Disk<E> {
    /// Appends a record; it is durable after the next [`Disk::commit`].
    ///
    /// # Panics
    /// Where the record does not follow the last one: a machine numbers its records without gaps.
    pub fn append(&mut self, record: Record<E>) {
        let last = self.written.last().or(self.durable.last()).map_or(Sequence(0), |record| record.sequence);
        assert_eq!(record.sequence, last.next(), "the journal has a gap");
        self.written.push(record);
    }

    /// Whether something is written and not durable.
    pub fn is_dirty(&self) -> bool {
        !self.written.is_empty()
    }

    /// The last durable record's sequence.
    pub fn durable_to(&self) -> Sequence {
        self.durable.last().map_or(Sequence(0), |record| record.sequence)
    }

    /// Makes everything durable that was written.
    pub fn commit(&mut self) {
        self.durable.append(&mut self.written);
    }

    /// Power goes: of what was not committed any number of first records may have reached the disk.
    pub fn crash(&mut self, chance: &mut Chance) {
        let kept = usize::try_from(chance.below(self.written.len() as u64 + 1)).unwrap_or(0);
        self.durable.extend(self.written.drain(..kept));
        self.written.clear();
    }

    /// The durable records.
    pub fn records(&self) -> &[Record<E>] {
        &self.durable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_keeps_what_is_durable_and_a_prefix_of_the_rest() {
        let mut lengths = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let mut disk = Disk::default();
            for number in 1..=3 {
                disk.append(Record { sequence: Sequence(number), event: number });
            }
            disk.commit();
            for number in 4..=6 {
                disk.append(Record { sequence: Sequence(number), event: number });
            }
            disk.crash(&mut Chance::new(seed));
            assert!(!disk.is_dirty());
            assert!(disk.records().iter().map(|record| record.event).eq(1..=disk.records().len() as u64));
            lengths.insert(disk.records().len());
        }
        assert_eq!(lengths, [3, 4, 5, 6].into());
    }
}
