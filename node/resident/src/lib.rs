//! Gives back memory that a process has mapped and no longer uses: pages of the program and its libraries, and what its allocator keeps.
//!
//! A node's start runs through most of its code once, and the kernel maps sixteen pages around each that is touched; they stay
//! resident until memory runs short, which on a machine with memory to spare is never. [`ProgramPages::unmap`] takes
//! them out of the process (`MADV_DONTNEED`, madvise(2)): whatever is needed again is mapped again from the page cache. [`trim_heap`] does
//! the same with what was allocated and freed. They are the one place of the repository with unsafe code
//! (`docs/src/decisions/resident-code.md`).
use std::{collections::BTreeSet, env, fs, io, ops::Range};

use rustix::mm::{Advice, madvise};

/// Mappings of the program's file and its libraries' that were never written: code and constants. They exist as long as the process.
#[derive(Debug)]
pub struct ProgramPages {
    ranges: Vec<Range<usize>>,
}

impl ProgramPages {
    /// Finds them. To be called before the program has started a thread, mapped a file or loaded a library: what is found must
    /// be what the loader mapped.
    ///
    /// # Errors
    /// `/proc` is not there, or cannot be read. Or somebody has the loader bring libraries along that the program is not linked with:
    /// they may map files before it begins, and unmap them later.
    pub fn find() -> io::Result<Self> {
        let named = ["LD_PRELOAD", "LD_AUDIT"].iter().any(|name| env::var_os(name).is_some());
        if named || fs::metadata("/etc/ld.so.preload").is_ok_and(|file| file.len() > 0) {
            return Err(io::Error::other("libraries are preloaded (LD_PRELOAD, LD_AUDIT or /etc/ld.so.preload)"));
        }
        Ok(Self { ranges: clean_mappings(&fs::read_to_string("/proc/self/smaps")?) })
    }

    /// Takes all of their pages out of the process; those in use come back by themselves.
    ///
    /// # Errors
    /// The kernel refuses: a part of them is locked, for example.
    pub fn unmap(&self) -> io::Result<()> {
        for range in &self.ranges {
            // SAFETY: the range is a private mapping of a file that has code: the program's own, or a library's that it cannot run
            // without. The loader made it (`find` is called first of all; only a library whose constructor maps code and unmaps it later
            // would break this, and none that this program is linked with does), and nobody unmaps it: what is loaded with a
            // program cannot be unloaded. It could never be written and none of its pages was (`clean_mappings`): each is the
            // file's own page, in the page cache and shared with it, so that dropping it changes no byte that the program can read.
            #[allow(unsafe_code)]
            unsafe {
                madvise(range.start as *mut _, range.len(), Advice::LinuxDontNeed)?;
            }
        }
        Ok(())
    }
}

/// Gives the kernel what the allocator keeps of memory that was freed (malloc_trim(3)); does nothing with another C library than glibc,
/// whose allocators do that by themselves. It takes as long as it takes to look through what is free.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: the function may be called at any time and from any thread, and gives back nothing that is in use.
        #[allow(unsafe_code)]
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

/// What `/proc/PID/smaps` (proc(5)) says of one mapping.
#[derive(Debug)]
struct Mapping<'a> {
    range: Range<usize>,
    rights: &'a str,
    /// A path; or a name in brackets, or nothing, where the kernel made it or a program without a file.
    file: &'a str,
    /// Whether pages of it were written and are in memory, or were moved out of it. `None` in all of these: the kernel does not say.
    anonymous: Option<bool>,
    swapped: Option<bool>,
    /// Accounted for (`ac`): what every private mapping stays that could be written once.
    accounted: Option<bool>,
}

/// The private mappings in the text of `/proc/PID/smaps` that could never be written, of which no page was, and whose file has code:
/// not those that the loader wrote to before it protected them. None where a line is none that proc(5) knows, or nothing is accounted
/// for: Linux accounts for every process's heap, emulators of it may say less.
fn clean_mappings(smaps: &str) -> Vec<Range<usize>> {
    let mut mappings: Vec<Mapping<'_>> = Vec::new();
    for line in smaps.lines() {
        if let Some(mapping) = mapping_of(line) {
            mappings.push(mapping);
            continue;
        }
        let (Some(mapping), Some((name, value))) = (mappings.last_mut(), line.split_once(':')) else {
            return Vec::new();
        };
        match name {
            "Anonymous" => mapping.anonymous = Some(value.trim() != "0 kB"),
            "Swap" => mapping.swapped = Some(value.trim() != "0 kB"),
            "VmFlags" => mapping.accounted = Some(value.split_ascii_whitespace().any(|flag| flag == "ac")),
            _ if name.contains([' ', '-']) => return Vec::new(),
            _ => {}
        }
    }
    if mappings.iter().all(|mapping| mapping.accounted != Some(true)) {
        return Vec::new();
    }
    let code: BTreeSet<&str> =
        mappings.iter().filter(|mapping| mapping.rights.ends_with("xp")).map(|mapping| mapping.file).collect();
    let is_clean = |mapping: &&Mapping<'_>| {
        mapping.file.starts_with('/')
            && code.contains(mapping.file)
            && matches!(mapping.rights, "r--p" | "r-xp" | "--xp")
            && [mapping.anonymous, mapping.swapped, mapping.accounted] == [Some(false); 3]
    };
    mappings.iter().filter(is_clean).map(|mapping| mapping.range.clone()).collect()
}

/// A mapping's first line; `None`: another line.
fn mapping_of(line: &str) -> Option<Mapping<'_>> {
    let (addresses, rest) = line.split_once(' ')?;
    let (start, end) = addresses.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    let rights = rest.get(..4).filter(|_| start < end)?;
    let mut file = rest;
    // It follows the rights, the offset, the device and the inode; a path may hold spaces.
    for _ in 0..4 {
        file = file.trim_start().split_once(' ').map_or("", |(_, rest)| rest);
    }
    let file = file.trim_start();
    Some(Mapping { range: start..end, rights, file, anonymous: None, swapped: None, accounted: None })
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
Swap:                  0 kB
VmFlags: rd ex mr mw me sd
7f0000100000-7f0000104000 r--p 00100000 fe:00 132                        /usr/lib/libc.so.6
Anonymous:            16 kB
Swap:                  0 kB
VmFlags: rd mr mw me ac sd
7fff00000000-7fff00002000 r-xp 00000000 00:00 0                          [vdso]
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd ex mr mw me de sd
7f0000200000-7f0000300000 rw-p 00000000 00:00 0 
Anonymous:             0 kB
VmFlags: rd wr mr mw me ac sd
7f0000300000-7f0000400000 r--s 00000000 fe:00 131                        /usr/bin/branch line
Anonymous:             0 kB
VmFlags: rd mr me ms sd
";

    #[test]
    fn only_what_was_never_written_of_files_is_given_back() {
        let program = [0x5566_d000_0000..0x5566_d040_0000, 0x5566_d040_0000..0x5566_d1c0_0000];
        let library = 0x7f00_0000_0000..0x7f00_0010_0000;
        assert_eq!(clean_mappings(SMAPS), [program.to_vec(), vec![library]].concat());
        assert_eq!(clean_mappings(""), []);
        let heap = "10-19 rw-p 0 00:00 0 [heap]\nAnonymous: 8 kB\nSwap: 0 kB\nVmFlags: rd wr ac\n";
        let clean = "Anonymous: 0 kB\nSwap: 0 kB\nVmFlags: rd ex\n";
        let found = |mapping: &str, lines: &str| clean_mappings(&format!("{heap}{mapping}\n{lines}"));
        assert_eq!(found("1-9 r-xp 0 0:0 7 /p", clean), [Range { start: 1, end: 9 }]);
        assert_eq!(found("1-9 r--p 0 0:0 7 /p", clean), [], "a file without code is somebody's data");
        for no_file in ["1-9 r-xp 0 0:0 0", "1-9 r-xp 0 0:0 0 [anon:a/b]", "1-9 r-xp 0 0:0 7 (unreachable)/p"] {
            assert_eq!(found(no_file, clean), [], "{no_file}");
        }
        let unknown = format!("zz-9 r-xp 0 0:0 7 /q\n{clean}");
        assert_eq!(found("1-9 r-xp 0 0:0 7 /p", &format!("{clean}{unknown}")), [], "a line of another form");
        for less in ["", "Anonymous: 0 kB\nVmFlags: rd", "Swap: 0 kB\nVmFlags: rd", "Anonymous: 0 kB\nSwap: 0 kB"] {
            assert_eq!(found("1-9 r-xp 0 0:0 7 /p", less), [], "what the kernel says less of is left alone");
        }
        let unaccounted = format!("1-9 r-xp 0 0:0 7 /p\n{clean}");
        assert_eq!(clean_mappings(&unaccounted), [], "nothing is accounted for: an emulator's account");
    }

    /// The process's memory that has no file, in KiB.
    #[cfg(target_env = "gnu")]
    fn anonymous_kib() -> u64 {
        let rollup = fs::read_to_string("/proc/self/smaps_rollup").expect("Linux has it");
        let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).expect("it is there");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    #[cfg(target_env = "gnu")]
    #[test]
    fn what_was_freed_between_what_is_kept_is_given_back() {
        // Shorter than what glibc would map for itself alone, and freed again.
        let mut blocks: Vec<Vec<u8>> = (0..400).map(|number| vec![(number as u8).wrapping_add(1); 100_000]).collect();
        let full = anonymous_kib();
        let mut number = 0;
        blocks.retain(|_| {
            number += 1;
            number % 20 == 0
        });
        let freed = anonymous_kib();
        trim_heap();
        let trimmed = anonymous_kib();
        assert!(full - trimmed > 30_000, "{full} KiB with 40 MB, {freed} without, {trimmed} KiB trimmed");
        assert!(freed > trimmed + 10_000, "the allocator kept nothing: {freed} KiB, {trimmed} KiB trimmed");
        assert!(blocks.iter().all(|block| block.iter().all(|byte| *byte == block[0])), "what is kept is what it was");
    }

    /// What of these pages is resident. Not `RssFile` of the process, which is counted for each processor and may be late.
    fn resident_kib(pages: &ProgramPages) -> u64 {
        let smaps = fs::read_to_string("/proc/self/smaps").expect("Linux has it");
        let starts: Vec<String> =
            pages.ranges.iter().map(|range| format!("{:x}-{:x} ", range.start, range.end)).collect();
        let mut counts = false;
        let mut total = 0;
        for line in smaps.lines() {
            if mapping_of(line).is_some() {
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
        let mapped: usize = pages.ranges.iter().map(ExactSizeIterator::len).sum();
        assert!(mapped > 1_000_000, "{pages:?}: that is not even the C library");
        let before = resident_kib(&pages);
        pages.unmap().expect("nothing is locked");
        let after = resident_kib(&pages);
        assert!(after < before, "{before} KiB before, {after} KiB after");
        assert_eq!(clean_mappings(SMAPS).len(), 3, "code and constants are what they were");
    }
}
