//! The threads that read, hash and write frames, so that the event loop never does; and the frames that came last, in
//! memory.
//!
//! Few and lasting: the runtime's pool for blocking work would start a thread for each frame that waits, and each keeps
//! memory of its own. What queues here is bounded by those who ask: the machine's bytes at the store, the upload slots.
use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use branchline_protocol::{
    content::frame_of_chunk,
    ids::PackId,
    limits::{RECENT_FRAMES_BYTES, STORE_THREADS},
};
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::store::packs::{PackStore, PackStoreError};

type Job = Box<dyn FnOnce() + Send>;

/// After so long without a new frame none is kept in memory.
const RECENT_AGE: Duration = Duration::from_secs(10);

/// Where frames that are to be sent come from.
pub(super) trait FrameSource: Send + Sync {
    /// One frame, as it lies in the pack. May block.
    fn frame(&self, pack: PackId, index: u32) -> Result<Bytes, PackStoreError>;

    /// The frame, where it is in memory and proved. Does not block.
    fn recent(&self, _pack: PackId, _index: u32) -> Option<Bytes> {
        None
    }
}

/// The store, and in memory the frames that came last: what is new here is what neighbours ask for next, and need be
/// neither read nor hashed again.
#[derive(Clone)]
pub(super) struct RecentFrames {
    store: PackStore,
    recent: Arc<Mutex<Recent>>,
}

/// A frame that came, or the raw chunk in its place.
pub(super) struct Arrival {
    pub raw: bool,
    pub bytes: Vec<u8>,
}

impl Arrival {
    /// Verifies it and keeps it.
    pub fn write(
        self,
        store: &PackStore,
        recent: &RecentFrames,
        pack: PackId,
        index: u32,
    ) -> Result<(), PackStoreError> {
        let Self { raw, bytes } = self;
        if !raw {
            return recent.write(pack, index, bytes);
        }
        let missing = || PackStoreError::Missing { pack, index };
        let known = store.pack(pack).ok_or_else(missing)?;
        let entry = known.chunk(index).ok_or_else(missing)?;
        let frame = frame_of_chunk(entry, &bytes).map_err(PackStoreError::Corrupt)?;
        // Another zstd than the one that made the pack makes other frames of the same chunk: no fault of the sender.
        let frame = frame.ok_or_else(missing)?;
        recent.write(pack, index, frame)
    }
}

#[derive(Default)]
struct Recent {
    frames: VecDeque<(PackId, u32, Bytes)>,
    bytes: usize,
    last: Option<Instant>,
}

impl Recent {
    fn shorten(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max {
            let Some((_, _, bytes)) = self.frames.pop_front() else { return };
            self.bytes -= bytes.len();
        }
    }
}

impl RecentFrames {
    /// Nothing in memory yet.
    pub fn new(store: PackStore) -> Self {
        Self { store, recent: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a frame that proves itself, and keeps it for those who ask.
    ///
    /// # Errors
    /// It is not the manifest's, or the disk fails.
    pub fn write(&self, pack: PackId, index: u32, bytes: Vec<u8>) -> Result<(), PackStoreError> {
        self.store.write_frame(pack, index, &bytes)?;
        let mut recent = self.lock();
        recent.bytes += bytes.len();
        recent.frames.push_back((pack, index, Bytes::from(bytes)));
        recent.last = Some(Instant::now());
        recent.shorten(RECENT_FRAMES_BYTES);
        Ok(())
    }

    /// Gives the memory back where nothing has come for a while.
    pub fn tidy(&self) {
        let mut recent = self.lock();
        if recent.last.take_if(|last| last.elapsed() > RECENT_AGE).is_some() {
            *recent = Recent::default();
        }
    }
}

impl FrameSource for RecentFrames {
    fn frame(&self, pack: PackId, index: u32) -> Result<Bytes, PackStoreError> {
        self.store.read_frame(pack, index).map(Bytes::from)
    }

    fn recent(&self, pack: PackId, index: u32) -> Option<Bytes> {
        let recent = self.lock();
        let found = recent.frames.iter().rev().find(|(of, number, _)| (*of, *number) == (pack, index));
        found.map(|(_, _, bytes)| bytes.clone())
    }
}

/// The threads; cheap to clone. They end when the last clone is gone and what was asked is done.
#[derive(Clone)]
pub(super) struct StorePool {
    queue: Arc<OpenQueue>,
}

/// What waits for a thread. Not a channel behind a mutex: there, whoever takes a job wakes the next thread to wait in its
/// place, and each frame costs two wake-ups.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    grown: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    /// Threads that sleep until there is a job.
    idle: usize,
    closed: bool,
}

/// A queue that is closed when nobody can ask any more.
struct OpenQueue(Arc<Queue>);

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, job: Job) {
        let mut waiting = self.lock();
        waiting.jobs.push_back(job);
        let sleeps = waiting.idle > 0;
        drop(waiting);
        if sleeps {
            self.grown.notify_one();
        }
    }

    /// The next job; `None` once the queue is closed and empty.
    fn take(&self) -> Option<Job> {
        let mut waiting = self.lock();
        loop {
            if let Some(job) = waiting.jobs.pop_front() {
                return Some(job);
            }
            if waiting.closed {
                return None;
            }
            waiting.idle += 1;
            waiting = self.grown.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            waiting.idle -= 1;
        }
    }
}

impl Drop for OpenQueue {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.grown.notify_all();
    }
}

impl StorePool {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start() -> std::io::Result<Self> {
        let queue = Arc::new(OpenQueue(Arc::default()));
        for number in 0..STORE_THREADS {
            let queue = Arc::clone(&queue.0);
            thread::Builder::new().name(format!("bulk-store-{number}")).spawn(move || {
                while let Some(job) = queue.take() {
                    // A job that panics answers nothing; the next one is not its fault.
                    let _ = catch_unwind(AssertUnwindSafe(job));
                }
            })?;
        }
        Ok(Self { queue })
    }

    /// Does the work on one of the threads.
    pub fn run(&self, work: impl FnOnce() + Send + 'static) {
        self.queue.0.put(Box::new(work));
    }

    /// Does the work on one of the threads and gives what came of it; nothing if it panicked.
    pub fn ask<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
        let (answer, receiver) = oneshot::channel();
        self.run(move || drop(answer.send(work())));
        receiver
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_is_done_also_after_the_last_handle_is_gone_and_beside_one_that_panics() {
        let (answers, done) = std::sync::mpsc::channel();
        let pool = StorePool::start().unwrap();
        let begin = Arc::new(std::sync::Barrier::new(STORE_THREADS + 1));
        for _ in 0..STORE_THREADS {
            let begin = Arc::clone(&begin);
            pool.run(move || {
                begin.wait();
            });
        }
        for number in 0..1000 {
            let answers = answers.clone();
            pool.clone().run(move || {
                assert!(number != 500, "a job that panics");
                let _ = answers.send(number);
            });
        }
        drop((pool, answers));
        begin.wait();
        // The channel ends when every job is done or gone.
        let mut done: Vec<u32> = done.iter().collect();
        done.sort_unstable();
        assert!(done.iter().copied().eq((0..1000).filter(|number| *number != 500)));
    }

    #[test]
    fn what_came_last_is_in_memory_and_within_its_bound() {
        let home = tempfile::tempdir().unwrap();
        let store = PackStore::open(home.path()).unwrap();
        let mut state = 1_u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        let raw: Vec<u8> = (0..3 * RECENT_FRAMES_BYTES / 2).map(|_| noise()).collect();
        let source = PackStore::open(&home.path().join("source")).unwrap();
        let pack = source.import("noise", raw.as_slice(), raw.len() as u64).unwrap();
        let (recent, id) = (RecentFrames::new(store.clone()), pack.id());
        store.add(&pack).unwrap();
        let last = pack.frames() - 1;
        for index in 0..=last {
            recent.write(id, index, source.read_frame(id, index).unwrap()).unwrap();
        }
        assert_eq!(recent.recent(id, last).unwrap(), source.read_frame(id, last).unwrap());
        assert_eq!(recent.recent(id, 0), None, "the first has made room");
        assert_eq!(recent.frame(id, 0).unwrap(), source.read_frame(id, 0).unwrap());
        assert!(recent.lock().bytes <= RECENT_FRAMES_BYTES);
        let kept = recent.lock().frames.iter().map(|(_, _, bytes)| bytes.len()).sum::<usize>();
        assert_eq!(recent.lock().bytes, kept);

        let wrong = vec![0; pack.frame_length(0) as usize];
        assert!(recent.write(id, 0, wrong).is_err());
        assert_eq!(recent.recent(id, 0), None, "what does not prove itself is not kept");
        recent.tidy();
        assert!(recent.recent(id, last).is_some(), "not yet");
        recent.lock().last = Instant::now().checked_sub(2 * RECENT_AGE);
        recent.tidy();
        assert_eq!((recent.recent(id, last), recent.lock().bytes), (None, 0));
    }
}
