"""tests/bench patch: what an update of a Debian package moves, by Branchline and by its peers."""

import argparse
import bz2
import filecmp
import glob
import gzip
import json
import lzma
import os
import shutil
import subprocess
import sys
import tempfile

BINARY = os.environ["BRANCHLINE_BINARY"]
# Of these the two newest versions that apt offers are taken; six at least must have two.
PACKAGES = ["git", "python3.11-minimal", "openssl", "libssl3", "openssh-client", "bind9-libs", "perl-base",
            "curl", "nginx", "haproxy", "samba-libs", "libc6"]
PAIRS_MIN = 6


class BenchError(Exception):
    pass


def run(*command, stdout=subprocess.DEVNULL):
    done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE)
    if done.returncode:
        raise BenchError(f"{' '.join(command)} failed: {done.stderr.decode(errors='replace')[-500:]}")
    return done.stdout


def measured(*command):
    """Runs a command; its JSON, its seconds and its peak memory in bytes."""
    with tempfile.NamedTemporaryFile("r") as log:
        out = run("/usr/bin/time", "--format=%e %M", f"--output={log.name}", *command, stdout=subprocess.PIPE)
        seconds, kibibytes = log.read().split()
    return json.loads(out), float(seconds), int(kibibytes) * 1024


def normal_form(deb):
    """The .deb with its members decompressed, by other code than Branchline's."""
    with open(deb, "rb") as file:
        data = file.read()
    if not data.startswith(b"!<arch>\n"):
        raise BenchError(f"{deb} is no .deb")
    parts, at = [data[:8]], 8
    while at < len(data):
        header, length = data[at:at + 60], int(data[at + 48:at + 58])
        name, body = header[:16].decode().strip(), data[at + 60:at + 60 + length]
        at += 60 + length + length % 2
        if name.endswith(".xz"):
            name, body = name[:-3], lzma.decompress(body)
        elif name.endswith(".gz"):
            name, body = name[:-3], gzip.decompress(body)
        elif name.endswith(".bz2"):
            name, body = name[:-4], bz2.decompress(body)
        elif name.endswith(".zst"):
            name, body = name[:-4], subprocess.run(["zstd", "-dc"], input=body, stdout=subprocess.PIPE, check=True).stdout
        parts.append(name.ljust(16).encode() + header[16:48] + str(len(body)).ljust(10).encode() + header[58:])
        parts.append(body + b"\n" * (len(body) % 2))
    return b"".join(parts)


def same(tool, made, wanted):
    if not filecmp.cmp(made, wanted, shallow=False):
        raise BenchError(f"{tool} made something else than the new package")


def branchline(old_deb, new_deb, new, work):
    patch, out = f"{work}/branchline.patch", f"{work}/branchline.out"
    made, make_seconds, make_memory = measured(BINARY, "patch", "make", "--json", "-o", patch, old_deb, new_deb)
    _, apply_seconds, apply_memory = measured(BINARY, "patch", "apply", "--json", "-o", out, old_deb, patch)
    same("branchline", out, new)
    sizes = made["patch"]
    # What crosses the line: the frames of the patch's pack, and its manifest.
    return sizes["pack_bytes"] + sizes["manifest_bytes"], make_seconds, apply_seconds, apply_memory, make_memory


def patch_from(old, new, work):
    patch, out = f"{work}/zstd.patch", f"{work}/zstd.out"
    run("zstd", "-q", "-f", "-19", "--long=31", f"--patch-from={old}", new, "-o", patch)
    run("zstd", "-q", "-f", "-d", "--long=31", f"--patch-from={old}", patch, "-o", out)
    same("zstd --patch-from", out, new)
    return os.path.getsize(patch)


def bsdiff(old, new, work):
    """bsdiff with its three parts coded by xz instead of bzip2, as the best known form of it."""
    patch, out = f"{work}/bsdiff.patch", f"{work}/bsdiff.out"
    run("bsdiff", old, new, patch)
    run("bspatch", old, out, patch)
    same("bsdiff", out, new)
    with open(patch, "rb") as file:
        data = file.read()
    control, difference = (int.from_bytes(data[at:at + 8], "little") for at in (8, 16))
    parts = [data[32:32 + control], data[32 + control:32 + control + difference], data[32 + control + difference:]]
    return 32 + sum(len(lzma.compress(bz2.decompress(part), preset=9 | lzma.PRESET_EXTREME)) for part in parts)


def rdiff(old, new, work):
    signature, delta, out = f"{work}/rdiff.signature", f"{work}/rdiff.delta", f"{work}/rdiff.out"
    run("rdiff", "signature", old, signature)
    run("rdiff", "delta", signature, new, delta)
    run("rdiff", "patch", old, delta, out)
    same("rdiff", out, new)
    run("zstd", "-q", "-f", "-19", delta, "-o", f"{delta}.zst")
    return os.path.getsize(f"{delta}.zst")


def casync(old, new, work):
    """The chunks of the new image that the old one has not, as casync's store keeps them, and the index."""
    def store(name, image):
        run("casync", "make", f"--store={work}/{name}.castr", f"{work}/{name}.caibx", image)
        chunks = glob.glob(f"{work}/{name}.castr/*/*.cacnk")
        return {os.path.basename(chunk): os.path.getsize(chunk) for chunk in chunks}
    before, after = store("old", old), store("new", new)
    run("casync", "extract", f"--store={work}/new.castr", f"{work}/new.caibx", f"{work}/casync.out")
    same("casync", f"{work}/casync.out", new)
    moved = sum(size for name, size in after.items() if name not in before)
    return moved + os.path.getsize(f"{work}/new.caibx")


def measure(name, old_deb, new_deb):
    with tempfile.TemporaryDirectory() as work:
        old, new = f"{work}/old.raw", f"{work}/new.raw"
        for deb, raw in ((old_deb, old), (new_deb, new)):
            with open(raw, "wb") as file:
                file.write(normal_form(deb))
        size, make_seconds, apply_seconds, apply_memory, make_memory = branchline(old_deb, new_deb, new, work)
        return {
            "package": name, "deb": os.path.getsize(new_deb), "branchline": size,
            "patch_from": patch_from(old, new, work), "casync": casync(old, new, work),
            "rdiff": rdiff(old, new, work), "bsdiff": bsdiff(old, new, work),
            "seconds_make": round(make_seconds, 2), "seconds_apply": round(apply_seconds, 2),
            # Of applying, which every host does; making is the publisher's.
            "peak_memory_bytes": apply_memory, "peak_memory_bytes_make": make_memory,
        }


def versions(package):
    """The versions that apt offers, oldest first."""
    lines = run("apt-cache", "madison", package, stdout=subprocess.PIPE).decode().splitlines()
    found = {fields[1] for line in lines if len(fields := [part.strip() for part in line.split("|")]) == 3
             and "Sources" not in fields[2]}
    ordered = []
    for version in found:
        place = 0
        while place < len(ordered) and subprocess.run(
                ["dpkg", "--compare-versions", ordered[place], "lt", version]).returncode == 0:
            place += 1
        ordered.insert(place, version)
    return ordered


def fetched(directory):
    pairs = []
    for package in PACKAGES:
        newest = versions(package)[-2:]
        if len(newest) < 2:
            continue
        files = []
        for index, version in enumerate(newest):
            place = f"{directory}/{package}.{index}"
            os.mkdir(place)
            subprocess.run(["apt-get", "download", "-qq", f"{package}={version}"], cwd=place,
                           stderr=subprocess.DEVNULL, check=False)
            files += glob.glob(f"{place}/*.deb")
        if len(files) == 2:
            pairs.append((f"{package} {newest[0]} -> {newest[1]}", *files))
    if len(pairs) < PAIRS_MIN:
        raise BenchError(f"apt offers two versions of {len(pairs)} packages only; {PAIRS_MIN} are needed: "
                         "run apt-get update, or name two files")
    return pairs


def main():
    parser = argparse.ArgumentParser(prog="tests/bench patch")
    parser.add_argument("--json", action="store_true", help="JSON on the last line")
    parser.add_argument("files", nargs="*", metavar="DEB", help="an old and a new package")
    arguments = parser.parse_args()
    if len(arguments.files) not in (0, 2):
        parser.error("name an old and a new package, or none")
    directory = tempfile.mkdtemp()
    try:
        pairs = [(os.path.basename(arguments.files[1]), *arguments.files)] if arguments.files else fetched(directory)
        columns = ["deb", "branchline", "patch_from", "bsdiff", "rdiff", "casync", "seconds_make", "seconds_apply"]
        print(f"{'package':<58}" + "".join(f"{column:>14}" for column in columns), flush=True)
        results = []
        for pair in pairs:
            result = measure(*pair)
            results.append(result)
            print(f"{result['package'][:57]:<58}" + "".join(f"{result[column]:>14}" for column in columns), flush=True)
        longer = [result["package"] for result in results if result["branchline"] > result["patch_from"]]
        print(f"longer than zstd --patch-from: {', '.join(longer) or 'none'}")
        if arguments.json:
            print(json.dumps({"pairs": results}))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    try:
        main()
    except BenchError as error:
        print(f"tests/bench patch: {error}", file=sys.stderr)
        sys.exit(1)
