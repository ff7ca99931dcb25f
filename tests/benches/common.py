"""What the benches in the site lab share: their options, payloads, words and tables."""

import argparse
import json
import os
import random
import sys

NAME = os.path.splitext(os.path.basename(sys.argv[0]))[0]
# What a TCP stream gets of the shaped rate of one link of the lab.
GOODPUT = 0.956
# Seconds after which a run of a minute or two will not end any more.
RUN_SECONDS_MAX = 1200


class BenchError(Exception):
    """Something without which the figures would mean nothing."""


def say(text):
    print(f"{NAME}: {text}", file=sys.stderr, flush=True)


def option_parser(description):
    """The options that every bench has."""
    parser = argparse.ArgumentParser(prog=f"tests/bench {NAME}", description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--congestion-control", default="cubic", help="of all machines (cubic)")
    parser.add_argument("--directory", default="/dev/shm", help="file system that everything is written to (/dev/shm)")
    parser.add_argument("--name", default=f"bl{NAME}", help=f"name of the lab: a short word (bl{NAME})")
    parser.add_argument("--log", default="warn", help="BRANCHLINE_LOG of the nodes (warn)")
    parser.add_argument("--keep", metavar="DIRECTORY", help="keep the nodes' logs there")
    return parser


def add_site_options(parser, hosts):
    """The options of a bench that measures one site and prints one table."""
    parser.add_argument("--hosts", type=int, default=hosts, help=f"hosts beside the station ({hosts})")
    parser.add_argument("--rate", type=int, default=100, metavar="MBIT", help="rate of every port, each way (100)")
    parser.add_argument("--json", action="store_true", help="JSON on the last line instead of a table")


def need_root():
    if os.geteuid() != 0:
        sys.exit(f"{NAME}: needs root: it makes network namespaces and traffic shaping")


def print_results(options, bench, rows=lambda results: results):
    """Runs a bench and prints what it found: as JSON, or `rows` of it as a table."""
    need_root()
    try:
        results = bench(options)
    except BenchError as error:
        sys.exit(f"{NAME}: {error}")
    print(json.dumps({"results": results}) if options.json else table(rows(results)))


def table(results):
    keys = list(results[0])
    rows = [keys] + [["-" if row[key] is None else str(row[key]) for key in keys] for row in results]
    widths = [max(len(row[column]) for row in rows) for column in range(len(keys))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def write_payload(path, length, seed):
    """A tar archive of exactly `length` bytes, with one file of bytes that do not compress."""
    content = length - 512 - 1024
    header = bytearray(512)
    header[0:7] = b"payload"
    header[100:108], header[108:116], header[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    header[124:136], header[136:148] = b"%011o\0" % content, b"%011o\0" % 0
    header[148:156], header[156:157], header[257:265] = b" " * 8, b"0", b"ustar\x0000"
    header[148:156] = b"%06o\0 " % sum(header)
    generator = random.Random(seed)
    with open(path, "wb") as file:
        file.write(header)
        while content:
            part = min(content, 1 << 20)
            file.write(generator.randbytes(part))
            content -= part
        file.write(bytes(1024))


def write_payloads(directory, runs, mebibytes):
    """One payload for each run, each in a directory of its own: a seed of the peers shares its directory."""
    payloads = []
    for run in range(runs):
        place = os.path.join(directory, f"payload-{run}")
        os.makedirs(place)
        payloads.append(os.path.join(place, "payload.tar"))
        write_payload(payloads[-1], mebibytes << 20, run)
    return payloads
