"""tests/bench publish: how soon all members of a site have a payload of one byte.

Real nodes in the site lab. Each run signs a new version of a package with a payload of one byte (a
tar archive of one file), publishes it at headquarters, waits until every member holds the new
catalogue, and stages it at the station, which does not have it yet: its frame crosses the line and
goes on to every host. Three cases: the first payload after all nodes have started, when no two of them are connected
on the bulk plane; a later one, when neighbours are; and one with silent hosts, whose processes are stopped (SIGSTOP)
just before, so that their connections stand and nothing answers.

catalogue_seconds: from `publish` to the catalogue at the last member. seconds: from `packs stage`
to the last member that is not silent having the payload verified and synced. Medians over the
runs, and the worst.
"""

import argparse
import io
import json
import os
import selectors
import shutil
import signal
import statistics
import sys
import tarfile
import tempfile
import time

from nodes import Branchline, Call, ask
from site_lab import BenchError, CongestionControl, Site, say
from spread import table

PATIENCE = 60


def arguments():
    parser = argparse.ArgumentParser(prog="tests/bench publish", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=20, help="hosts beside the station (20)")
    parser.add_argument("--rate", type=int, default=100, metavar="MBIT", help="rate of every port (100)")
    parser.add_argument("--wan", default="20mbit", help="rate of the line (20mbit)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each case (5)")
    parser.add_argument("--silent", type=int, default=1, help="hosts that are silent in the third case (1)")
    parser.add_argument("--directory", default="/dev/shm", help="where the nodes' homes lie (/dev/shm)")
    parser.add_argument("--name", default="blpublish", help="name of the lab: a short word (blpublish)")
    parser.add_argument("--log", default="warn", help="RUST_LOG of the nodes (warn)")
    parser.add_argument("--keep", metavar="DIRECTORY", help="keep the nodes' logs there")
    parser.add_argument("--json", action="store_true", help="JSON on the last line instead of a table")
    return parser.parse_args()


def write_byte(path, number):
    """A tar archive of one file of one byte; each number makes another image."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo(f"payload-{number}")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"1"))


def wait_until(wanted, what):
    limit = time.monotonic() + PATIENCE
    while not wanted():
        if time.monotonic() > limit:
            raise BenchError(f"after {PATIENCE} s there is not yet {what}")
        time.sleep(0.002)


def one_run(nodes, number, silent):
    payload = nodes.path("", f"byte-{number}.tar")
    write_byte(payload, number)
    bundle = nodes.path("", "bundle")
    nodes.add_payload(bundle, number, payload)
    awake = [host for host in nodes.site.hosts if host not in silent]
    start = time.monotonic()
    ask(nodes.home("headquarters"), {"publish": {"directory": os.path.join(bundle, "catalogue")}})
    version = lambda machine: ask(nodes.home(machine), "status")["sites"][0]["catalogue_version"]
    behind = ["station", *nodes.site.hosts]
    while behind:
        wait_until(lambda: version(behind[0]) == len(nodes.packs), f"the catalogue at {behind[0]}")
        behind.pop(0)
    catalogue_seconds = time.monotonic() - start
    stopped = [process for process in nodes.processes if process.machine in silent]
    pack, selector = nodes.packs[-1], selectors.DefaultSelector()
    for host in awake:
        call = Call(nodes.home(host), {"packs": {"wait": pack}})
        selector.register(call.socket, selectors.EVENT_READ, call)
    time.sleep(1)
    for process in stopped:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        times = staged_times(nodes, pack, selector)
    finally:
        for process in stopped:
            os.kill(process.pid, signal.SIGCONT)
    return {"catalogue_seconds": catalogue_seconds, "seconds": times[-1], "p50_seconds": times[len(times) // 2]}


def staged_times(nodes, pack, selector):
    start = time.monotonic()
    command = {"packs": {"stage": {"pack": pack, "staging": "fetched", "here": False}}}
    staging = Call(nodes.home("station"), command)
    times = []
    while selector.get_map():
        for key, _ in selector.select(timeout=0.5):
            if key.data.take() is not None:
                times.append(time.monotonic() - start)
                selector.unregister(key.fileobj)
        nodes.must_run()
        if time.monotonic() - start > PATIENCE:
            raise BenchError(f"after {PATIENCE} s {len(times)} hosts have the payload")
    staging.socket.close()
    return times


def start_nodes(nodes):
    """Everybody runs, is known to the station, and has no work."""
    for machine in ("headquarters", "station"):
        nodes.run_node(machine)
    nodes.start_hosts()
    station = nodes.home("station")
    nodes.until(lambda: len(ask(station, "status")["neighbours"]) >= len(nodes.site.hosts) + 1, "all members")
    nodes.until(nodes.is_calm, "calm")


def bench(options, site, directory):
    nodes = Branchline(site, os.path.join(directory, "nodes"), os.environ["BRANCHLINE_BINARY"], options.log,
                       options.keep)
    first = os.path.join(directory, "payload.tar")
    write_byte(first, 0)
    cases = (("first after start", True, []), ("connected", False, []),
             (f"connected, {options.silent} silent", False, site.hosts[:options.silent]))
    results = []
    try:
        nodes.set_up([first])
        start_nodes(nodes)
        number = 1
        for case, restart, silent in cases:
            runs = []
            for run in range(options.runs):
                if restart and run > 0:
                    nodes.stop()
                    start_nodes(nodes)
                number += 1
                runs.append(one_run(nodes, number, silent))
                say(f"{case}: {runs[-1]}")
                time.sleep(3)
            medians = {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}
            results.append({"case": case, **medians, "worst_seconds": round(max(run["seconds"] for run in runs), 3)})
    finally:
        nodes.tear_down()
    return results


def main():
    options = arguments()
    if os.geteuid() != 0:
        sys.exit("publish: needs root: it makes network namespaces")
    directory = tempfile.mkdtemp(prefix="publish-", dir=options.directory)
    try:
        with CongestionControl("cubic"), Site(options.name, options.hosts, options.rate, False, options.wan) as site:
            results = bench(options, site, directory)
    except BenchError as error:
        sys.exit(f"publish: {error}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(json.dumps({"results": results}) if options.json else table(results))


if __name__ == "__main__":
    main()
