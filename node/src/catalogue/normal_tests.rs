use std::{fs, path::PathBuf};

use super::*;

fn tar_of(content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    builder.append_data(&mut header, "a", content).unwrap();
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut writer = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

fn zst(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = AR_MAGIC.to_vec();
    for (name, content) in members {
        archive.extend(format!("{name:<16}1700000000  0     0     100644  {:<10}`\n", content.len()).as_bytes());
        archive.extend(*content);
        archive.extend(vec![b'\n'; content.len() % 2]);
    }
    archive
}

struct Files(tempfile::TempDir);

impl Files {
    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

fn files() -> Files {
    Files(tempfile::tempdir().unwrap())
}

fn raw(format: PayloadFormat, path: &Path) -> Vec<u8> {
    let mut form = normalise(format, path).unwrap();
    let mut bytes = Vec::new();
    form.raw.seek(SeekFrom::Start(0)).unwrap();
    form.raw.read_to_end(&mut bytes).unwrap();
    assert_eq!(form.length, bytes.len() as u64);
    assert_eq!(form.original.length, fs::metadata(path).unwrap().len());
    assert_eq!(form.original.sha256, Hash(Sha256::digest(fs::read(path).unwrap()).into()));
    bytes
}

fn refused(format: PayloadFormat, path: &Path) -> String {
    format!("{:#}", normalise(format, path).unwrap_err())
}

#[test]
fn every_way_to_compress_a_tar_gives_the_same_image() {
    let files = files();
    let tar = tar_of(&[7; 70_001]);
    for (name, bytes) in [("a.tar", tar.clone()), ("a.tgz", gzip(&tar)), ("a.txz", xz(&tar)), ("a.zst", zst(&tar))] {
        assert!(raw(PayloadFormat::Tar, &files.write(name, &bytes)) == tar, "{name}");
    }
    let two_members = [gzip(&tar[..5000]), gzip(&tar[5000..])].concat();
    assert!(raw(PayloadFormat::Tar, &files.write("two.tgz", &two_members)) == tar);
}

#[test]
fn a_deb_keeps_everything_but_the_compression_of_its_members() {
    let files = files();
    let (control, data) = (tar_of(b"control"), tar_of(&[9; 30_001]));
    let members = |control: (&'static str, Vec<u8>), data: (&'static str, Vec<u8>)| {
        ar(&[("debian-binary", b"2.0\n"), (control.0, &control.1), ("_gpgorigin", b"odd"), (data.0, &data.1)])
    };
    let plain = members(("control.tar", control.clone()), ("data.tar", data.clone()));
    for (name, deb) in [
        ("xz", members(("control.tar.xz", xz(&control)), ("data.tar.xz", xz(&data)))),
        ("gz", members(("control.tar.gz", gzip(&control)), ("data.tar.gz", gzip(&data)))),
        ("zst", members(("control.tar.zst", zst(&control)), ("data.tar.zst/", zst(&data)))),
        ("plain", plain.clone()),
    ] {
        assert!(raw(PayloadFormat::Deb, &files.write(name, &deb)) == plain, "{name}");
    }
}

#[test]
fn an_rpm_stays_as_it_is() {
    let rpm = [RPM_MAGIC, &gzip(b"payload")].concat();
    assert_eq!(raw(PayloadFormat::Rpm, &files().write("a.rpm", &rpm)), rpm);
}

#[test]
fn what_is_damaged_or_something_else_is_refused_with_its_reason() {
    let files = files();
    let (control, data) = (xz(&tar_of(b"c")), xz(&tar_of(&[9; 30_000])));
    let deb = ar(&[("debian-binary", b"2.0\n"), ("control.tar.xz", &control), ("data.tar.xz", &data)]);
    let deb_error = |name: &str, bytes: &[u8]| refused(PayloadFormat::Deb, &files.write(name, bytes));
    assert!(deb_error("cut.deb", &deb[..deb.len() - 40]).contains("data.tar.xz"));
    assert!(deb_error("header.deb", &deb[..100]).contains("cut"));
    let mut flipped = deb.clone();
    let middle = deb.len() - data.len() / 2;
    flipped[middle] ^= 0x10;
    assert!(deb_error("flipped.deb", &flipped).contains("reading its member data.tar.xz"));
    assert!(deb_error("empty.deb", &ar(&[("debian-binary", b"2.0\n")])).contains("needs control.tar and data.tar"));
    let twice = ar(&[("control.tar.xz", &control), ("data.tar.xz", &data), ("data.tar.xz", &data)]);
    assert!(deb_error("twice.deb", &twice).contains("once each"));
    let bzip = ar(&[("control.tar.xz", &control), ("data.tar.bz2", b"BZh91AY")]);
    assert!(deb_error("bzip.deb", &bzip).contains("pack it again with xz or zstd"));
    let length = deb.windows(10).position(|window| window == b"4         ").unwrap();
    let mut wrong = deb.clone();
    wrong[length] = b'x';
    assert!(deb_error("length.deb", &wrong).contains("length is no number"));
    let tar_error = |name: &str, bytes: &[u8]| refused(PayloadFormat::Tar, &files.write(name, bytes));
    assert!(tar_error("text.tar.gz", &gzip(b"no tar")).contains("is not a tar archive"));
    assert!(tar_error("a.deb", &deb).contains("is not a tar archive"));
    assert!(tar_error("cut.tar.gz", &gzip(&tar_of(&[9; 3000]))[..40]).contains("decompressing it"));
    assert!(refused(PayloadFormat::Rpm, &files.write("no.rpm", &deb)).contains("is not an RPM package"));
}

#[test]
fn a_bomb_gets_no_more_room_than_there_is() {
    let mut sink = Vec::new();
    for bomb in [gzip(&vec![0; 1 << 20]), xz(&vec![0; 1 << 20]), zst(&vec![0; 1 << 20])] {
        let error = decompress(&bomb[..], &mut sink, 100_000).unwrap_err();
        assert!(format!("{error:#}").contains("decompression bomb"), "{error:#}");
    }
    assert!(sink.len() <= 3 * 100_001);
    // A frame that asks for a window of 2 GiB is refused before any memory is taken.
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(31).unwrap();
    encoder.long_distance_matching(true).unwrap();
    encoder.write_all(&[7; 1000]).unwrap();
    encoder.flush().unwrap();
    encoder.write_all(&[8; 1000]).unwrap();
    let wide = encoder.finish().unwrap();
    assert!(decompress(&wide[..], &mut Vec::new(), 1 << 20).is_err());
}
