use proptest::prelude::*;

use super::{Patch, PatchError, PatchHeader, PatchSubject, PatchWriter, PresetRange, StreamCoding, StreamName};
use crate::{
    content::ImageHasher,
    ids::{Hash, ImageId},
};

fn image(bytes: &[u8]) -> ImageId {
    let mut hasher = ImageHasher::new(1000);
    hasher.update(bytes);
    hasher.finish()
}

fn subject(base: &[u8], target: &[u8]) -> PatchSubject {
    PatchSubject {
        base: image(base),
        target: image(target),
        base_length: base.len() as u64,
        target_length: target.len() as u64,
        target_chunk_bytes: 1000,
    }
}

/// Where a piece of a target comes from.
#[derive(Clone, Debug)]
enum Piece {
    Matched { at: prop::sample::Index, length: usize, changes: Vec<(prop::sample::Index, u8)> },
    Extra(Vec<u8>),
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let matched =
        (any::<prop::sample::Index>(), 1usize..12_000, prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..4))
            .prop_map(|(at, length, changes)| Piece::Matched { at, length, changes });
    prop::collection::vec(prop_oneof![matched, prop::collection::vec(any::<u8>(), 0..200).prop_map(Piece::Extra)], 1..8)
}

/// Builds a target from pieces, and the records that say so.
fn written(base: &[u8], pieces: &[Piece]) -> (Vec<u8>, PatchWriter) {
    let (mut target, mut writer, mut position) = (vec![1], PatchWriter::new(), 0_i64);
    writer.end_record(&[1], 0);
    for piece in pieces {
        match piece {
            Piece::Extra(bytes) => {
                target.extend(bytes);
                writer.end_record(bytes, 0);
            }
            Piece::Matched { at, length, changes } => {
                let at = at.index(base.len());
                let old = &base[at..base.len().min(at + length)];
                let mut new = old.to_vec();
                for (place, byte) in changes {
                    let place = place.index(new.len());
                    new[place] = *byte;
                }
                writer.end_record(&[], at as i64 - position);
                writer.matched(old, &new);
                writer.end_record(&[], 0);
                position = (at + old.len()) as i64;
                target.extend(new);
            }
        }
    }
    (target, writer)
}

fn base() -> Vec<u8> {
    (0..20_000_u32).flat_map(|i| (i.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()).take(30_000).collect()
}

fn applied(patch: &[u8], base: &[u8]) -> Result<Vec<u8>, PatchError> {
    let mut target = Vec::new();
    Patch::open(patch)?.apply(base, image(base), &mut target)?;
    Ok(target)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::property_tests::cases(64)))]

    #[test]
    fn a_target_comes_back(pieces in pieces(), with_preset: bool) {
        let base = base();
        let (target, writer) = written(&base, &pieces);
        let ranges = [(100, 5000), (6000, 20_000)].map(|(offset, length)| PresetRange { offset, length });
        let preset = if with_preset { [&base[100..5100], &base[6000..26_000]].concat() } else { vec![] };
        let ranges = if with_preset { ranges.to_vec() } else { vec![] };
        let patch = writer.encode(&subject(&base, &target), ranges, &preset).unwrap();
        prop_assert_eq!(applied(&patch.bytes, &base).unwrap(), target);
    }

    #[test]
    fn a_damaged_patch_makes_nothing(pieces in pieces(), at: prop::sample::Index, bit in 0u8..8, cut: prop::sample::Index) {
        let base = base();
        let (target, writer) = written(&base, &pieces);
        let ranges = vec![PresetRange { offset: 0, length: base.len() as u64 }];
        let mut patch = writer.encode(&subject(&base, &target), ranges, &base).unwrap().bytes;
        prop_assert!(applied(&patch[..cut.index(patch.len())], &base).is_err());
        let place = at.index(patch.len());
        patch[place] ^= 1 << bit;
        // A flipped bit may lie where the coder reads none; what comes is the target or nothing.
        if let Ok(made) = applied(&patch, &base) {
            prop_assert_eq!(made, target);
        }
    }

    #[test]
    fn arbitrary_bytes_are_no_patch(bytes: Vec<u8>) {
        prop_assert!(Patch::open(&bytes[..]).is_err());
    }
}

fn sample() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let base = base();
    let mut target = base[..9000].to_vec();
    target[8000] ^= 1;
    target.extend(b"and what the base has not");
    let mut writer = PatchWriter::new();
    writer.matched(&base[..9000], &target[..9000]);
    writer.end_record(&target[9000..], 0);
    let patch = writer.encode(&subject(&base, &target), vec![], &[]).unwrap().bytes;
    (base, target, patch)
}

/// The sample patch with a changed header.
fn with_header(change: impl Fn(&mut PatchHeader)) -> Result<Vec<u8>, PatchError> {
    let (base, _, patch) = sample();
    let (mut header, length) = PatchHeader::decode(&patch, patch.len() as u64).unwrap();
    change(&mut header);
    applied(&[&header.encode(), &patch[length as usize..]].concat(), &base)
}

#[test]
fn another_base_is_refused_before_anything_is_written() {
    let (base, target, patch) = sample();
    assert_eq!(applied(&patch, &base).unwrap(), target);
    let mut other = base.clone();
    other[0] ^= 1;
    assert!(matches!(applied(&patch, &other), Err(PatchError::WrongBase { wanted, .. }) if wanted == image(&base)));
    let mut sink = Vec::new();
    let short = Patch::open(&patch[..]).unwrap().apply(&base[1..], image(&base), &mut sink);
    assert!(matches!(short, Err(PatchError::BaseLength { found: 29_999, .. })) && sink.is_empty());
}

#[test]
fn what_a_header_may_promise_is_bounded() {
    assert!(matches!(with_header(|h| h.target = ImageId(Hash([7; 32]))), Err(PatchError::Target { .. })));
    assert!(matches!(with_header(|h| h.target_chunk_bytes = 500), Err(PatchError::Target { .. })));
    for change in [
        |h: &mut PatchHeader| h.target_length = 0,
        |h: &mut PatchHeader| h.target_length = u64::MAX,
        |h: &mut PatchHeader| h.target_chunk_bytes = 0,
        |h: &mut PatchHeader| h.target_chunk_bytes = 5 << 20,
        |h: &mut PatchHeader| h.streams[StreamName::Extras as usize].raw_length = 1 << 40,
        |h: &mut PatchHeader| h.streams[StreamName::Copies as usize].coded_length = u64::MAX,
        |h: &mut PatchHeader| h.preset = vec![PresetRange { offset: 0, length: 30_001 }],
        |h: &mut PatchHeader| h.preset = vec![PresetRange { offset: 0, length: 0 }],
        |h: &mut PatchHeader| h.preset = vec![PresetRange { offset: 0, length: 1 }; 70_000],
        |h: &mut PatchHeader| {
            h.base_length = 1 << 40;
            h.preset = vec![PresetRange { offset: 0, length: 1 << 39 }];
        },
    ] {
        assert!(matches!(with_header(change), Err(PatchError::Header(_))));
    }
    // A target of another length leaves a stream that does not end with it.
    assert!(with_header(|h| h.target_length += 1).is_err());
    assert!(with_header(|h| h.target_length -= 1).is_err());
}

#[test]
fn a_bomb_writes_no_more_than_its_header_promises() {
    let (base, target, _) = sample();
    let mut writer = PatchWriter::new();
    writer.end_record(&vec![0; 1 << 20], 0);
    let patch =
        writer.encode(&PatchSubject { target_length: 1 << 20, ..subject(&base, &target) }, vec![], &[]).unwrap();
    assert!(patch.bytes.len() < 2_000);
    let (mut header, length) = PatchHeader::decode(&patch.bytes, patch.bytes.len() as u64).unwrap();
    header.target_length = 1000;
    let refused = PatchHeader::decode(&[&header.encode(), &patch.bytes[length as usize..]].concat(), 0);
    assert!(matches!(refused, Err(PatchError::Header("a stream promises more than the target can need"))));
    header.streams[StreamName::Extras as usize].raw_length = 1000;
    let small = [&header.encode(), &patch.bytes[length as usize..]].concat();
    let mut sink = Vec::new();
    let error = Patch::open(&small[..]).unwrap().apply(&base[..], image(&base), &mut sink).unwrap_err();
    assert!(matches!(error, PatchError::Record { .. } | PatchError::Stream { .. }), "{error}");
    assert!(sink.len() <= 1000);
}

#[test]
fn bytes_that_do_not_compress_cost_little_more_than_themselves() {
    let (base, _, _) = sample();
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let mut target: Vec<u8> = (0..20_000).map(|_| noise()).collect();
    target.extend(&base[..10_000]);
    let mut writer = PatchWriter::new();
    writer.end_record(&target, 0);
    let whole = vec![PresetRange { offset: 0, length: base.len() as u64 }];
    let patch = writer.encode(&subject(&base, &target), whole, &base).unwrap().bytes;
    assert!(patch.len() < 20_300, "{} bytes", patch.len());
    assert_eq!(applied(&patch, &base).unwrap(), target);
    let (header, _) = PatchHeader::decode(&patch, patch.len() as u64).unwrap();
    assert_eq!(header.stream(StreamName::Extras).coding, StreamCoding::Zstd);
    assert!(matches!(
        with_header(|h| h.streams[StreamName::Differences as usize].coding = StreamCoding::Zstd),
        Err(PatchError::Header(_))
    ));
}

#[test]
fn the_form_is_what_it_was_released_as() {
    let base = b"0123456789".to_vec();
    let target = b"0123x56789and more".to_vec();
    let mut writer = PatchWriter::new();
    writer.matched(&base, &target[..10]);
    writer.end_record(&target[10..], 0);
    let patch = writer.encode(&subject(&base, &target), vec![], &[]).unwrap().bytes;
    assert_eq!(&patch[..4], b"BLP\x01");
    // Lengths 10 and 18, chunks of 1000 bytes, no preset, then the six streams: all stored, they are so short.
    assert_eq!(patch[68..91], [10, 18, 0xe8, 7, 0, 1, 0, 1, 1, 0, 1, 1, 0, 1, 1, 0, 1, 10, 0, 10, 8, 0, 8]);
    assert_eq!(&patch[91..], [&[0, 21, 8, 0, 0, 0, 0, 0, b'x' - b'4', 0, 0, 0, 0, 0][..], b"and more"].concat());
    assert_eq!(applied(&patch, &base).unwrap(), target);
}
