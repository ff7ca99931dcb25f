//! The threads that read, hash and write frames, so that the event loop never does.
//!
//! Few and lasting: the runtime's pool for blocking work would start a thread for each frame that waits, and each keeps
//! memory of its own. What queues here is bounded by those who ask: the machine's bytes at the store, the upload slots.
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use branchline_protocol::{ids::PackId, limits::STORE_THREADS};
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::store::packs::{PackStore, PackStoreError};

type Job = Box<dyn FnOnce() + Send>;

/// Where frames that are to be sent come from.
pub(super) trait FrameSource: Send + Sync {
    /// One frame, as it lies in the pack. May block.
    fn frame(&self, pack: PackId, index: u32) -> Result<Bytes, PackStoreError>;
}

impl FrameSource for PackStore {
    fn frame(&self, pack: PackId, index: u32) -> Result<Bytes, PackStoreError> {
        self.read_frame(pack, index).map(Bytes::from)
    }
}

/// The threads; cheap to clone. They end when the last clone is gone and what was asked is done.
#[derive(Clone)]
pub(super) struct StorePool {
    jobs: mpsc::Sender<Job>,
}

impl StorePool {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start() -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..STORE_THREADS {
            let queue = Arc::clone(&queue);
            thread::Builder::new().name(format!("bulk-store-{number}")).spawn(move || {
                loop {
                    let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(job) = job else { return };
                    // A job that panics answers nothing; the next one is not its fault.
                    let _ = catch_unwind(AssertUnwindSafe(job));
                }
            })?;
        }
        Ok(Self { jobs })
    }

    /// Does the work on one of the threads.
    pub fn run(&self, work: impl FnOnce() + Send + 'static) {
        // The threads live as long as a sender does.
        let _ = self.jobs.send(Box::new(work));
    }

    /// Does the work on one of the threads and gives what came of it; nothing if it panicked.
    pub fn ask<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
        let (answer, receiver) = oneshot::channel();
        self.run(move || drop(answer.send(work())));
        receiver
    }
}
