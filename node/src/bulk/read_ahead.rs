//! Frames that are read before a connection sends them.
use std::{collections::VecDeque, sync::Arc};

use branchline_protocol::limits::FRAMES_READ_AHEAD;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::{
    connection::FrameOrder,
    pool::{FrameSource, StorePool},
};
use crate::store::packs::PackStoreError;

/// What came of reading a frame.
pub(super) type Read = Result<Bytes, PackStoreError>;

/// Reads what was ordered while other frames are sent; several at a time, since a thread that is woken for each costs more
/// than reading them.
pub(super) struct ReadAhead {
    source: Arc<dyn FrameSource>,
    pool: StorePool,
    ready: VecDeque<(FrameOrder, Read)>,
    reading: Option<(Vec<FrameOrder>, oneshot::Receiver<Vec<Read>>)>,
}

impl ReadAhead {
    /// Nothing is ordered yet.
    pub fn new(source: Arc<dyn FrameSource>, pool: StorePool) -> Self {
        Self { source, pool, ready: VecDeque::new(), reading: None }
    }

    /// Whether nothing that was ordered waits to be sent.
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.reading.is_none()
    }

    /// Begins to read `first` and what else is ordered, unless something is being read.
    pub fn read(&mut self, first: Option<FrameOrder>, orders: &mut mpsc::Receiver<FrameOrder>) {
        if self.reading.is_some() {
            return;
        }
        let mut wanted = Vec::new();
        let mut next = first;
        while let Some(order) = next.take().or_else(|| orders.try_recv().ok()) {
            match self.source.recent(order.pack, order.index) {
                Some(bytes) if wanted.is_empty() => self.ready.push_back((order, Ok(bytes))),
                _ => wanted.push(order),
            }
            if self.ready.len() + wanted.len() >= FRAMES_READ_AHEAD {
                break;
            }
        }
        if !wanted.is_empty() {
            let (source, orders) = (Arc::clone(&self.source), wanted.clone());
            let read = move || orders.iter().map(|order| source.frame(order.pack, order.index)).collect();
            self.reading = Some((wanted, self.pool.ask(read)));
        }
    }

    /// The next frame in the order of the orders, once it is read; `None` where nothing was ordered. May be dropped and asked
    /// again.
    pub async fn next(&mut self) -> Option<(FrameOrder, Read)> {
        if self.ready.is_empty() {
            let (_, receiver) = self.reading.as_mut()?;
            let read = receiver.await;
            let (orders, _) = self.reading.take()?;
            let lost = |order: &FrameOrder| Err(PackStoreError::Missing { pack: order.pack, index: order.index });
            let read = read.unwrap_or_else(|_| orders.iter().map(lost).collect());
            self.ready.extend(orders.into_iter().zip(read));
        }
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use branchline_protocol::ids::{Hash, PackId};

    use super::*;

    const PACK: PackId = PackId(Hash([3; 32]));

    /// Frame 5 cannot be read, and for frame 7 the reader breaks; frames from 100 on are in memory.
    #[derive(Default)]
    struct Source {
        reads: AtomicUsize,
    }

    impl FrameSource for Source {
        fn frame(&self, pack: PackId, index: u32) -> Result<Bytes, PackStoreError> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            assert!(index != 7, "a reader that breaks");
            if index == 5 { Err(PackStoreError::Missing { pack, index }) } else { Ok(bytes_of(index)) }
        }

        fn recent(&self, _pack: PackId, index: u32) -> Option<Bytes> {
            (index >= 100).then(|| bytes_of(index))
        }
    }

    fn bytes_of(index: u32) -> Bytes {
        Bytes::from(index.to_le_bytes().to_vec())
    }

    async fn sent(ordered: &[u32]) -> (Vec<(u32, Option<Bytes>)>, usize) {
        let source = Arc::new(Source::default());
        let mut ahead = ReadAhead::new(Arc::clone(&source) as Arc<dyn FrameSource>, StorePool::start().unwrap());
        let (sender, mut orders) = mpsc::channel(64);
        for index in ordered {
            sender.try_send(FrameOrder { pack: PACK, index: *index }).unwrap();
        }
        let mut sent = Vec::new();
        ahead.read(None, &mut orders);
        while !ahead.is_empty() {
            assert!(ahead.ready.len() <= 2 * FRAMES_READ_AHEAD, "more is read than may lie in memory");
            let (order, read) = ahead.next().await.unwrap();
            ahead.read(None, &mut orders);
            sent.push((order.index, read.ok()));
        }
        (sent, source.reads.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn every_order_is_answered_once_in_its_order() {
        let ordered: Vec<u32> = (0..5).chain(8..40).chain([100, 101, 41, 102]).collect();
        let expected: Vec<_> = ordered.iter().map(|index| (*index, Some(bytes_of(*index)))).collect();
        assert_eq!(sent(&ordered).await.0, expected);
    }

    #[tokio::test]
    async fn what_cannot_be_read_costs_no_other_frame_and_a_reader_that_breaks_only_those_read_with_it() {
        assert_eq!(sent(&[4, 5, 6]).await.0, [(4, Some(bytes_of(4))), (5, None), (6, Some(bytes_of(6)))]);
        let (answers, _) = sent(&[1, 7, 2, 3, 8, 9]).await;
        let answered: Vec<u32> = answers.iter().map(|(index, _)| *index).collect();
        assert_eq!(answered, [1, 7, 2, 3, 8, 9]);
        assert_eq!(answers[1].1, None);
        assert!(answers[4].1.is_some() && answers[5].1.is_some(), "the next ones are read");
    }

    #[tokio::test]
    async fn what_is_in_memory_is_not_read() {
        let expected = [100, 101].map(|index| (index, Some(bytes_of(index))));
        assert_eq!(sent(&[100, 101]).await, (expected.to_vec(), 0));
    }

    #[tokio::test]
    async fn nothing_ordered_is_nothing_to_send() {
        assert_eq!(sent(&[]).await, (vec![], 0));
    }
}
