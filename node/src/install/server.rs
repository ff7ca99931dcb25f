//! The installer as a process: one Unix socket, one piece of work at a time, and the agents that it looks after (R87).
use std::{
    fs::{self, File},
    io,
    os::unix::{
        fs::{PermissionsExt, chown},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use branchline_protocol::{
    charter::PublicKey,
    ids::{ImageId, PlanHash},
    plan::Plan,
    refusal::{Refusal, RefusalKind},
    report::EventBody,
    time::UnixSeconds,
};
use thiserror::Error;

use super::{
    engine::{self, Ended},
    events::EventLog,
    files::{self, FileError, at},
    host::Host,
    journal::{Journal, JournalError},
    plans, service,
    socket::{
        InstallOrder, InstalledPlan, InstallerEvent, InstallerOutcome, InstallerRequest, InstallerStatus, SocketError,
        read_frame, write_frame,
    },
    verify::{Trust, TrustError},
};

/// Connections at one time; more are closed at once.
const CONNECTIONS_MAX: usize = 32;
/// How long a client may take to send its request or to read an event.
const CLIENT_LIMIT: Duration = Duration::from_secs(30);
/// How long an interrupted installation waits for the same order before it is undone.
const RESUME_LIMIT: Duration = Duration::from_secs(600);
/// Pause between two looks at the agents.
const TEND_PAUSE: Duration = Duration::from_millis(200);

/// How the installer is started.
#[derive(Clone, Debug)]
pub struct InstallerOptions {
    /// The Unix socket to listen on.
    pub socket: PathBuf,
    /// The installer's own directory.
    pub state: PathBuf,
    /// What stands for `/`.
    pub root: PathBuf,
    /// The owner's key: the root of all trust on this host.
    pub owner: PublicKey,
    /// Users beside root and the installer's own that may connect.
    pub allowed_users: Vec<u32>,
    /// Programs of another root are not confined by chroot.
    pub outside: bool,
    /// Ends the process hard after that many journal entries; for tests of recovery.
    pub abort_after_entries: Option<u64>,
}

/// Why the installer cannot start.
#[derive(Debug, Error)]
pub enum InstallerError {
    /// A directory or file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The memory of what is trusted cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Another installer holds the state directory.
    #[error("another installer uses {0}; end it first")]
    Held(PathBuf),
    /// The socket cannot be opened.
    #[error("cannot listen on {path}: {source}")]
    Listen {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

struct Running {
    plan: PlanHash,
    events: Arc<EventLog>,
}

/// The installer of one host.
pub struct Installer {
    host: Host,
    trust: Mutex<Trust>,
    journal: Mutex<Journal>,
    running: Mutex<Option<Running>>,
    installed: Mutex<Option<InstalledPlan>>,
    abort_after_entries: Option<u64>,
    _lock: File,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while a request was served is logged; what the mutex guards is changed by single assignments only.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wall() -> UnixSeconds {
    UnixSeconds(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

fn busy(plan: PlanHash) -> InstallerOutcome {
    let reason = format!("the plan {} is being carried out; ask again when it is done", plan.0.short());
    InstallerOutcome::Refused(Refusal::new(RefusalKind::Busy, reason))
}

impl Installer {
    /// Opens the installer's state, finishes a rollback that a crash interrupted, and starts the agents that should run.
    ///
    /// # Errors
    /// The state cannot be used, or another process uses it.
    pub fn open(options: &InstallerOptions) -> Result<Arc<Self>, InstallerError> {
        let host = Host::open(&options.root, &options.state, options.outside)?;
        let lock_file = host.state().join("lock");
        let lock = File::create(&lock_file).map_err(at("open", &lock_file))?;
        lock.try_lock().map_err(|_| InstallerError::Held(host.state().to_owned()))?;
        let trust = Trust::open(host.state(), options.owner)?;
        let mut journal = Journal::open(&host.state().join("journal.jsonl"))?;
        engine::restore_ballast(&host);
        if let Some(entries) = options.abort_after_entries {
            journal.stop_after(entries);
        }
        let interrupted = journal.state().unfinished.clone().filter(|layer| layer.rolling_back.is_some());
        if let Some(layer) = interrupted {
            let events = EventLog::open(&host.event_file(layer.plan))?;
            let reason = layer.rolling_back.unwrap_or_default();
            let (journaled, rolled_back) = engine::roll_back(&host, &mut journal, &events, &reason);
            if matches!(journaled, Err(JournalError::Stopped(_))) && options.abort_after_entries.is_some() {
                std::process::abort();
            }
            journaled?;
            events.push(EventBody::InstallFailed { reason, rolled_back });
        }
        let installer = Self {
            installed: Mutex::new(installed(&journal)),
            host,
            trust: Mutex::new(trust),
            journal: Mutex::new(journal),
            running: Mutex::new(None),
            abort_after_entries: options.abort_after_entries,
            _lock: lock,
        };
        Ok(Arc::new(installer))
    }

    /// The host, for tests that inject faults.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Serves one request; `send` gets the events and, last, the outcome. It may fail: the work goes on.
    pub fn serve(self: &Arc<Self>, request: InstallerRequest, send: &mut dyn FnMut(InstallerEvent) -> bool) {
        let outcome = match request {
            InstallerRequest::Status => InstallerOutcome::Status(self.status()),
            InstallerRequest::Install(order) => self.install(*order, send),
            InstallerRequest::Verify { plan } => self.verify(plan, send),
            InstallerRequest::Stop => self.want(false),
            InstallerRequest::Start => self.want(true),
            InstallerRequest::Uninstall => self.uninstall(None, send),
            InstallerRequest::Revert { plan } => self.uninstall(Some(plan), send),
            InstallerRequest::TakeCharter { charter, revocations } => {
                let mut trust = held(&self.trust);
                let taken = trust.take_charter(&charter);
                let taken = taken.and_then(|version| {
                    revocations.map_or(Ok(()), |list| trust.take_revocations(&list)).map(|()| version)
                });
                match taken {
                    Ok(version) => InstallerOutcome::CharterTaken { version },
                    Err(refusal) => InstallerOutcome::Refused(refusal),
                }
            }
        };
        send(InstallerEvent::Ended(outcome));
    }

    fn status(&self) -> InstallerStatus {
        let installed = held(&self.installed).clone();
        let names = installed.as_ref().and_then(|installed| plans::load(&self.host, installed.plan).ok());
        let services = names.into_iter().flat_map(|plan| plan.packages).filter_map(|package| package.service);
        let trust = held(&self.trust);
        InstallerStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: trust.node(),
            charter_version: trust.charter_version(),
            running: held(&self.running).as_ref().map(|running| running.plan),
            services: services.map(|service| service::status(&self.host, &service.name)).collect(),
            installed,
        }
    }

    fn install(
        self: &Arc<Self>,
        order: InstallOrder,
        send: &mut dyn FnMut(InstallerEvent) -> bool,
    ) -> InstallerOutcome {
        let seen = order.events_seen;
        let judged = held(&self.trust).judge(&order, wall());
        let plan = match judged {
            Ok(plan) => plan,
            Err(refusal) => return self.refuse(refusal, send),
        };
        let events = match self.begin(plan, order) {
            Ok(events) => events,
            Err(outcome) => return outcome,
        };
        follow(&events, seen, send)
    }

    fn refuse(&self, refusal: Refusal, send: &mut dyn FnMut(InstallerEvent) -> bool) -> InstallerOutcome {
        tracing::warn!(reason = %refusal, "an order is refused");
        send(InstallerEvent::Event { number: 1, body: EventBody::Refused(refusal.reason.clone()) });
        InstallerOutcome::Refused(refusal)
    }

    /// Starts the work on a plan, or finds the work that is under way.
    fn begin(self: &Arc<Self>, plan: Plan, order: InstallOrder) -> Result<Arc<EventLog>, InstallerOutcome> {
        let mut running = held(&self.running);
        let hash = plan.hash();
        if let Some(running) = running.as_ref() {
            return if running.plan == hash { Ok(Arc::clone(&running.events)) } else { Err(busy(running.plan)) };
        }
        let internal = |reason: String| InstallerOutcome::Refused(Refusal::new(RefusalKind::Internal, reason));
        let file = self.host.event_file(hash);
        let attempt_goes_on = {
            let journal = held(&self.journal);
            let unfinished = journal.state().unfinished.as_ref();
            engine::is_installed(&journal, hash) || unfinished.is_some_and(|layer| layer.plan == hash)
        };
        if !attempt_goes_on {
            // The events of an attempt that is over would be taken for those of the new one.
            files::remove_if_there(&file).map_err(|error| internal(error.to_string()))?;
        }
        let events = EventLog::open(&file).map_err(|error| internal(error.to_string()))?;
        let events = Arc::new(events);
        *running = Some(Running { plan: hash, events: Arc::clone(&events) });
        let (own, log) = (Arc::clone(self), Arc::clone(&events));
        let spawned = thread::Builder::new().name("install".into()).spawn(move || {
            let outcome = own.carry_out(&plan, &order, &log);
            *held(&own.running) = None;
            log.finish(outcome);
        });
        if let Err(error) = spawned {
            *running = None;
            return Err(internal(format!("no thread can be started: {error}")));
        }
        Ok(events)
    }

    fn carry_out(&self, plan: &Plan, order: &InstallOrder, events: &EventLog) -> InstallerOutcome {
        let mut journal = held(&self.journal);
        let hash = plan.hash();
        if engine::is_installed(&journal, hash) {
            let names = engine::service_names(&self.host, &journal);
            // The order means that it should run, also after it was stopped by an earlier one.
            if let Err(error) = service::want_all(&self.host, &names, true, &mut |_| ()) {
                return InstallerOutcome::Failed { reason: error.to_string(), rolled_back: false };
            }
            return InstallerOutcome::Installed(InstalledPlan { plan: hash, images: plan.images() });
        }
        let ended = engine::install(&self.host, &mut journal, events, plan, &order.packs);
        *held(&self.installed) = installed(&journal);
        match ended {
            Ended::Installed(installed) => InstallerOutcome::Installed(installed),
            Ended::Failed { reason, rolled_back } => InstallerOutcome::Failed { reason, rolled_back },
            Ended::Stopped if self.abort_after_entries.is_some() => std::process::abort(),
            Ended::Stopped => {
                InstallerOutcome::Failed { reason: "the installer was stopped".into(), rolled_back: false }
            }
        }
    }

    fn verify(&self, plan: PlanHash, send: &mut dyn FnMut(InstallerEvent) -> bool) -> InstallerOutcome {
        if let Some(running) = held(&self.running).as_ref() {
            return busy(running.plan);
        }
        let wrong = |reason: String| InstallerOutcome::Refused(Refusal::new(RefusalKind::WrongState, reason));
        if held(&self.installed).as_ref().is_none_or(|installed| installed.plan != plan) {
            return wrong(format!("the plan {} is not installed here, so that it cannot be verified", plan.0.short()));
        }
        let plan = match plans::load(&self.host, plan) {
            Ok(plan) => plan,
            Err(error) => return wrong(error.to_string()),
        };
        let checks = engine::check(&self.host, &plan);
        send(InstallerEvent::Event { number: 1, body: EventBody::Checked { checks: checks.clone() } });
        InstallerOutcome::Checked { checks }
    }

    fn want(&self, wanted: bool) -> InstallerOutcome {
        if let Some(running) = held(&self.running).as_ref() {
            return busy(running.plan);
        }
        let journal = held(&self.journal);
        let names = engine::service_names(&self.host, &journal);
        match service::want_all(&self.host, &names, wanted, &mut |_| ()) {
            Ok(()) if wanted => InstallerOutcome::Started,
            Ok(()) => InstallerOutcome::Withdrawn { uninstalled: false },
            Err(error) => InstallerOutcome::Refused(Refusal::new(RefusalKind::Internal, error.to_string())),
        }
    }

    /// Takes all plans back, or only this one.
    fn uninstall(&self, only: Option<PlanHash>, send: &mut dyn FnMut(InstallerEvent) -> bool) -> InstallerOutcome {
        if let Some(running) = held(&self.running).as_ref() {
            return busy(running.plan);
        }
        let internal = |reason: String| InstallerOutcome::Refused(Refusal::new(RefusalKind::Internal, reason));
        let mut journal = held(&self.journal);
        let events = match EventLog::open(&self.host.state().join("events/uninstall.jsonl")) {
            Ok(events) => events,
            Err(error) => return internal(error.to_string()),
        };
        let (earlier, _) = events.after(0);
        let done = engine::uninstall(&self.host, &mut journal, &events, only);
        *held(&self.installed) = installed(&journal);
        match done {
            Ok(all_back) => {
                let outcome = match only {
                    None => InstallerOutcome::Withdrawn { uninstalled: true },
                    Some(_) => InstallerOutcome::Reverted { installed: installed(&journal), rolled_back: all_back },
                };
                if only.is_none() {
                    events.push(EventBody::Withdrawn { uninstalled: true });
                }
                if !all_back {
                    events.push(EventBody::Note("something could not be put back; the output says what".to_owned()));
                }
                events.finish(outcome);
                follow(&events, earlier.len() as u64, send)
            }
            Err(JournalError::Stopped(_)) if self.abort_after_entries.is_some() => std::process::abort(),
            Err(error) => internal(error.to_string()),
        }
    }

    /// Undoes an interrupted installation that nobody orders again.
    fn give_up_interrupted(&self) {
        let mut journal = held(&self.journal);
        let Some(layer) = journal.state().unfinished.clone() else { return };
        let Ok(events) = EventLog::open(&self.host.event_file(layer.plan)) else { return };
        let reason = "the installation was interrupted and not ordered again";
        let (_, rolled_back) = engine::roll_back(&self.host, &mut journal, &events, reason);
        events.push(EventBody::InstallFailed { reason: reason.to_owned(), rolled_back });
    }

    /// Looks after the agents; never returns.
    fn tend(&self) {
        let started = Instant::now();
        let mut resumable = true;
        loop {
            self.host.supervisor().tend();
            if resumable && started.elapsed() > RESUME_LIMIT && held(&self.running).is_none() {
                resumable = false;
                self.give_up_interrupted();
            }
            thread::sleep(TEND_PAUSE);
        }
    }
}

fn installed(journal: &Journal) -> Option<InstalledPlan> {
    let layer = journal.state().committed.last()?;
    let images: Vec<ImageId> = layer.images.clone();
    Some(InstalledPlan { plan: layer.plan, images })
}

/// Sends the events after `seen` as they come, until the outcome. A client that has gone is not waited for.
fn follow(events: &EventLog, seen: u64, send: &mut dyn FnMut(InstallerEvent) -> bool) -> InstallerOutcome {
    let mut seen = seen;
    let mut listening = true;
    loop {
        let (news, outcome) = events.after(seen);
        let none = news.is_empty();
        for body in news {
            seen += 1;
            listening = listening && send(InstallerEvent::Event { number: seen, body });
        }
        match outcome {
            Some(outcome) if none || !listening => return outcome,
            None if !listening => return InstallerOutcome::Started,
            _ => {}
        }
    }
}

/// Opens the socket: a stale one is replaced, a living one is not. Root, the installer's user and the first of the
/// allowed users can connect.
fn listen(options: &InstallerOptions) -> Result<UnixListener, InstallerError> {
    let path = &options.socket;
    let fault = |source| InstallerError::Listen { path: path.clone(), source };
    if UnixStream::connect(path).is_ok() {
        return Err(InstallerError::Held(path.clone()));
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(fault)?;
    }
    match fs::symlink_metadata(path) {
        Ok(found) if std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) => {
            fs::remove_file(path).map_err(fault)?;
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(fault)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(fault)?;
    if let Some(user) = options.allowed_users.first().filter(|_| rustix::process::geteuid().is_root()) {
        chown(path, Some(*user), None).map_err(fault)?;
    }
    Ok(listener)
}

fn may_connect(stream: &UnixStream, allowed: &[u32]) -> bool {
    let own = rustix::process::geteuid().as_raw();
    rustix::net::sockopt::socket_peercred(stream).is_ok_and(|peer| {
        let user = peer.uid.as_raw();
        user == 0 || user == own || allowed.contains(&user)
    })
}

fn converse(installer: &Arc<Installer>, mut stream: UnixStream) -> Result<(), SocketError> {
    stream.set_read_timeout(Some(CLIENT_LIMIT))?;
    stream.set_write_timeout(Some(CLIENT_LIMIT))?;
    let request = match read_frame::<InstallerRequest>(&mut stream) {
        Ok(request) => request,
        Err(error) => {
            let refusal = Refusal::new(RefusalKind::Malformed, error.to_string());
            write_frame(&mut stream, &InstallerEvent::Ended(InstallerOutcome::Refused(refusal)))?;
            return Err(error);
        }
    };
    installer.serve(request, &mut |event| write_frame(&mut stream, &event).is_ok());
    Ok(())
}

/// Runs the installer until the process ends.
///
/// # Errors
/// Its state or its socket cannot be used.
pub fn run(options: &InstallerOptions) -> Result<(), InstallerError> {
    let installer = Installer::open(options)?;
    let listener = listen(options)?;
    let tending = Arc::clone(&installer);
    let fault = |source| InstallerError::Listen { path: options.socket.clone(), source };
    thread::Builder::new().name("tend".into()).spawn(move || tending.tend()).map_err(fault)?;
    tracing::info!(socket = %options.socket.display(), root = %options.root.display(), "the installer listens");
    let connections = Arc::new(());
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        if !may_connect(&stream, &options.allowed_users) || Arc::strong_count(&connections) > CONNECTIONS_MAX {
            tracing::warn!("a connection is closed: its user may not connect, or there are too many");
            continue;
        }
        let (installer, counted) = (Arc::clone(&installer), Arc::clone(&connections));
        let spawned = thread::Builder::new().name("client".into()).spawn(move || {
            let _counted = counted;
            if let Err(error) = converse(&installer, stream) {
                tracing::debug!(%error, "a conversation broke");
            }
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for a client");
        }
    }
    Ok(())
}

/// Whether a path is the socket of a living installer.
pub fn answers(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}
