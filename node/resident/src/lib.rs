//! Gives back pages of the program's own file that a process has mapped and no longer uses.
//!
//! A node's start runs through most of its code once, and the kernel maps sixteen pages around each that is touched; they stay
//! resident until memory runs short, which on a machine with memory to spare is never. [`ProgramPages::unmap`] takes
//! them out of the process (`MADV_DONTNEED`, madvise(2)): whatever is needed again is mapped again from the page cache. It is the one place
//! of the repository with unsafe code (`docs/src/decisions/resident-code.md`).
use std::{fs, io, ops::Range};

use rustix::mm::{Advice, madvise};

/// Mappings of the program's own file that were never written: code and constants. They exist as long as the process.
#[derive(Debug)]
pub struct ProgramPages {
    ranges: Vec<Range<usize>>,
}

impl ProgramPages {
    /// Finds them. To be called before the program has started a thread or mapped its own file once more: what is found must be
    /// what the loader mapped.
    ///
    /// # Errors
    /// `/proc` is not there, or cannot be read.
    pub fn find() -> io::Result<Self> {
        let program = fs::read_link("/proc/self/exe")?;
        let ranges = clean_mappings(&fs::read_to_string("/proc/self/smaps")?, &program.to_string_lossy());
        Ok(Self { ranges })
    }

    /// Takes all of their pages out of the process; those in use come back by themselves.
    ///
    /// # Errors
    /// The kernel refuses: a part of them is locked, for example.
    pub fn unmap(&self) -> io::Result<()> {
        for range in &self.ranges {
            // SAFETY: the range is a private mapping of the program's own file, which the loader made (`find` is called first of
            // all) and nobody unmaps. It could never be written and none of its pages was (`clean_mappings`): each has a copy
            // in the file, so that dropping it changes no byte that the program can read.
            #[allow(unsafe_code)]
            unsafe {
                madvise(range.start as *mut _, range.len(), Advice::LinuxDontNeed)?;
            }
        }
        Ok(())
    }
}

/// The private mappings of `program` in the text of `/proc/PID/smaps` (proc(5)) that could never be written and of which no page
/// was: not those that the loader wrote to before it protected them.
fn clean_mappings(smaps: &str, program: &str) -> Vec<Range<usize>> {
    let mut clean = Vec::new();
    let mut current = None;
    for line in smaps.lines() {
        if let Some(range) = mapping_of(line, program) {
            current = range;
            continue;
        }
        let Some((name, value)) = line.split_once(':') else { continue };
        match name {
            // A page that was written is one of these two.
            "Anonymous" | "Swap" if value.trim() != "0 kB" => current = None,
            // The last line of a mapping. `ac`, accounted for, is what every private mapping stays that could be written once.
            "VmFlags" if value.split_ascii_whitespace().all(|flag| flag != "ac") => clean.extend(current.take()),
            _ => {}
        }
    }
    clean
}

/// A mapping's first line: its addresses, or `Some(None)` where it is not a private one of `program` that cannot be written.
/// `None`: another line.
fn mapping_of(line: &str, program: &str) -> Option<Option<Range<usize>>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    let rights = words.next()?;
    // A path may hold spaces: it is what follows the offset, the device and the inode.
    let is_program = line.split_once('/').is_some_and(|(_, path)| program.strip_prefix('/') == Some(path));
    let is_clean = is_program && start < end && matches!(rights, "r--p" | "r-xp" | "--xp");
    Some(is_clean.then_some(start..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
5566d0000000-5566d0400000 r--p 00000000 fe:00 131                        /usr/bin/branch line
Rss:                1700 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd mr mw me sd
5566d0400000-5566d1c00000 r-xp 00400000 fe:00 131                        /usr/bin/branch line
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd ex mr mw me sd
5566d1c00000-5566d1d00000 r--p 01c00000 fe:00 131                        /usr/bin/branch line
Anonymous:          1024 kB
Swap:                  0 kB
VmFlags: rd mr mw me sd
5566d1d00000-5566d1d80000 r--p 01d00000 fe:00 131                        /usr/bin/branch line
Anonymous:             0 kB
Swap:               1024 kB
VmFlags: rd mr mw me sd
5566d1d80000-5566d1e00000 r--p 01d80000 fe:00 131                        /usr/bin/branch line
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd mr mw me ac sd
5566d1e00000-5566d1f00000 rw-p 01e00000 fe:00 131                        /usr/bin/branch line
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd wr mr mw me ac sd
7f0000000000-7f0000100000 r-xp 00000000 fe:00 132                        /usr/lib/libc.so.6
Anonymous:             0 kB
VmFlags: rd ex mr mw me sd
7f0000200000-7f0000300000 rw-p 00000000 00:00 0 
Anonymous:             0 kB
VmFlags: rd wr mr mw me ac sd
7f0000300000-7f0000400000 r--s 00000000 fe:00 131                        /usr/bin/branch line
Anonymous:             0 kB
VmFlags: rd mr me ms sd
";

    #[test]
    fn only_what_was_never_written_of_the_program_itself_is_given_back() {
        let expected = vec![0x5566_d000_0000..0x5566_d040_0000, 0x5566_d040_0000..0x5566_d1c0_0000];
        assert_eq!(clean_mappings(SMAPS, "/usr/bin/branch line"), expected);
        assert_eq!(clean_mappings(SMAPS, "/usr/bin/branch"), []);
        assert_eq!(clean_mappings("", "/usr/bin/branch line"), []);
        assert_eq!(clean_mappings("zz-1 r-xp\nVmFlags: rd\n9-1 r-xp 0 0 0 /p\nVmFlags: rd", "/p"), []);
        assert_eq!(
            clean_mappings("1-9 r-xp 0 0 0 /p\nAnonymous: 0 kB", "/p"),
            [],
            "what the kernel says less of is left alone"
        );
    }

    /// What of these pages is resident. Not `RssFile` of the process, which is counted for each processor and may be late.
    fn resident_kib(pages: &ProgramPages) -> u64 {
        let smaps = fs::read_to_string("/proc/self/smaps").expect("Linux has it");
        let starts: Vec<String> =
            pages.ranges.iter().map(|range| format!("{:x}-{:x} ", range.start, range.end)).collect();
        let mut counts = false;
        let mut total = 0;
        for line in smaps.lines() {
            if mapping_of(line, "").is_some() {
                counts = starts.iter().any(|start| line.starts_with(start));
            } else if let Some(rest) = line.strip_prefix("Rss:").filter(|_| counts) {
                total += rest.trim().trim_end_matches(" kB").parse::<u64>().expect("a number");
            }
        }
        total
    }

    #[test]
    fn what_is_given_back_is_no_longer_resident_and_the_program_goes_on() {
        let pages = ProgramPages::find().expect("this test runs on Linux");
        let length = fs::metadata("/proc/self/exe").expect("it is being run").len();
        let mapped: usize = pages.ranges.iter().map(ExactSizeIterator::len).sum();
        assert!(mapped > 100_000 && mapped as u64 <= length, "{pages:?} of {length} bytes");
        let before = resident_kib(&pages);
        pages.unmap().expect("nothing is locked");
        let after = resident_kib(&pages);
        assert!(after < before, "{before} KiB before, {after} KiB after");
        assert_eq!(clean_mappings(SMAPS, "/usr/bin/branch line").len(), 2, "code and constants are what they were");
    }
}
