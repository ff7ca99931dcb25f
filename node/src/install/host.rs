//! The host as the installer acts on it: its root, the installer's own directory, and how programs are run there.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use branchline_protocol::{
    catalogue::CommandLine,
    ids::{ImageId, PlanHash},
};

use super::{
    exec::{self, ExecError},
    files::{self, FileError, Root, at},
    supervisor::Supervisor,
};

/// How long a program of a payload may take.
const PAYLOAD_COMMAND_LIMIT: Duration = Duration::from_secs(300);

/// How programs of a payload, and services, see the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confinement {
    /// The root is the system's own: there is nothing to do.
    System,
    /// Another root, entered with chroot; needs privileges and a root that has a shell.
    Chroot,
    /// Another root, not entered: programs run from it with `BRANCHLINE_ROOT` and `DPKG_ROOT` set. For demos and tests.
    Outside,
}

/// The host as the installer acts on it.
#[derive(Clone, Debug)]
pub struct Host {
    root: Root,
    state: PathBuf,
    confinement: Confinement,
    privileged: bool,
    supervisor: Arc<Supervisor>,
    next_backup: Arc<AtomicU64>,
}

impl Host {
    /// The host under `root`, with the installer's own files in `state` (made if missing, mode 0700).
    ///
    /// # Errors
    /// One of the directories cannot be used.
    pub fn open(root: &Path, state: &Path, outside: bool) -> Result<Self, FileError> {
        let root = Root::new(root)?;
        for part in ["", "backup", "events", "images", "plans", "services", "logs"] {
            let directory = state.join(part);
            fs::create_dir_all(&directory).map_err(at("make the directory", &directory))?;
        }
        let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(state, owner_only).map_err(at("protect", state))?;
        let state = fs::canonicalize(state).map_err(at("use", state))?;
        let privileged = rustix::process::geteuid().is_root();
        let confinement = match (root.is_system(), outside || !privileged) {
            (true, _) => Confinement::System,
            (false, true) => Confinement::Outside,
            (false, false) => Confinement::Chroot,
        };
        let backups = fs::read_dir(state.join("backup")).map_err(at("list", &state))?;
        let numbers = backups.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok());
        let next_backup = Arc::new(AtomicU64::new(numbers.max().unwrap_or(0) + 1));
        let supervisor = Arc::new(Supervisor::open(&state));
        Ok(Self { root, state, confinement, privileged, supervisor, next_backup })
    }

    /// The root.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The installer's own directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// How programs see the root.
    pub fn confinement(&self) -> Confinement {
        self.confinement
    }

    /// Whether the installer is root, and may give files away.
    pub fn is_privileged(&self) -> bool {
        self.privileged
    }

    /// The plain supervised processes.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// Where the kept image of that name lies.
    pub fn image(&self, image: ImageId) -> PathBuf {
        self.state.join("images").join(image.to_string())
    }

    /// Where the events of a plan are kept.
    pub fn event_file(&self, plan: PlanHash) -> PathBuf {
        self.state.join("events").join(format!("{plan}.jsonl"))
    }

    /// A number for a new backup.
    pub fn new_backup(&self) -> u64 {
        self.next_backup.fetch_add(1, Ordering::Relaxed)
    }

    /// The file of a backup.
    pub fn backup(&self, number: u64) -> PathBuf {
        self.state.join("backup").join(number.to_string())
    }

    /// Copies the file at `place` durably into a new backup and gives its number.
    ///
    /// # Errors
    /// The disk is full, or the file cannot be read.
    pub fn back_up(&self, place: &Path) -> Result<u64, FileError> {
        let number = self.new_backup();
        files::copy_durably(place, &self.backup(number))?;
        Ok(number)
    }

    /// The real place of a program of the host, as this process would start it.
    ///
    /// # Errors
    /// The path is bad.
    pub fn program(&self, path: &str) -> Result<PathBuf, FileError> {
        self.root.resolve(Path::new(path))
    }

    /// A command that starts the host's `program` as `user` (numbers of user and group) under the host's confinement.
    ///
    /// Outside of the root, an argument that names something that exists under the root is put under it, so that
    /// `--config /etc/agent.toml` or `--config=/etc/agent.toml` means the host's file in every confinement.
    ///
    /// # Errors
    /// The program's path is bad.
    pub fn command(&self, program: &str, arguments: &[String], user: Option<(u32, u32)>) -> Result<Command, FileError> {
        use std::os::unix::process::CommandExt;
        let user = user.filter(|_| self.privileged);
        let mut command = match self.confinement {
            Confinement::Chroot => {
                let mut command = Command::new("chroot");
                if let Some((uid, gid)) = user {
                    command.arg(format!("--userspec=+{uid}:+{gid}"));
                }
                command.arg(self.root.directory()).arg(program).args(arguments);
                command
            }
            Confinement::System | Confinement::Outside => {
                let mut command = Command::new(self.program(program)?);
                command.args(arguments.iter().map(|argument| self.argument(argument)));
                if let Some((uid, gid)) = user {
                    command.uid(uid).gid(gid);
                }
                command
            }
        };
        command.env_clear().env("PATH", SYSTEM_PATH).env("LANG", "C.UTF-8");
        if self.confinement == Confinement::Outside {
            command.env("BRANCHLINE_ROOT", self.root.directory()).env("DPKG_ROOT", self.root.directory());
        }
        command.current_dir(if self.confinement == Confinement::Chroot {
            Path::new("/")
        } else {
            self.root.directory()
        });
        Ok(command)
    }

    fn argument(&self, argument: &str) -> String {
        let (prefix, path) = match argument.find("=/") {
            Some(at) => argument.split_at(at + 1),
            None => ("", argument),
        };
        let inside = self.root.place(Path::new(path)).ok().filter(|place| place.exists());
        match (self.confinement, path.starts_with('/'), inside) {
            (Confinement::Outside, true, Some(place)) => format!("{prefix}{}", place.display()),
            _ => argument.to_owned(),
        }
    }

    /// Runs a program that a payload brought, to its end.
    ///
    /// # Errors
    /// It cannot be started, fails, or takes too long.
    pub fn run_payload_command(&self, line: &CommandLine, output: &mut dyn FnMut(&str)) -> Result<(), ExecError> {
        let start =
            |error: FileError| ExecError::Start { program: line.program.clone(), source: std::io::Error::other(error) };
        let command = self.command(&line.program, &line.arguments, None).map_err(start)?;
        exec::run(command, PAYLOAD_COMMAND_LIMIT, output)
    }
}

/// Where the system's programs lie; maintainer scripts need the administrator's directories too.
pub const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
