"""tests/bench idle: what nodes of a site cost that have nothing to do.

Real nodes in the site lab, joined, surveyed; all hosts ask for one pack at once, and when everybody
holds it nothing happens for a while. Prints resident memory at begin and end (and how much of it
is anonymous: not the program's text), connections on both planes and the processor time, or JSON on
the last line: {"results": [{"node", "rss_bytes_begin", "rss_bytes_end", "anonymous_bytes",
"peak_bytes", "core_percent", "threads", "control_connections", "bulk_connections"}]}. Of more than
eight hosts the table shows the median and the worst of each column.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time

from nodes import Branchline, ask
from site_lab import BenchError, CongestionControl, NeighbourTable, Site, processor_seconds, say
from spread import table, write_payload


def arguments():
    parser = argparse.ArgumentParser(prog="tests/bench idle", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=4, help="hosts beside the station (4)")
    parser.add_argument("--size", type=int, default=16, metavar="MIB", help="length of the pack that each holds (16)")
    parser.add_argument("--rate", type=int, default=100, metavar="MBIT", help="rate of every port (100)")
    parser.add_argument("--seconds", type=int, default=60, help="how long nothing happens (60)")
    parser.add_argument("--directory", default="/dev/shm", help="where the nodes' homes lie (/dev/shm)")
    parser.add_argument("--name", default="blidle", help="name of the lab: a short word (blidle)")
    parser.add_argument("--json", action="store_true", help="JSON on the last line instead of a table")
    return parser.parse_args()


def sample(process):
    with open(f"/proc/{process.pid}/stat", encoding="utf-8") as file:
        return time.monotonic(), processor_seconds(file.read()), process.memory_bytes()


def threads(process):
    return len(os.listdir(f"/proc/{process.pid}/task"))


def measure(options, nodes):
    before = {process.machine: sample(process) for process in nodes.processes}
    time.sleep(options.seconds)
    results = []
    for process in nodes.processes:
        (begin, used, resident), (end, used_then, resident_then) = before[process.machine], sample(process)
        addresses = ask(nodes.home(process.machine), "status")["addresses"]
        port = lambda plane: int(addresses[plane].rpartition(":")[2])
        results.append({
            "node": process.machine, "rss_bytes_begin": resident, "rss_bytes_end": resident_then,
            "anonymous_bytes": process.memory_bytes("RssAnon"), "peak_bytes": process.memory_bytes("VmHWM"),
            "core_percent": round(100 * (used_then - used) / (end - begin), 3), "threads": threads(process),
            "control_connections": process.connections(port("control")),
            "bulk_connections": process.connections(port("bulk")),
        })
    return results


def summary(results):
    """Rows for people: of many hosts the median and the worst."""
    hosts = [row for row in results if row["node"].startswith("host") and row["node"] != "headquarters"]
    if len(hosts) <= 8:
        return results
    rows = [row for row in results if row not in hosts]
    for name, pick in (("median host", statistics.median), ("worst host", max)):
        rows.append({"node": name, **{key: pick([row[key] for row in hosts]) for key in hosts[0] if key != "node"}})
    return rows


def bench(options):
    directory = tempfile.mkdtemp(prefix="idle-", dir=options.directory)
    try:
        with CongestionControl("cubic"), NeighbourTable(options.hosts), \
                Site(options.name, options.hosts, options.rate, False) as site:
            nodes = Branchline(site, os.path.join(directory, "nodes"), os.environ["BRANCHLINE_BINARY"], "warn", None)
            payload = os.path.join(directory, "payload.tar")
            write_payload(payload, options.size << 20, 1)
            try:
                nodes.set_up([payload])
                nodes.prepare(0, payload)
                start = time.monotonic()
                nodes.go()
                while len(nodes.finished()) < options.hosts:
                    time.sleep(0.1)
                say(f"all {options.hosts} hosts asked at once and have the pack after {time.monotonic() - start:.1f} s")
                nodes.until(nodes.is_calm, "calm")
                say("all is calm; measuring")
                return measure(options, nodes)
            finally:
                nodes.tear_down()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def main():
    options = arguments()
    if os.geteuid() != 0:
        sys.exit("idle: needs root: it makes network namespaces")
    try:
        results = bench(options)
    except BenchError as error:
        sys.exit(f"idle: {error}")
    print(json.dumps({"results": results}) if options.json else table(summary(results)))


if __name__ == "__main__":
    main()
