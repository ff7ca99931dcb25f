"""tests/bench idle: what nodes of a site cost that have nothing to do.

Real nodes in the site lab, joined, surveyed; all hosts ask for one pack at once, and when everybody
holds it nothing happens for a while. Prints resident memory at begin and end (and how much of it
is anonymous: not the program's text), connections on both planes and the processor time, or JSON on
the last line: {"results": [{"node", "rss_bytes_begin", "rss_bytes_end", "anonymous_bytes",
"peak_bytes", "core_percent", "threads", "control_connections", "bulk_connections"}]}. Of more than
eight hosts the table shows the median and the worst of each column.
"""

import os
import statistics
import time

from common import add_site_options, option_parser, print_results, say, write_payloads
from nodes import Branchline, ask
from site_lab import processor_seconds, shaped_site


def arguments():
    parser = option_parser(__doc__)
    add_site_options(parser, hosts=4)
    parser.add_argument("--size", type=int, default=16, metavar="MIB", help="length of the pack that each holds (16)")
    parser.add_argument("--seconds", type=int, default=60, help="how long nothing happens (60)")
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
    hosts = [row for row in results if row["node"].startswith("host")]
    if len(hosts) <= 8:
        return results
    rows = [row for row in results if row not in hosts]
    for name, pick in (("median host", statistics.median), ("worst host", max)):
        rows.append({"node": name, **{key: pick([row[key] for row in hosts]) for key in hosts[0] if key != "node"}})
    return rows


def bench(options):
    with shaped_site(options, options.hosts, options.rate) as (site, directory):
        nodes = Branchline(site, os.path.join(directory, "nodes"), options)
        payloads = write_payloads(directory, 1, options.size)
        try:
            nodes.set_up(payloads)
            nodes.prepare(0, payloads[0])
            start = time.monotonic()
            nodes.go()
            nodes.until(lambda: len(nodes.finished()) == options.hosts, "the pack at every host", pause_seconds=0.1)
            say(f"all {options.hosts} hosts asked at once and have the pack after {time.monotonic() - start:.1f} s")
            nodes.until(nodes.is_calm, "calm")
            say("all is calm; measuring")
            return measure(options, nodes)
        finally:
            nodes.tear_down()


if __name__ == "__main__":
    print_results(arguments(), bench, summary)
