//! Where the files of an image are, so that each can be coded in the way that suits it.
//!
//! Nothing depends on it but the length of a patch: a stretch that is no ar and no tar is one span, and a damaged archive
//! ends in one.
use std::ops::Range;

const AR_MAGIC: &[u8] = b"!<arch>\n";
const AR_HEADER_BYTES: usize = 60;
const BLOCK_BYTES: usize = 512;

/// The image cut at the boundaries of its files; each span is a file with its header. Ascending, without gaps.
pub fn spans(image: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    if image.starts_with(AR_MAGIC) {
        let mut at = AR_MAGIC.len();
        while let Some(length) = ar_member(&image[at..]) {
            let content = at + AR_HEADER_BYTES;
            let end = (content + length).min(image.len());
            let first = found.len();
            tar_spans(image, content..end, &mut found);
            // The archive's header belongs to the first file of the member.
            if let Some(span) = found.get_mut(first) {
                span.start = at;
            }
            at = (end + length % 2).min(image.len());
        }
    } else {
        tar_spans(image, 0..image.len(), &mut found);
    }
    // Padding and headers that begin no file join the span before.
    let mut joined: Vec<Range<usize>> = Vec::new();
    for span in found.into_iter().filter(|span| !span.is_empty()) {
        if let Some(last) = joined.last_mut() {
            last.end = span.start;
        }
        joined.push(span);
    }
    match (joined.first_mut(), image.is_empty()) {
        (None, false) => joined.push(0..image.len()),
        (Some(first), _) => first.start = 0,
        _ => {}
    }
    if let Some(last) = joined.last_mut() {
        last.end = image.len();
    }
    joined
}

fn ar_member(rest: &[u8]) -> Option<usize> {
    let header = rest.get(..AR_HEADER_BYTES)?;
    (header[58..] == *b"`\n").then(|| std::str::from_utf8(&header[48..58]).ok()?.trim_end().parse().ok())?
}

/// A tar header's member length; octal, or base 256 where the first bit is set.
fn tar_length(header: &[u8]) -> Option<usize> {
    if header.get(257..262)? != b"ustar" {
        return None;
    }
    let field = &header[124..136];
    if field[0] & 0x80 != 0 {
        return usize::try_from(u64::from_be_bytes(field[4..].try_into().ok()?)).ok();
    }
    let digits = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    usize::from_str_radix(digits, 8).ok()
}

fn tar_spans(image: &[u8], range: Range<usize>, found: &mut Vec<Range<usize>>) {
    let mut at = range.start;
    while let Some(length) = image.get(at..(at + BLOCK_BYTES).min(range.end)).and_then(tar_length) {
        let blocks = length.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES);
        let end = at.saturating_add(BLOCK_BYTES).saturating_add(blocks).min(range.end);
        found.push(at..end);
        at = end;
    }
    if at < range.end {
        found.push(at..range.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_file_of_a_tar_is_a_span() {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, length) in [("a", 10), ("b", 600), ("c", 0)] {
            let mut header = tar::Header::new_ustar();
            header.set_size(length);
            builder.append_data(&mut header, name, &vec![7; length as usize][..]).unwrap();
        }
        let image = builder.into_inner().unwrap();
        assert_eq!(spans(&image), [0..1024, 1024..2560, 2560..3072, 3072..image.len()]);
        let header = format!("{:<16}{:<32}{:<10}`\n", "data.tar", "", image.len());
        let deb = [AR_MAGIC, header.as_bytes(), &image].concat();
        assert_eq!(spans(&deb), [0..68 + 1024, 1092..2628, 2628..3140, 3140..deb.len()]);
    }

    proptest! {
        #[test]
        fn spans_cover_any_bytes(mut image in prop::collection::vec(any::<u8>(), 0..3000), is_ar: bool, is_tar: bool) {
            if is_tar && image.len() > 700 {
                image[325..330].copy_from_slice(b"ustar");
                image[192..204].copy_from_slice(b"00000000100\0");
            }
            if is_ar && image.len() > 700 {
                image[..8].copy_from_slice(AR_MAGIC);
                image[56..68].copy_from_slice(b"2000      `\n");
            }
            let mut end = 0;
            for span in spans(&image) {
                prop_assert!(span.start == end && span.end > span.start);
                end = span.end;
            }
            prop_assert_eq!(end, image.len());
        }
    }
}
