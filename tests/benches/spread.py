"""tests/bench spread: one seed to N hosts of a shaped site, Branchline beside its peers, in one run.

Every tool writes to the same file system and uses the same congestion control; discovery and
joining are done before the clock starts; every result is compared byte for byte; a tool that does
not finish is an error. The runs of the tools alternate; the figures are medians over the runs.

bound = (F/u)(1 + floor(log2 N)/M), F the file, M its pieces of 1 MiB, u = 0.956 of the shaped rate:
the TCP goodput of one link of the lab (Mundinger, Weber, Weiss 2008). machine_busy is the part of this
machine's processors that was busy while the clock ran, others_busy what of it neither seed, hosts nor
headquarters used (the kernel's work for packets included). With --unequal, half of the
hosts have a fifth of the rate, and the bound is the fluid minimum (Kumar, Ross 2006).
"""

import argparse
import filecmp
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time

from nodes import Branchline
from site_lab import BenchError, CongestionControl, NeighbourTable, Site, machine_seconds, say
from tools import Aria2, Http, Libtorrent

GOODPUT = 0.956
PATIENCE = 1200
# What the kernel does for packets belongs to no process, and the bench itself works a little.
OTHERS_BUSY = 0.25
KEYS = ["tool", "makespan_seconds", "p50_seconds", "bound_seconds", "ratio", "seed_upload_over_file",
        "cpu_seconds_per_gb", "wan_ratio"]


def arguments():
    parser = argparse.ArgumentParser(prog="tests/bench spread", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=20, help="hosts beside the seed (20)")
    parser.add_argument("--rate", type=int, default=100, metavar="MBIT", help="rate of every port, each way (100)")
    parser.add_argument("--size", type=int, default=64, metavar="MIB", help="length of the file (64)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each tool (3)")
    parser.add_argument("--tools", default="branchline,aria2,libtorrent,http", help="which, with commas between")
    parser.add_argument("--unequal", action="store_true", help="half of the hosts at a fifth of the rate")
    parser.add_argument("--congestion-control", default="cubic", help="for all tools alike (cubic)")
    parser.add_argument("--directory", default="/dev/shm", help="file system that every tool writes to (/dev/shm)")
    parser.add_argument("--name", default="blbench", help="name of the lab: a short word (blbench)")
    parser.add_argument("--log", default="warn", help="RUST_LOG of the nodes (warn)")
    parser.add_argument("--keep", metavar="DIRECTORY", help="keep the nodes' logs there")
    parser.add_argument("--json", action="store_true", help="JSON on the last line instead of a table")
    return parser.parse_args()


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


def bounds(options):
    """Seconds for all hosts, and for the fast half by itself."""
    goodput = options.rate * 1e6 * GOODPUT / 8
    length, pieces = options.size << 20, options.size
    equal = lambda hosts: length / goodput * (1 + (hosts.bit_length() - 1) / pieces)
    if not options.unequal:
        return equal(options.hosts), None
    fast = options.hosts // 2
    slow = options.hosts - fast
    total = goodput * (1 + fast + slow / 5)
    return max(length / (goodput / 5), length / goodput, options.hosts * length / total), equal(fast)


def measure(options, site, tool, run, payload):
    """One run of one tool."""
    tool.prepare(run, payload)
    tool.must_run()
    processor, sent = site.processor_seconds(), site.sent_bytes("station")
    machine = machine_seconds()
    start = time.time()
    tool.go()
    done = {}
    while len(done) < len(site.hosts):
        time.sleep(0.01)
        done = tool.finished()
        if time.time() - start > PATIENCE:
            raise BenchError(f"{tool.name}: {len(done)} of {len(site.hosts)} hosts are done after {PATIENCE} s")
        if int(time.time()) % 5 == 0:
            tool.must_run()
    busy, total = (after - before for after, before in zip(machine_seconds(), machine))
    processor, sent = site.processor_seconds() - processor, site.sent_bytes("station") - sent
    wan_ratio = tool.wan_ratio()
    for host in site.hosts:
        if not filecmp.cmp(payload, tool.result(host), shallow=False):
            raise BenchError(f"{tool.name}: what {host} has is not the file")
    tool.end()
    times = sorted(moment - start for moment in done.values())
    length, (bound, fast_bound) = options.size << 20, bounds(options)
    figures = {
        "makespan_seconds": times[-1], "p50_seconds": times[len(times) // 2], "bound_seconds": bound,
        "ratio": times[-1] / bound, "seed_upload_over_file": sent / length,
        "cpu_seconds_per_gb": processor / (len(site.hosts) * length / 1e9), "wan_ratio": wan_ratio,
        "machine_busy": busy / total, "others_busy": (busy - processor) / total,
    }
    if figures["others_busy"] > OTHERS_BUSY:
        say(f"{figures['others_busy']:.0%} of the processors went to something else than the nodes: this machine is not "
            "alone, and the figures of this run are worth little")
    if fast_bound:
        fast = max(moment - start for host, moment in done.items() if host not in site.slow)
        figures |= {"fast_makespan_seconds": fast, "fast_bound_seconds": fast_bound, "fast_ratio": fast / fast_bound}
    return figures


def medians(runs):
    middle = {}
    for key in runs[0]:
        values = [run[key] for run in runs]
        middle[key] = None if None in values else round(statistics.median(values), 4)
    return middle


def table(results):
    keys = list(results[0])
    rows = [keys] + [["-" if row[key] is None else str(row[key]) for key in keys] for row in results]
    widths = [max(len(row[column]) for row in rows) for column in range(len(keys))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def make_tools(options, site, directory):
    program = os.environ["BRANCHLINE_BINARY"]
    makers = {
        "branchline": lambda: Branchline(site, os.path.join(directory, "branchline"), program, options.log,
                                         options.keep),
        "aria2": lambda: Aria2(site, os.path.join(directory, "aria2")),
        "libtorrent": lambda: Libtorrent(site, os.path.join(directory, "libtorrent")),
        "http": lambda: Http(site, os.path.join(directory, "http")),
    }
    names = options.tools.split(",")
    unknown = [name for name in names if name not in makers]
    if unknown:
        raise BenchError(f"there is no tool {', '.join(unknown)}; there are {', '.join(makers)}")
    return [makers[name]() for name in names]


def bench(options):
    results = {}
    directory = tempfile.mkdtemp(prefix="spread-", dir=options.directory)
    with CongestionControl(options.congestion_control):
        try:
            with NeighbourTable(options.hosts), Site(options.name, options.hosts, options.rate, options.unequal) as site:
                found = site.facts["congestion_control"]
                if found != options.congestion_control:
                    raise BenchError(f"the namespaces use {found}, not {options.congestion_control}")
                tools = make_tools(options, site, directory)
                try:
                    run_all(options, site, tools, directory, results)
                finally:
                    for tool in tools:
                        tool.tear_down()
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    return [{"tool": name, **medians(runs)} for name, runs in results.items()]


def run_all(options, site, tools, directory, results):
    payloads = []
    for run in range(options.runs):
        os.makedirs(os.path.join(directory, f"payload-{run}"))
        payloads.append(os.path.join(directory, f"payload-{run}/payload.tar"))
        write_payload(payloads[-1], options.size << 20, run)
    for tool in tools:
        tool.set_up(payloads)
    for run, payload in enumerate(payloads):
        for tool in tools:
            try:
                figures = measure(options, site, tool, run, payload)
            finally:
                tool.end()
            results.setdefault(tool.name, []).append(figures)
            say(f"run {run + 1} of {options.runs}, {tool.name}: {figures['makespan_seconds']:.2f} s, "
                f"{figures['ratio']:.3f} of the bound; the seed sent {figures['seed_upload_over_file']:.2f} times the "
                f"file; {figures['cpu_seconds_per_gb']:.2f} CPU-s/GB; processors {figures['machine_busy']:.0%} busy")


def main():
    options = arguments()
    if os.geteuid() != 0:
        sys.exit("spread: needs root: it makes network namespaces and traffic shaping")
    try:
        results = bench(options)
    except BenchError as error:
        sys.exit(f"spread: {error}")
    say(f"{options.hosts} hosts at {options.rate} Mbit/s, {options.size} MiB, {options.congestion_control}, "
        f"medians of {options.runs}")
    print(json.dumps({"results": results}) if options.json else table(results))


if __name__ == "__main__":
    main()
