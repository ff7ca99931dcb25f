use branchline_protocol::{
    content::{ImageHasher, patch::Patch},
    ids::ImageId,
};
use proptest::prelude::*;

use super::*;

const CHUNK: u32 = 64 << 10;

fn image(bytes: &[u8]) -> ImageId {
    let mut hasher = ImageHasher::new(CHUNK as usize);
    hasher.update(bytes);
    hasher.finish()
}

fn subject(old: &[u8], new: &[u8]) -> PatchSubject {
    PatchSubject {
        base: image(old),
        target: image(new),
        base_length: old.len() as u64,
        target_length: new.len() as u64,
        target_chunk_bytes: CHUNK,
    }
}

fn there_and_back(old: &[u8], new: &[u8]) -> Made {
    let made = make(&subject(old, new), old, new).unwrap();
    let mut target = Vec::new();
    Patch::open(&made.patch.bytes[..]).unwrap().apply(old, image(old), &mut target).unwrap();
    assert!(target == new);
    made
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A change to an image.
#[derive(Clone, Debug)]
enum Edit {
    Set(prop::sample::Index, u8),
    Remove(prop::sample::Index, usize),
    Insert(prop::sample::Index, Vec<u8>),
    Move(prop::sample::Index, prop::sample::Index, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    let place = any::<prop::sample::Index>;
    prop_oneof![
        (place(), any::<u8>()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        (place(), 0usize..3000).prop_map(|(at, length)| Edit::Remove(at, length)),
        (place(), prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (place(), place(), 0usize..3000).prop_map(|(from, to, length)| Edit::Move(from, to, length)),
    ]
}

fn edited(old: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut new = old.to_vec();
    for edit in edits {
        let length = new.len().max(1);
        match edit {
            Edit::Set(at, byte) => new[at.index(length)] = *byte,
            Edit::Remove(at, count) => {
                let at = at.index(length);
                new.drain(at..new.len().min(at + count).min(new.len().saturating_sub(1)).max(at));
            }
            Edit::Insert(at, bytes) => drop(new.splice(at.index(length)..at.index(length), bytes.iter().copied())),
            Edit::Move(from, to, count) => {
                let from = from.index(length);
                let moved: Vec<u8> = new[from..new.len().min(from + count)].to_vec();
                new.splice(to.index(length)..to.index(length), moved);
            }
        }
    }
    new
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::property_tests::cases(48)))]

    #[test]
    fn any_old_gives_any_new(old in prop::collection::vec(any::<u8>(), 0..3000), new in prop::collection::vec(any::<u8>(), 1..3000)) {
        there_and_back(&old, &new);
    }

    #[test]
    fn any_edit_of_a_real_looking_image_comes_back(seed: u64, edits in prop::collection::vec(edit(), 0..6)) {
        let text: Vec<u8> = (0..2000_u32).flat_map(|line| format!("line {} of the file\n", line % 300).into_bytes()).collect();
        let old = tar_of(&[("noise", &noise(seed, 9000)), ("text", &text), ("again", &text[..9000])]);
        there_and_back(&old, &edited(&old, &edits));
    }
}

#[test]
fn an_unchanged_image_costs_next_to_nothing() {
    let old = noise(1, 3 << 20);
    let made = there_and_back(&old, &old);
    assert!(made.patch.bytes.len() < 150, "{} bytes", made.patch.bytes.len());
}

#[test]
fn a_renamed_file_is_copied_and_a_new_one_is_not() {
    let (kept, gone, fresh) = (noise(1, 200_000), noise(2, 100_000), noise(3, 50_000));
    let old = tar_of(&[("opt/a", &kept), ("opt/b", &gone)]);
    let new = tar_of(&[("opt/c/renamed", &kept), ("opt/d", &fresh)]);
    let made = there_and_back(&old, &new);
    assert!((50_000..51_000).contains(&made.patch.bytes.len()), "{} bytes", made.patch.bytes.len());
}

#[test]
fn no_way_alone_is_shorter_than_the_choice() {
    // One file whose bytes all moved by a constant, as addresses do; one that is cut into lines and shuffled.
    let code: Vec<u8> = (0..20_000_u32).flat_map(|i| (i * 40 + i % 7).to_le_bytes()).collect();
    let shifted: Vec<u8> = (0..20_000_u32).flat_map(|i| (i * 40 + i % 7 + 3).to_le_bytes()).collect();
    let lines: Vec<Vec<u8>> = (0..3000_u32).map(|i| noise(u64::from(i) + 9, 14)).collect();
    let text = lines.concat();
    let shuffled: Vec<u8> = (0..3000).flat_map(|i| lines[i * 1009 % 3000].clone()).collect();
    let old = tar_of(&[("code", &code), ("text", &text)]);
    let new = tar_of(&[("code", &shifted), ("text", &shuffled)]);
    let made = there_and_back(&old, &new);
    let found = matches(&old, &new);
    let all = encode(&subject(&old, &new), &old, &new, &found).unwrap().bytes.len();
    let none = encode(&subject(&old, &new), &old, &new, &[]).unwrap().bytes.len();
    assert!(made.patch.bytes.len() <= all.min(none), "{} {all} {none}", made.patch.bytes.len());
    assert!(made.patch.bytes.len() < none / 2, "the shifted code costs little only as differences");
}

#[test]
fn a_long_base_is_searched_in_windows_of_bounded_memory() {
    let presets = preset(&vec![0; PATCH_PRESET_BYTES_MAX + 10], &[Match { old: 5, new: 0, length: 100 }], 1 << 20);
    assert_eq!(presets.len(), 2, "what lies before and behind the match");
    assert!(presets.iter().map(|range| range.length).sum::<u64>() <= PATCH_PRESET_BYTES_MAX as u64);
    assert_eq!(preset(&[1; 100_000], &[], 10), [], "ten bytes are not worth a base in memory");
}
