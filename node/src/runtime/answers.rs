//! Who waits for what a station's desk says of a pack.
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use branchline_protocol::ids::{NodeId, PackId};
use tokio::sync::oneshot;

type Waiting<T> = BTreeMap<(NodeId, PackId), Vec<oneshot::Sender<T>>>;

/// Waits for answers of one kind, by who asked and for which pack; clones share them.
pub struct Answers<T> {
    /// `None` once the desk has ended.
    waiting: Arc<Mutex<Option<Waiting<T>>>>,
}

impl<T> Clone for Answers<T> {
    fn clone(&self) -> Self {
        Self { waiting: Arc::clone(&self.waiting) }
    }
}

impl<T: Clone> Answers<T> {
    /// Nobody waits yet.
    pub fn new() -> Self {
        Self { waiting: Arc::new(Mutex::new(Some(Waiting::new()))) }
    }

    fn look<R>(&self, change: impl FnOnce(&mut Option<Waiting<T>>) -> R) -> R {
        change(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for the next answer; it fails where the desk has ended or ends before.
    pub fn wait(&self, node: NodeId, pack: PackId) -> oneshot::Receiver<T> {
        let (answer, receiver) = oneshot::channel();
        self.look(|waiting| {
            if let Some(waiting) = waiting {
                waiting.entry((node, pack)).or_default().push(answer);
            }
        });
        receiver
    }

    /// Answers all that wait for this.
    pub fn give(&self, node: NodeId, pack: PackId, answer: &T) {
        let waiting = self.look(|waiting| waiting.as_mut().and_then(|waiting| waiting.remove(&(node, pack))));
        for waiting in waiting.unwrap_or_default() {
            let _ = waiting.send(answer.clone());
        }
    }

    /// No answer comes any more.
    pub fn end(&self) {
        self.look(|waiting| *waiting = None);
    }
}

#[cfg(test)]
mod tests {
    use branchline_protocol::ids::Hash;

    use super::*;

    #[tokio::test]
    async fn all_who_wait_are_answered_once_and_nobody_waits_for_a_desk_that_has_ended() {
        let answers = Answers::new();
        let (node, pack) = (NodeId([1; 32]), PackId(Hash([2; 32])));
        let (first, second) = (answers.wait(node, pack), answers.wait(node, pack));
        let other = answers.wait(NodeId([3; 32]), pack);
        answers.give(node, pack, &7);
        assert_eq!((first.await, second.await), (Ok(7), Ok(7)));
        answers.clone().end();
        assert!(other.await.is_err() && answers.wait(node, pack).await.is_err());
        answers.give(node, pack, &8);
    }
}
