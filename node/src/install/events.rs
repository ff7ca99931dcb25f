//! The events of one plan on this host: kept in a file, and followed by as many clients as ask (R83, R85).
use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::Path,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use branchline_protocol::{limits::EVENT_TEXT_BYTES_MAX, report::EventBody};

use super::{files::FileError, files::at, socket::InstallerOutcome};

/// Bytes of captured output that one plan may make; what comes after is noted as cut.
const OUTPUT_BYTES_MAX: usize = 4 << 20;

#[derive(Debug)]
struct Inner {
    events: Vec<EventBody>,
    file: File,
    output_bytes: usize,
    outcome: Option<InstallerOutcome>,
}

/// The events of one plan.
#[derive(Debug)]
pub struct EventLog {
    inner: Mutex<Inner>,
    news: Condvar,
}

impl EventLog {
    /// Opens the log at `path`, with what earlier processes wrote. A last line that a crash cut off is dropped.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let text = std::fs::read(path).unwrap_or_default();
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let events: Vec<EventBody> = lines.map_while(|line| serde_json::from_slice(line).ok()).collect();
        let mut whole = Vec::new();
        for event in &events {
            serde_json::to_writer(&mut whole, event).map_err(|error| at("write", path)(error.into()))?;
            whole.push(b'\n');
        }
        let file = OpenOptions::new().append(true).create(true).open(path).map_err(at("open", path))?;
        if whole.len() < text.len() {
            file.set_len(whole.len() as u64).map_err(at("cut", path))?;
        }
        let inner = Inner { events, file, output_bytes: 0, outcome: None };
        Ok(Self { inner: Mutex::new(inner), news: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one event. Output beyond its bound is dropped, with one note.
    pub fn push(&self, body: EventBody) {
        let mut inner = self.lock();
        let mut body = body;
        if let EventBody::Output { text, .. } = &mut body {
            if inner.output_bytes > OUTPUT_BYTES_MAX {
                return;
            }
            truncate(text);
            inner.output_bytes += text.len() + 1;
            if inner.output_bytes > OUTPUT_BYTES_MAX {
                body = EventBody::Note(format!("output beyond {OUTPUT_BYTES_MAX} bytes is cut here"));
            }
        }
        if let Ok(mut line) = serde_json::to_vec(&body) {
            line.push(b'\n');
            // The events inform; on a full disk the work must still be undone, and they still reach who follows.
            let _ = inner.file.write_all(&line);
            if body.is_terminal() {
                let _ = inner.file.sync_data();
            }
        }
        inner.events.push(body);
        self.news.notify_all();
    }

    /// Says how the work ended; who follows is told and leaves.
    pub fn finish(&self, outcome: InstallerOutcome) {
        self.lock().outcome = Some(outcome);
        self.news.notify_all();
    }

    /// The events after `seen`, and the outcome once there is one; waits up to a second for either.
    pub fn after(&self, seen: u64) -> (Vec<EventBody>, Option<InstallerOutcome>) {
        let seen = usize::try_from(seen).unwrap_or(usize::MAX);
        let waits = |inner: &mut Inner| inner.events.len() <= seen && inner.outcome.is_none();
        let waited = self.news.wait_timeout_while(self.lock(), Duration::from_secs(1), waits);
        let (inner, _) = waited.unwrap_or_else(PoisonError::into_inner);
        (inner.events.get(seen..).unwrap_or_default().to_vec(), inner.outcome.clone())
    }
}

fn truncate(text: &mut String) {
    let mut end = EVENT_TEXT_BYTES_MAX.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_a_restart_and_output_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events");
        let log = EventLog::open(&path).unwrap();
        log.push(EventBody::Note("one".into()));
        for _ in 0..1000 {
            log.push(EventBody::Output { step: 1, text: "x".repeat(3 * EVENT_TEXT_BYTES_MAX) });
        }
        let (events, outcome) = log.after(0);
        assert!(events.len() < 600 && outcome.is_none());
        assert!(matches!(events.last(), Some(EventBody::Note(text)) if text.contains("cut here")));
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"note\":\"tor").unwrap();
        let again = EventLog::open(&path).unwrap();
        again.push(EventBody::Note("two".into()));
        again.finish(InstallerOutcome::Started);
        let (all, outcome) = EventLog::open(&path).unwrap().after(events.len() as u64);
        assert_eq!((all, outcome), (vec![EventBody::Note("two".into())], None));
    }
}
