//! Runs one of the system's programs and hands on every line that it writes (R85).
use std::{
    io::{self, BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use branchline_protocol::limits::EVENT_TEXT_BYTES_MAX;
use thiserror::Error;

/// Lines that are kept for the error message of a failed program.
const TAIL_LINES: usize = 12;
/// How long the last lines of a program that has ended are awaited where something that it left behind holds its pipes.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How often it is asked whether the program has ended, or has taken too long.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// Lines that may wait between the readers and the consumer.
const LINES_WAITING_MAX: usize = 256;

/// Why a program did not do what it was started for.
#[derive(Debug, Error)]
pub enum ExecError {
    /// It could not be started.
    #[error("{program} could not be started: {source}")]
    Start {
        /// Which.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// It ended with a fault.
    #[error("{program} ended with {status}; it said last: {tail}")]
    Failed {
        /// Which.
        program: String,
        /// Its exit status.
        status: String,
        /// Its last lines.
        tail: String,
    },
    /// It took too long and was ended with everything that it had started.
    #[error("{program} did not end within {} s and was stopped; it said last: {tail}", limit.as_secs())]
    TooLong {
        /// Which.
        program: String,
        /// How long it had.
        limit: Duration,
        /// Its last lines.
        tail: String,
    },
}

/// Reads lines of at most [`EVENT_TEXT_BYTES_MAX`] bytes; a longer one is cut into pieces, bytes that are no UTF-8 are
/// replaced.
fn forward_lines(source: impl Read, lines: &mpsc::SyncSender<String>) {
    let mut reader = BufReader::new(source);
    loop {
        let mut line = Vec::new();
        match reader.by_ref().take(EVENT_TEXT_BYTES_MAX as u64 / 4).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
                if lines.send(text).is_err() {
                    return;
                }
            }
        }
    }
}

fn end_group(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        // The group is the child's own, made at its start; an error means that it is gone already.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.wait();
}

/// Runs `command` to its end in a process group of its own, with no standard input, for at most `limit`. Every line
/// of standard output and standard error goes to `output` in the order of arrival.
///
/// # Errors
/// See [`ExecError`].
pub fn run(mut command: Command, limit: Duration, output: &mut dyn FnMut(&str)) -> Result<(), ExecError> {
    let program = describe(&command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(|source| ExecError::Start { program: program.clone(), source })?;
    let (sender, lines) = mpsc::sync_channel(LINES_WAITING_MAX);
    if let Some(stdout) = child.stdout.take() {
        let sender = sender.clone();
        thread::spawn(move || forward_lines(stdout, &sender));
    }
    if let Some(stderr) = child.stderr.take() {
        thread::spawn(move || forward_lines(stderr, &sender));
    }
    let status = follow(&mut child, &lines, limit, output);
    match status {
        Some((status, _)) if status.success() => Ok(()),
        Some((status, tail)) => Err(ExecError::Failed { program, status: status.to_string(), tail }),
        None => Err(ExecError::TooLong { program, limit, tail: String::new() }),
    }
}

/// Waits for the end of the child. The pipes may outlive it where it left a process behind; that one is listened to for
/// [`LAST_WORDS`] at most.
fn follow(
    child: &mut Child,
    lines: &mpsc::Receiver<String>,
    limit: Duration,
    output: &mut dyn FnMut(&str),
) -> Option<(ExitStatus, String)> {
    let started = Instant::now();
    let mut asked = started;
    let mut tail: Vec<String> = Vec::new();
    let mut take = |line: String, tail: &mut Vec<String>| {
        output(&line);
        tail.push(line);
        if tail.len() > TAIL_LINES {
            tail.remove(0);
        }
    };
    loop {
        match lines.recv_timeout(ASK_EVERY) {
            Ok(line) => {
                take(line, &mut tail);
                // Lines that come without a pause hide neither the end of who was started nor that its time is over.
                if asked.elapsed() < ASK_EVERY {
                    continue;
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => thread::sleep(Duration::from_millis(5)),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        asked = Instant::now();
        match child.try_wait() {
            Ok(Some(status)) => {
                let ended = Instant::now();
                while let Some(left) = LAST_WORDS.checked_sub(ended.elapsed())
                    && let Ok(line) = lines.recv_timeout(left)
                {
                    take(line, &mut tail);
                }
                return Some((status, tail.join(" | ")));
            }
            Ok(None) if started.elapsed() < limit => {}
            Ok(None) | Err(_) => {
                end_group(child);
                return None;
            }
        }
    }
}

/// The command line, for people.
fn describe(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> (Result<(), ExecError>, Vec<String>) {
        let mut lines = Vec::new();
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script);
        let result = run(command, limit, &mut |line| lines.push(line.to_owned()));
        (result, lines)
    }

    #[test]
    fn both_streams_are_captured_line_by_line() {
        let (result, mut lines) = shell("echo one; echo two >&2; printf three", Duration::from_secs(10));
        lines.sort();
        assert!(result.is_ok());
        assert_eq!(lines, ["one", "three", "two"]);
    }

    #[test]
    fn a_program_that_leaves_another_one_behind_is_not_waited_for() {
        let started = Instant::now();
        let (result, lines) = shell("echo started; sleep 30 &", Duration::from_secs(60));
        assert!(result.is_ok());
        assert_eq!(lines, ["started"]);
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }

    #[test]
    fn a_failure_says_what_was_said_last() {
        let (result, _) = shell("echo no space left; exit 3", Duration::from_secs(10));
        let text = result.unwrap_err().to_string();
        assert!(text.contains("exit status: 3") && text.contains("no space left"), "{text}");
    }

    #[test]
    fn a_program_that_hangs_is_ended_with_its_children() {
        let started = Instant::now();
        let (result, _) = shell("sleep 60 & sleep 60", Duration::from_millis(200));
        assert!(matches!(result, Err(ExecError::TooLong { .. })));
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_program_that_writes_without_a_pause_is_ended_too_and_one_left_behind_is_not_listened_to_for_ever() {
        let started = Instant::now();
        let (result, lines) = shell("while :; do echo more; done", Duration::from_millis(300));
        assert!(matches!(result, Err(ExecError::TooLong { .. })) && !lines.is_empty());
        let (result, lines) = shell("(while :; do echo more || exit; done) & sleep 0.2", Duration::from_secs(60));
        assert!(result.is_ok() && !lines.is_empty());
        assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    }

    #[test]
    fn an_end_is_seen_also_while_lines_come_faster_than_they_are_taken() {
        let mut command = Command::new("sh");
        command.args(["-c", "(while :; do echo more || exit; done) & sleep 0.2"]);
        let (started, mut lines) = (Instant::now(), 0_u32);
        let result = run(command, Duration::from_secs(60), &mut |_| {
            lines += 1;
            thread::sleep(Duration::from_micros(200));
        });
        assert!(result.is_ok() && lines > 100, "{result:?} after {lines} lines");
        assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    }

    #[test]
    fn a_line_without_end_is_cut_into_pieces() {
        let (result, lines) = shell("head -c 100000 /dev/zero | tr '\\0' x", Duration::from_secs(10));
        assert!(result.is_ok());
        assert!(lines.iter().all(|line| line.len() <= EVENT_TEXT_BYTES_MAX));
        assert_eq!(lines.iter().map(String::len).sum::<usize>(), 100_000);
    }
}
