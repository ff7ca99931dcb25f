//! The journals of the machines: one redb table each, written in groups by a thread of its own.
use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Context, Result, ensure};
use branchline_protocol::{
    machine::{Record, Sequence},
    wire::codec,
};
use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::{mpsc, watch};

/// Longest encoded event in bytes.
pub const EVENT_BYTES_MAX: usize = 4 << 20;
/// Appends that may wait for the disk before the machine has to.
const QUEUE_LENGTH: usize = 1024;

/// Events by their numbers, as they lie on disk.
pub type EncodedEvents = Vec<(u64, Vec<u8>)>;

/// All journals of one node.
#[derive(Clone)]
pub struct JournalStore {
    database: Arc<Database>,
    /// The journals that somebody writes now.
    written: Arc<Mutex<BTreeSet<&'static str>>>,
}

impl JournalStore {
    /// Opens the file, and makes it where it is missing. Only one process can hold it.
    ///
    /// # Errors
    /// It cannot be opened, is damaged, or another process holds it.
    pub fn open(path: &Path) -> Result<Self> {
        let database = Database::create(path).with_context(|| {
            format!("opening the journal {} (is another `branchline run` using this home directory?)", path.display())
        })?;
        Ok(Self { database: Arc::new(database), written: Arc::default() })
    }

    /// Reads all events of one journal, oldest first.
    ///
    /// # Errors
    /// The disk fails, or an event cannot be read by this version.
    pub fn read<E: DeserializeOwned>(&self, name: &str) -> Result<Vec<Record<E>>> {
        let (events, _) = self.read_page(name, 0, usize::MAX, usize::MAX)?;
        let decode = |(sequence, bytes): (u64, Vec<u8>)| {
            let event = codec::decode(&bytes, EVENT_BYTES_MAX)
                .with_context(|| format!("reading event {sequence} of the journal \"{name}\""))?;
            Ok(Record { sequence: Sequence(sequence), event })
        };
        events.into_iter().map(decode).collect()
    }

    /// Reads encoded events from `from` on: at most `events_max`, and none after those that have `bytes` together. Says
    /// also whether these are the last.
    ///
    /// # Errors
    /// The disk fails.
    pub fn read_page(&self, name: &str, from: u64, events_max: usize, bytes: usize) -> Result<(EncodedEvents, bool)> {
        let Some(table) = self.table(name)? else { return Ok((Vec::new(), true)) };
        let (mut page, mut length) = (Vec::new(), 0);
        for entry in table.range(from..)? {
            if page.len() >= events_max || length >= bytes {
                return Ok((page, false));
            }
            let (sequence, event) = entry?;
            length += event.value().len();
            page.push((sequence.value(), event.value().to_vec()));
        }
        Ok((page, true))
    }

    /// The number of the last event of a journal; 0 where there is none.
    ///
    /// # Errors
    /// The disk fails.
    pub fn last(&self, name: &str) -> Result<u64> {
        let Some(table) = self.table(name)? else { return Ok(0) };
        Ok(table.last()?.map_or(0, |(sequence, _)| sequence.value()))
    }

    fn table(&self, name: &str) -> Result<Option<ReadOnlyTable<u64, &'static [u8]>>> {
        let definition: TableDefinition<u64, &[u8]> = TableDefinition::new(name);
        match self.database.begin_read()?.open_table(definition) {
            Ok(table) => Ok(Some(table)),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error).context("opening a journal"),
        }
    }

    /// Writes encoded events as they came from another node (a planned move), all or none.
    ///
    /// # Errors
    /// The disk fails, or somebody writes this journal.
    pub fn import(&self, name: &'static str, events: &[(u64, Vec<u8>)]) -> Result<()> {
        let _sole = self.sole_writer(name)?;
        append(&self.database, name, events)
    }

    /// Starts the thread that writes one journal, after its last event.
    ///
    /// # Errors
    /// The thread cannot be started, the disk fails, or another thread still writes this journal.
    pub fn writer(&self, name: &'static str) -> Result<JournalWriter> {
        let sole = self.sole_writer(name)?;
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
        let (durable_sender, durable) = watch::channel(Sequence(self.last(name)?));
        let database = Arc::clone(&self.database);
        thread::Builder::new()
            .name(format!("journal {name}"))
            .spawn(move || {
                write_groups(&database, name, receiver, &durable_sender);
                // Before the sender goes: whoever sees that the thread has ended may write.
                drop(sole);
            })
            .context("starting the journal's thread")?;
        Ok(JournalWriter { sender: Some(sender), durable })
    }

    /// Whether somebody writes a journal now.
    pub fn is_written(&self, name: &str) -> bool {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    /// Two machines on one journal would write over each other's events.
    fn sole_writer(&self, name: &'static str) -> Result<SoleWriter> {
        let new = self.written.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
        ensure!(new, "the journal \"{name}\" is still being written by the machine before");
        Ok(SoleWriter { written: Arc::clone(&self.written), name })
    }
}

/// Nobody else writes this journal as long as it is held.
struct SoleWriter {
    written: Arc<Mutex<BTreeSet<&'static str>>>,
    name: &'static str,
}

impl Drop for SoleWriter {
    fn drop(&mut self) {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).remove(self.name);
    }
}

/// The sending half of a journal's thread.
pub struct JournalWriter {
    /// `None` once it is closed.
    sender: Option<mpsc::Sender<(u64, Vec<u8>)>>,
    durable: watch::Receiver<Sequence>,
}

impl JournalWriter {
    /// Hands one event to the disk; waits where the disk is far behind.
    ///
    /// # Errors
    /// The event is too large, or the journal's thread has ended.
    pub async fn append<E: Serialize>(&self, record: &Record<E>) -> Result<()> {
        let bytes = codec::encode(&record.event, EVENT_BYTES_MAX)?;
        let sender = self.sender.as_ref().context("the journal is closed")?;
        sender.send((record.sequence.0, bytes)).await.ok().context("the journal's thread has ended")
    }

    /// Lets the thread end once everything is written; that is when the sender of [`Self::durable`] is gone.
    pub fn close(&mut self) {
        self.sender = None;
    }

    /// Tells up to which event the journal is durable.
    pub fn durable(&self) -> watch::Receiver<Sequence> {
        self.durable.clone()
    }
}

/// One commit per group: everything that came in while the last commit ran. Where the disk fails the process ends, as
/// the contract of a machine demands: what follows would be built on events that may be lost.
fn write_groups(
    database: &Database,
    name: &str,
    mut receiver: mpsc::Receiver<(u64, Vec<u8>)>,
    durable: &watch::Sender<Sequence>,
) {
    let mut group = Vec::new();
    while receiver.blocking_recv_many(&mut group, QUEUE_LENGTH) > 0 {
        if let Err(error) = append(database, name, &group) {
            tracing::error!(journal = name, %error, "the journal cannot be written; the process ends so that nothing is lost");
            eprintln!(
                "error: the journal cannot be written ({error:#}); free space or repair the disk, then start again"
            );
            std::process::exit(74);
        }
        if let Some((last, _)) = group.last() {
            durable.send_replace(Sequence(*last));
        }
        group.clear();
    }
}

fn append(database: &Database, name: &str, events: &[(u64, Vec<u8>)]) -> Result<()> {
    let definition: TableDefinition<u64, &[u8]> = TableDefinition::new(name);
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(definition)?;
        for (sequence, bytes) in events {
            table.insert(*sequence, bytes.as_slice())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_are_there_after_reopening_and_durable_means_so() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.redb");
        {
            let store = JournalStore::open(&path).unwrap();
            let writer = store.writer("station").unwrap();
            for number in 1..=100u64 {
                writer.append(&Record { sequence: Sequence(number), event: format!("event {number}") }).await.unwrap();
            }
            let mut durable = writer.durable();
            durable.wait_for(|sequence| *sequence == Sequence(100)).await.unwrap();
            assert!(JournalStore::open(&path).is_err(), "a second process must not open it");
        }
        let mut reopened = JournalStore::open(&path);
        for _ in 0..200 {
            if reopened.is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
            reopened = JournalStore::open(&path);
        }
        let events: Vec<Record<String>> = reopened.unwrap().read("station").unwrap();
        assert_eq!(events.len(), 100);
        assert_eq!(events[99], Record { sequence: Sequence(100), event: "event 100".to_owned() });
    }
}
