"""tests/bench serve: what a node takes that serves many peers for a long time.

Real nodes in the site lab, in a site whose switch lets no host speak with another (port isolation, as access points and
provider edges have it), so that the station serves every host itself. A new version of a package is published and staged
again and again; every host fetches each from the station. The station's memory is read every two seconds, also while it
serves. It keeps every payload that it has served, and every host does: mind the room in --directory.

Prints, or with --json on the last line as {"results": [{"node", "peers", "peers_least", "minutes", "payloads", "served_bytes",
"core_percent", "rss_bytes_first_quarter", "rss_bytes_last_quarter", "anonymous_bytes_first_quarter",
"anonymous_bytes_last_quarter", "peak_bytes", "growth_bytes_per_hour"}]}: medians of the first and the last quarter of the
time, the most that was ever resident (VmHWM), and the slope of a line through all samples after the first quarter.
`peers` is the median of the bulk connections that stood at the end of a payload, `peers_least` the least.
"""

import os
import statistics
import subprocess
import threading
import time

from common import RUN_SECONDS_MAX, BenchError, add_site_options, option_parser, print_results, say, write_payload
from nodes import Branchline, ask
from publish import staged_times, waiting_hosts
from site_lab import processor_seconds, shaped_site

SAMPLE_SECONDS = 2


def arguments():
    parser = option_parser(__doc__)
    add_site_options(parser, hosts=50)
    parser.add_argument("--minutes", type=float, default=60, help="how long the station serves (60)")
    parser.add_argument("--every", type=float, default=60, metavar="SECONDS", help="between two payloads, at least (60)")
    parser.add_argument("--size", type=int, default=4, metavar="MIB", help="length of each payload (4)")
    return parser.parse_args()


def isolate_hosts(site):
    for host in site.hosts:
        command = ["bridge", "-n", f"{site.name}-switch", "link", "set", "dev", f"port-{host}", "isolated", "on"]
        subprocess.run(command, check=True)


class Sampler(threading.Thread):
    """Reads a process's memory until it is told to stop."""

    def __init__(self, process):
        super().__init__(daemon=True)
        self.process, self.samples, self.over = process, [], threading.Event()

    def run(self):
        while not self.over.wait(SAMPLE_SECONDS):
            self.samples.append((time.monotonic(), self.process.memory_bytes(), self.process.memory_bytes("RssAnon")))


def serve(nodes, number, size_mebibytes):
    """One payload from its publication to every host having it."""
    payload = nodes.path("", f"served-{number}.tar")
    write_payload(payload, size_mebibytes << 20, number)
    bundle = nodes.path("", "bundle")
    nodes.add_payload(bundle, number, payload)
    os.remove(payload)
    ask(nodes.home("headquarters"), {"publish": {"directory": os.path.join(bundle, "catalogue")}})
    nodes.until(nodes.catalogue_is_everywhere, f"catalogue {number} at every host")
    pack = nodes.packs[-1]
    staged_times(nodes, pack, waiting_hosts(nodes, pack, nodes.site.hosts), RUN_SECONDS_MAX)


def measure(options, nodes):
    station = next(process for process in nodes.processes if process.machine == "station")
    port = int(ask(nodes.home("station"), "status")["addresses"]["bulk"].rpartition(":")[2])
    seconds = 60 * options.minutes
    sampler, peers, number = Sampler(station), [], 1
    begin, used, sent = time.monotonic(), used_seconds(station), nodes.site.sent_bytes("station")
    sampler.start()
    while time.monotonic() < begin + seconds:
        began = time.monotonic()
        number += 1
        serve(nodes, number, options.size)
        peers.append(station.connections(port))
        if number % 5 == 0:
            say(f"after {(time.monotonic() - begin) / 60:.0f} min: {number - 1} payloads, "
                f"{station.memory_bytes() >> 20} MiB resident, {peers[-1]} connections")
        time.sleep(max(0, min(began + options.every, begin + seconds) - time.monotonic()))
    sampler.over.set()
    sampler.join()
    took = time.monotonic() - begin
    return {
        "node": "station", "peers": statistics.median(peers), "peers_least": min(peers), "minutes": round(took / 60, 1), "payloads": number - 1,
        "served_bytes": nodes.site.sent_bytes("station") - sent,
        "core_percent": round(100 * (used_seconds(station) - used) / took, 2),
        **memory_of(sampler.samples, begin, took), "peak_bytes": station.memory_bytes("VmHWM"),
    }


def used_seconds(process):
    with open(f"/proc/{process.pid}/stat", encoding="utf-8") as file:
        return processor_seconds(file.read())


def memory_of(samples, begin, took):
    quarter = lambda first, last, column: int(statistics.median(
        sample[column] for sample in samples if first <= (sample[0] - begin) / took <= last))
    later = [sample for sample in samples if (sample[0] - begin) / took > 0.25]
    slope = statistics.linear_regression([at for at, _, _ in later], [resident for _, resident, _ in later]).slope
    return {
        "rss_bytes_first_quarter": quarter(0, 0.25, 1), "rss_bytes_last_quarter": quarter(0.75, 1, 1),
        "anonymous_bytes_first_quarter": quarter(0, 0.25, 2), "anonymous_bytes_last_quarter": quarter(0.75, 1, 2),
        "growth_bytes_per_hour": int(slope * 3600),
    }


def bench(options):
    if options.minutes * 60 < 8 * SAMPLE_SECONDS:
        raise BenchError(f"--minutes {options.minutes}: too short for eight samples")
    with shaped_site(options, options.hosts, options.rate) as (site, directory):
        isolate_hosts(site)
        nodes = Branchline(site, os.path.join(directory, "nodes"), options)
        first = os.path.join(directory, "payload.tar")
        write_payload(first, options.size << 20, 1)
        try:
            nodes.set_up([first])
            nodes.start_all()
            nodes.until(nodes.is_calm, "calm")
            return [measure(options, nodes)]
        finally:
            nodes.tear_down()


if __name__ == "__main__":
    print_results(arguments(), bench)
