//! Where rates are kept to: every byte of the bulk plane passes a [`Shaped`] socket, below TLS (R71).
//!
//! A connection belongs to a [`Lane`], which names the buckets that its bytes pass. Where nothing is limited a socket
//! costs one look at a flag. Bytes that are sent wait for their buckets in pieces of two milliseconds; bytes that were
//! received make the next read wait, so that TCP's own window holds the sender back.
//!
//! `off` holds between frames: what has been begun is sent to its end at a trickle, since a frame that is cut would
//! cross the line again.
use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use branchline_protocol::{
    ids::{NodeId, PackId, SiteName},
    limits::LINE_RATE_BITS_PER_SECOND_MIN,
    rates::{Limiter, Permit, Rate},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::watch,
    time::{Instant, Sleep, sleep_until},
};

use crate::runtime::Clock;

/// Bytes of one write while everything is off.
const TRICKLE_BYTES: u64 = 1_448;

/// What has a rate of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bucket {
    /// All that this node sends.
    Upload,
    /// All that this node receives.
    Download,
    /// At headquarters: what goes to a site.
    LineOut(SiteName),
    /// In a site: what comes from headquarters.
    LineIn,
    /// At headquarters: what goes to a site of one pack.
    Rollout(SiteName, PackId),
    /// At headquarters: what an inlet wishes to get at most.
    Paced(NodeId),
}

struct Inner {
    clock: Clock,
    limiter: Mutex<Limiter<Bucket>>,
    shaping: AtomicBool,
    changed: watch::Sender<u64>,
    line_received: AtomicU64,
}

/// The rates of one node; cheap to clone.
#[derive(Clone)]
pub struct Shaper {
    inner: Arc<Inner>,
}

impl Shaper {
    /// A shaper that limits nothing.
    pub fn new(clock: Clock) -> Self {
        let inner = Inner {
            clock,
            limiter: Mutex::default(),
            shaping: AtomicBool::new(false),
            changed: watch::Sender::new(0),
            line_received: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    fn limiter(&self) -> MutexGuard<'_, Limiter<Bucket>> {
        self.inner.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets a rate; it holds at once, also for what is under way.
    pub fn set_rate(&self, bucket: &Bucket, rate: Rate) {
        let mut limiter = self.limiter();
        if limiter.set_rate(self.inner.clock.now().monotonic, bucket, rate) {
            self.inner.shaping.store(!limiter.is_empty(), Ordering::Relaxed);
            drop(limiter);
            self.inner.changed.send_modify(|count| *count += 1);
        }
    }

    /// The rate of a bucket.
    pub fn rate(&self, bucket: &Bucket) -> Rate {
        self.limiter().rate(bucket)
    }

    /// Sets the rates of everything but what inlets wish; what is not named is unlimited.
    pub fn set_rates(&self, rates: &[(Bucket, Rate)]) {
        let named =
            |bucket: &Bucket| matches!(bucket, Bucket::Paced(_)) || rates.iter().any(|(name, _)| name == bucket);
        let mut limiter = self.limiter();
        limiter.retain(named);
        self.inner.shaping.store(!limiter.is_empty(), Ordering::Relaxed);
        drop(limiter);
        rates.iter().for_each(|(bucket, rate)| self.set_rate(bucket, *rate));
    }

    /// Bytes that came from headquarters since the start, TLS included.
    pub fn line_received_bytes(&self) -> u64 {
        self.inner.line_received.load(Ordering::Relaxed)
    }

    fn is_shaping(&self) -> bool {
        self.inner.shaping.load(Ordering::Relaxed)
    }
}

struct Attached {
    shaper: Shaper,
    sends: Vec<Bucket>,
    receives: Vec<Bucket>,
    /// The pack whose frame is being sent.
    rollout: Mutex<Option<Bucket>>,
    /// What headquarters counts as a client.
    client: Option<(SiteName, NodeId)>,
}

/// The buckets that the bytes of one connection pass. Until it is attached it limits nothing: a handshake is short.
#[derive(Default)]
pub struct Lane {
    attached: OnceLock<Attached>,
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(Attached { shaper, client: Some((_, node)), .. }) = self.attached.get() {
            shaper.set_rate(&Bucket::Paced(*node), Rate::Unlimited);
        }
    }
}

impl Lane {
    /// A connection inside a site, or with anybody else who is not across the line.
    pub fn attach(&self, shaper: &Shaper) {
        self.attach_to(shaper, vec![Bucket::Upload], vec![Bucket::Download], None);
    }

    /// From a site to its headquarters.
    pub fn attach_to_origin(&self, shaper: &Shaper) {
        self.attach_to(shaper, vec![Bucket::Upload], vec![Bucket::LineIn, Bucket::Download], None);
    }

    /// At headquarters, with a node of a site.
    pub fn attach_to_client(&self, shaper: &Shaper, site: &SiteName, node: NodeId) {
        let sends = vec![Bucket::Paced(node), Bucket::LineOut(site.clone()), Bucket::Upload];
        self.attach_to(shaper, sends, vec![Bucket::Download], Some((site.clone(), node)));
    }

    fn attach_to(
        &self,
        shaper: &Shaper,
        sends: Vec<Bucket>,
        receives: Vec<Bucket>,
        client: Option<(SiteName, NodeId)>,
    ) {
        let attached = Attached { shaper: shaper.clone(), sends, receives, rollout: Mutex::default(), client };
        let _ = self.attached.set(attached);
    }

    fn shaping(&self) -> Option<&Attached> {
        self.attached.get().filter(|attached| attached.shaper.is_shaping())
    }

    /// Whether no frame may be begun now.
    pub fn is_off(&self) -> bool {
        self.shaping().is_some_and(|attached| attached.shaper.limiter().strictest(&attached.sends) == Rate::Off)
    }

    /// Whether no frame of this pack may be begun now, while others may.
    pub fn is_off_for(&self, pack: PackId) -> bool {
        let Some(attached) = self.shaping() else { return false };
        let site = attached.client.as_ref().map(|(site, _)| site.clone());
        site.is_some_and(|site| attached.shaper.rate(&Bucket::Rollout(site, pack)) == Rate::Off)
    }

    /// Waits until a rate changes, where frames may not be begun now.
    pub async fn rates_changed(&self) {
        let Some(attached) = self.attached.get() else { return };
        let mut changes = attached.shaper.inner.changed.subscribe();
        if self.is_off() {
            let _ = changes.changed().await;
        }
    }

    /// From now on frames of this pack are sent; `None`: anything else.
    pub fn set_pack(&self, pack: Option<PackId>) {
        // Also while nothing limits: a limit may come while the frame is sent.
        if let Some(attached) = self.attached.get()
            && let Some((site, _)) = &attached.client
        {
            let bucket = pack.map(|pack| Bucket::Rollout(site.clone(), pack));
            *attached.rollout.lock().unwrap_or_else(PoisonError::into_inner) = bucket;
        }
    }
}

impl Attached {
    /// Takes a piece of at most `wanted` bytes; gives how many, and when they may go.
    fn ask_to_send(&self, wanted: u64) -> (u64, Instant) {
        let rollout = self.rollout.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let names: Vec<&Bucket> = self.sends.iter().chain(&rollout).collect();
        let clock = self.shaper.inner.clock;
        let now = clock.now().monotonic;
        let mut limiter = self.shaper.limiter();
        let piece = limiter.piece_bytes(names.iter().copied()).map_or(wanted, |piece| wanted.min(piece));
        match limiter.take(now, names.iter().copied(), piece) {
            Permit::At(at) => (piece, clock.instant(at)),
            Permit::Off => trickle(wanted.min(TRICKLE_BYTES)),
        }
    }

    fn piece_to_receive(&self) -> usize {
        let piece = self.shaper.limiter().piece_bytes(&self.receives);
        piece.map_or(usize::MAX, |piece| usize::try_from(piece).unwrap_or(usize::MAX))
    }

    fn give_back(&self, bytes: u64) {
        let rollout = self.rollout.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.shaper.limiter().give_back(self.sends.iter().chain(&rollout), bytes);
    }

    /// Takes what was received; gives when more may be read, where that is later.
    fn received(&self, bytes: u64) -> Option<Instant> {
        let clock = self.shaper.inner.clock;
        let now = clock.now().monotonic;
        let mut limiter = self.shaper.limiter();
        limiter.piece_bytes(&self.receives)?;
        match (limiter.take(now, &self.receives, bytes), limiter.take(now, &self.receives, 0)) {
            (Permit::At(_), Permit::At(at)) => (at > now).then(|| clock.instant(at)),
            _ => Some(trickle(bytes).1),
        }
    }
}

/// What was begun goes on at the least rate that a line may have.
fn trickle(bytes: u64) -> (u64, Instant) {
    (bytes, Instant::now() + Duration::from_micros(bytes * 8_000_000 / LINE_RATE_BITS_PER_SECOND_MIN))
}

/// A socket whose bytes pass the buckets of its lane.
pub struct Shaped {
    stream: TcpStream,
    lane: Arc<Lane>,
    /// Bytes that may be written once the timer has run out.
    granted: u64,
    write_timer: Option<Pin<Box<Sleep>>>,
    read_timer: Option<Pin<Box<Sleep>>>,
}

impl Shaped {
    /// Wraps a socket; its lane is attached once it is known who is at the other end.
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, lane: Arc::default(), granted: 0, write_timer: None, read_timer: None }
    }

    /// Its lane.
    pub fn lane(&self) -> &Arc<Lane> {
        &self.lane
    }
}

impl Drop for Shaped {
    fn drop(&mut self) {
        if let Some(attached) = self.lane.shaping() {
            attached.give_back(self.granted);
        }
    }
}

fn poll_timer(timer: &mut Option<Pin<Box<Sleep>>>, context: &mut Context<'_>) -> Poll<()> {
    if let Some(sleep) = timer {
        ready!(sleep.as_mut().poll(context));
        *timer = None;
    }
    Poll::Ready(())
}

impl AsyncWrite for Shaped {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(attached) = this.lane.shaping() else {
            (this.granted, this.write_timer) = (0, None);
            return Pin::new(&mut this.stream).poll_write(context, bytes);
        };
        if this.granted == 0 {
            let (piece, at) = attached.ask_to_send(bytes.len() as u64);
            this.granted = piece;
            this.write_timer = (at > Instant::now()).then(|| Box::pin(sleep_until(at)));
        }
        ready!(poll_timer(&mut this.write_timer, context));
        let allowed = usize::try_from(this.granted).unwrap_or(usize::MAX).min(bytes.len());
        let written = ready!(Pin::new(&mut this.stream).poll_write(context, &bytes[..allowed]));
        let unused = this.granted.saturating_sub(*written.as_ref().unwrap_or(&0) as u64);
        this.granted = 0;
        attached.give_back(unused);
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.lane.shaping().is_none() && self.granted == 0 {
            return Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, parts);
        }
        let first = parts.iter().find(|part| !part.is_empty()).map_or(&[][..], |part| part);
        self.poll_write(context, first)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

impl AsyncRead for Shaped {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(poll_timer(&mut this.read_timer, context));
        // Whoever asks may have a large buffer: only a piece is read at a time, so that its price is a short wait.
        let piece = this.lane.shaping().map_or(usize::MAX, Attached::piece_to_receive).min(buffer.remaining());
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(piece));
        ready!(Pin::new(&mut this.stream).poll_read(context, &mut part))?;
        let bytes = part.filled().len() as u64;
        buffer.advance(usize::try_from(bytes).unwrap_or(0));
        if let Some(attached) = this.lane.attached.get() {
            if attached.receives.contains(&Bucket::LineIn) {
                attached.shaper.inner.line_received.fetch_add(bytes, Ordering::Relaxed);
            }
            if attached.shaper.is_shaping() {
                this.read_timer = attached.received(bytes).map(|at| Box::pin(sleep_until(at)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    async fn pair() -> (Shaped, Shaped) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (dialled, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (Shaped::new(dialled.unwrap()), Shaped::new(accepted.unwrap().0))
    }

    /// Sends without end and gives the bytes per second that arrive within `seconds`, after a start that is not counted.
    async fn measure(mut from: Shaped, mut to: Shaped, seconds: u64) -> f64 {
        let sender = tokio::spawn(async move {
            let block = vec![7; 256 << 10];
            while from.write_all(&block).await.is_ok() {}
        });
        let (mut buffer, mut received) = (vec![0; 64 << 10], 0);
        let (mut counting, start) = (None, Instant::now());
        let rate = loop {
            received += to.read(&mut buffer).await.unwrap();
            match counting {
                None if start.elapsed() > Duration::from_millis(500) => {
                    (counting, received) = (Some(Instant::now()), 0);
                }
                Some(since) if Instant::now() - since > Duration::from_secs(seconds) => {
                    break received as f64 / since.elapsed().as_secs_f64();
                }
                _ => {}
            }
        };
        sender.abort();
        rate
    }

    /// Measures up to five times: a computer that stops for a tenth of a second brings one measurement of three seconds out
    /// of its range, a wrong rate brings all of them out. That the mean is exact is shown under virtual time
    /// (`the_mean_is_exact_however_late_the_timers_are`).
    async fn comes_within(range: Range<f64>, measure: impl AsyncFn() -> f64) {
        let mut seen = Vec::new();
        while seen.len() < 5 {
            let measured = measure().await;
            if range.contains(&measured) {
                return;
            }
            seen.push(measured);
        }
        panic!("{seen:?} bytes per second where {range:?} were wanted");
    }

    fn two_percent(rate: Rate) -> Range<f64> {
        let wanted = rate.bytes_per_second().unwrap() as f64;
        wanted * 0.98..wanted * 1.02
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_sent_keeps_to_the_rate() {
        for rate in ["4mbit", "20mbit", "200mbit"] {
            let rate: Rate = rate.parse().unwrap();
            let sent = async || {
                let (from, to) = pair().await;
                let shaper = Shaper::new(Clock::start());
                from.lane().attach(&shaper);
                shaper.set_rate(&Bucket::Upload, rate);
                measure(from, to, 3).await
            };
            comes_within(two_percent(rate), sent).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_received_keeps_to_the_rate() {
        let rate: Rate = "40mbit".parse().unwrap();
        let received = async || {
            let (from, to) = pair().await;
            let shaper = Shaper::new(Clock::start());
            to.lane().attach(&shaper);
            shaper.set_rate(&Bucket::Download, rate);
            measure(from, to, 3).await
        };
        comes_within(two_percent(rate), received).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn rates_change_under_way_and_off_is_a_trickle_for_what_was_begun() {
        let (site, member): (SiteName, NodeId) = ("store-17".parse().unwrap(), NodeId([1; 32]));
        let line = Bucket::LineOut(site.clone());
        let attached = async |rate: Rate| {
            let (from, to) = pair().await;
            let shaper = Shaper::new(Clock::start());
            from.lane().attach_to_client(&shaper, &site, member);
            shaper.set_rates(&[(line.clone(), rate)]);
            (shaper, from, to)
        };
        // Half a second uncounted, one second at 8 Mbit/s, two at 4.
        let changed = async || {
            let (shaper, from, to) = attached("8mbit".parse().unwrap()).await;
            assert!(!from.lane().is_off());
            let change = tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(1_500)).await;
                shaper.set_rate(&Bucket::Paced(member), "4mbit".parse().unwrap());
            });
            let mean = measure(from, to, 3).await;
            change.await.unwrap();
            mean
        };
        comes_within(0.63e6..0.71e6, changed).await;
        let trickle = async || {
            let (_shaper, from, to) = attached(Rate::Off).await;
            assert!(from.lane().is_off());
            measure(from, to, 4).await
        };
        comes_within(15_000.0..17_000.0, trickle).await;

        let (shaper, from, to) = attached("8mbit".parse().unwrap()).await;
        shaper.set_rate(&Bucket::Paced(member), "4mbit".parse().unwrap());
        assert_eq!(shaper.rate(&Bucket::Paced(member)), "4mbit".parse().unwrap());
        shaper.set_rates(&[(line.clone(), Rate::Off)]);
        assert!(from.lane().is_off(), "it is off under way");
        drop((from, to));
        // The tasks that held the connection end when they are next polled.
        for _ in 0..100 {
            if shaper.rate(&Bucket::Paced(member)) == Rate::Unlimited {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(shaper.rate(&Bucket::Paced(member)), Rate::Unlimited, "a wish ends with its connection");
    }
}
