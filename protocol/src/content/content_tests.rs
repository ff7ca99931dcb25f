use proptest::prelude::*;

use crate::{
    content::{
        ChunkEntry, FrameError, Manifest, ManifestError, OriginalFile, Pack, PackError, assemble, build_pack,
        build_pack_of, decode_frame, frame_of_chunk, verify_frame,
    },
    ids::Hash,
};

fn packed(raw: &[u8], chunk_bytes: usize) -> (Pack, Vec<u8>) {
    let mut frames = Vec::new();
    let pack = build_pack("agent.deb", raw, chunk_bytes, &mut frames).unwrap();
    (pack, frames)
}

fn frame_of(pack: &Pack, frames: &[u8], index: u32) -> Vec<u8> {
    let start = pack.frame_offset(index).unwrap() as usize;
    frames[start..start + pack.frame_length(index) as usize].to_vec()
}

/// Recomputes the image's name, so that only the rule under test is broken.
fn renamed(mut manifest: Manifest) -> Manifest {
    manifest.image = Manifest::image_of(&manifest.chunks);
    manifest
}

proptest! {
    #[test]
    fn an_image_survives_its_pack(raw in prop::collection::vec(any::<u8>(), 1..5000), chunk_bytes in 1usize..2000) {
        let (pack, frames) = packed(&raw, chunk_bytes);
        prop_assert_eq!(pack.length(), frames.len() as u64);
        prop_assert_eq!(pack.manifest().raw_length(), raw.len() as u64);
        let mut image = Vec::new();
        assemble(&pack, |index| Ok(frame_of(&pack, &frames, index)), &mut image).unwrap();
        prop_assert_eq!(image, raw);
        let bytes = pack.manifest().encode().unwrap();
        prop_assert_eq!(Pack::decode_as(pack.id(), &bytes).unwrap(), pack);
    }

    #[test]
    fn no_flipped_bit_passes(raw in prop::collection::vec(any::<u8>(), 1..500), at: prop::sample::Index, bit in 0u8..8) {
        let (pack, mut frames) = packed(&raw, 1000);
        let at = at.index(frames.len());
        frames[at] ^= 1 << bit;
        let entry = pack.chunk(0).unwrap();
        let seen = matches!(verify_frame(entry, &frames), Err(FrameError::FrameHash { .. }));
        prop_assert!(seen);
        prop_assert!(decode_frame(entry, &frames).is_err());
    }

    #[test]
    fn arbitrary_bytes_are_no_manifest_and_no_panic(bytes: Vec<u8>) {
        prop_assert!(Pack::decode(&bytes).is_err());
    }

    #[test]
    fn the_image_does_not_depend_on_the_encoding(raw in prop::collection::vec(any::<u8>(), 1..500)) {
        let (pack, _) = packed(&raw, 100);
        let mut recoded = pack.manifest().clone();
        for chunk in &mut recoded.chunks {
            chunk.frame_length += 1;
        }
        let recoded = Pack::new(recoded).unwrap();
        prop_assert_eq!(recoded.manifest().image, pack.manifest().image);
        prop_assert_ne!(recoded.id(), pack.id());
    }
}

#[test]
fn a_decompression_bomb_gets_no_more_room_than_promised() {
    let frame = zstd::bulk::compress(&vec![0; 3 << 20], 3).unwrap();
    let mut entry = ChunkEntry {
        raw_hash: Hash::of(&[0; 1000]),
        raw_length: 1000,
        frame_hash: Hash::of(&frame),
        frame_length: frame.len() as u32,
    };
    assert!(matches!(decode_frame(&entry, &frame), Err(FrameError::Decompress { expected: 1000, .. })));
    entry.raw_length = (3 << 20) + 1;
    assert!(matches!(decode_frame(&entry, &frame), Err(FrameError::Decompress { .. })));
    entry.raw_length = 3 << 20;
    assert!(matches!(decode_frame(&entry, &frame), Err(FrameError::RawHash { .. })));
}

#[test]
fn every_rule_of_a_manifest_is_held() {
    let (pack, _) = packed(&[7; 2500], 1000);
    let good = pack.manifest();
    let refused = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = good.clone();
        change(&mut manifest);
        Pack::new(manifest).unwrap_err()
    };
    assert!(matches!(refused(&|m| m.format = 2), ManifestError::Format { found: 2 }));
    assert!(matches!(refused(&|m| m.chunks.clear()), ManifestError::ChunkCount { found: 0 }));
    assert!(matches!(refused(&|m| m.chunks = vec![m.chunks[0]; 65_537]), ManifestError::ChunkCount { found: 65_537 }));
    assert!(matches!(refused(&|m| m.chunks[1].raw_length = 0), ManifestError::ChunkLength { index: 1, .. }));
    assert!(matches!(refused(&|m| m.chunks[1].frame_length = 0), ManifestError::ChunkLength { index: 1, .. }));
    assert!(matches!(refused(&|m| m.chunks[0].raw_length = 5 << 20), ManifestError::ChunkLength { index: 0, .. }));
    assert!(matches!(refused(&|m| m.chunks[0].frame_length = u32::MAX), ManifestError::ChunkLength { .. }));
    assert!(matches!(refused(&|m| m.chunks[0].raw_length -= 1), ManifestError::Image { .. }));
    assert!(matches!(refused(&|m| m.chunks.swap(0, 2)), ManifestError::Image { .. }));
    for name in ["", ".", "..", "a/b", "a\0b", "a\nb", &"x".repeat(256)] {
        assert!(matches!(refused(&|m| m.original.name = name.to_owned()), ManifestError::FileName { .. }), "{name:?}");
    }
    let other = renamed(Manifest { chunks: good.chunks[..1].to_vec(), ..good.clone() });
    let bytes = other.encode().unwrap();
    assert!(matches!(Pack::decode_as(pack.id(), &bytes), Err(ManifestError::OtherPack { .. })));
}

#[test]
fn what_cannot_be_packed_is_refused_with_its_name() {
    let empty = build_pack("agent.deb", &[][..], 1000, Vec::new()).unwrap_err();
    assert_eq!(empty.to_string(), "the payload agent.deb is empty; there is nothing to distribute");
    let long = build_pack("agent.deb", &vec![0; 65_537][..], 1, std::io::sink()).unwrap_err();
    assert!(matches!(long, PackError::TooLong { chunk_bytes: 1, .. }));
    let name = build_pack("../agent.deb", &[1][..], 1, Vec::new()).unwrap_err();
    assert!(matches!(name, PackError::Manifest(ManifestError::FileName { .. })));
}

#[test]
fn a_normal_form_keeps_the_description_of_its_original() {
    let original = OriginalFile { name: "agent.deb".into(), sha256: Hash::of(b"delivered"), length: 9 };
    let pack = build_pack_of(original.clone(), &b"normal form"[..], 1000, Vec::new()).unwrap();
    assert_eq!(pack.manifest().original, original);
    let (itself, _) = packed(b"abc", 1000);
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(itself.manifest().original.sha256.to_string(), sha256);
    assert_eq!(itself.manifest().original.length, 3);
}

#[test]
fn a_raw_chunk_becomes_its_frame_again() {
    let (pack, bytes) = packed(&b"one two three one two three".repeat(100), 1000);
    let entry = pack.chunk(1).unwrap();
    let start = pack.frame_offset(1).unwrap() as usize;
    let frame = &bytes[start..start + entry.frame_length as usize];
    let raw = decode_frame(entry, frame).unwrap();
    assert_eq!(frame_of_chunk(entry, &raw).unwrap().as_deref(), Some(frame));
    let mut other = raw.clone();
    other[5] ^= 1;
    assert!(matches!(frame_of_chunk(entry, &other), Err(FrameError::RawHash { .. })));
    assert!(matches!(frame_of_chunk(entry, &raw[1..]), Err(FrameError::Length { .. })));
    let stranger = ChunkEntry { frame_hash: Hash::of(b"made by another zstd"), ..*entry };
    assert_eq!(frame_of_chunk(&stranger, &raw).unwrap(), None);
}

#[test]
fn a_manifest_that_claims_a_billion_chunks_is_refused_before_it_takes_memory() {
    let (pack, _) = packed(&[7; 3000], 1000);
    let good = pack.manifest().encode().unwrap();
    let at = 2 + 32 + 8 + pack.manifest().original.name.len() + 32 + 8;
    assert_eq!(good[at..at + 8], 3u64.to_le_bytes());
    let mut many = good.clone();
    many[at..at + 8].copy_from_slice(&1_000_000_000u64.to_le_bytes());
    assert!(matches!(Pack::decode(&many), Err(ManifestError::Codec(_))));
    let none = Manifest { chunks: Vec::new(), image: Manifest::image_of(&[]), ..pack.manifest().clone() };
    assert!(matches!(Pack::new(none), Err(ManifestError::ChunkCount { found: 0 })));
}
