"""tests/bench publish: how soon all members of a site have a payload of one byte.

Real nodes in the site lab. Each run signs a new version of a package with a payload of one byte (a
tar archive of one file), publishes it at headquarters, waits until every member holds the new
catalogue, and stages it at the station, which does not have it yet: its frame crosses the line and
goes on to every host. Three cases: the first payload after all nodes have started, when no two of them are connected
on the bulk plane; a later one, when neighbours are; and one with silent hosts, whose processes are stopped (SIGSTOP)
just before, so that their connections stand and nothing answers.

catalogue_seconds: from `publish` to the catalogue at the last member. seconds: from `packs stage`
to the last member that is not silent having the payload verified and synced. published_seconds:
their sum, from publication to everybody having it. Medians over the runs, and the worst.
"""

import io
import os
import selectors
import signal
import statistics
import tarfile
import time

from common import BenchError, add_site_options, option_parser, print_results, say
from nodes import Branchline, Call, ask
from site_lab import shaped_site

# Seconds after which a payload of one byte has not been slow: it does not come.
PAYLOAD_SECONDS_MAX = 60


def arguments():
    parser = option_parser(__doc__)
    add_site_options(parser, hosts=20)
    parser.add_argument("--wan", default="20mbit", help="rate of the line (20mbit)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each case (5)")
    parser.add_argument("--silent", type=int, default=1, help="hosts that are silent in the third case (1)")
    options = parser.parse_args()
    if not 0 <= options.silent < options.hosts:
        parser.error(f"--silent {options.silent} of --hosts {options.hosts}: one host at least must be there to take the payload")
    return options


def write_byte(path, number):
    """A tar archive of one file of one byte; each number makes another image."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo(f"payload-{number}")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"1"))


def one_run(nodes, number, silent):
    payload = nodes.path("", f"byte-{number}.tar")
    write_byte(payload, number)
    bundle = nodes.path("", "bundle")
    nodes.add_payload(bundle, number, payload)
    awake = [host for host in nodes.site.hosts if host not in silent]
    start = time.monotonic()
    ask(nodes.home("headquarters"), {"publish": {"directory": os.path.join(bundle, "catalogue")}})
    for machine in ["station", *nodes.site.hosts]:
        nodes.until(lambda: nodes.catalogue_is_at(machine), f"the catalogue at {machine}", pause_seconds=0.002)
    catalogue_seconds = time.monotonic() - start
    stopped = [process for process in nodes.processes if process.machine in silent]
    pack = nodes.packs[-1]
    selector = waiting_hosts(nodes, pack, awake)
    time.sleep(1)
    for process in stopped:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        times = staged_times(nodes, pack, selector)
    finally:
        for process in stopped:
            os.kill(process.pid, signal.SIGCONT)
    return {"catalogue_seconds": catalogue_seconds, "seconds": times[-1], "p50_seconds": times[len(times) // 2],
            "published_seconds": catalogue_seconds + times[-1]}


def waiting_hosts(nodes, pack, hosts):
    """Calls of these hosts that are answered once they have the pack."""
    selector = selectors.DefaultSelector()
    for host in hosts:
        call = Call(nodes.home(host), {"packs": {"wait": pack}})
        selector.register(call.socket, selectors.EVENT_READ, call)
    return selector


def staged_times(nodes, pack, selector, seconds_max=PAYLOAD_SECONDS_MAX):
    """Stages a pack and gives the seconds after which each of the waiting hosts has it; too long is an error."""
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
        if time.monotonic() - start > seconds_max:
            raise BenchError(f"after {seconds_max} s {len(times)} hosts have the payload")
    staging.socket.close()
    return times


def start_nodes(nodes):
    """Everybody runs, is known to the station, and has no work."""
    nodes.start_all()
    nodes.until(nodes.is_calm, "calm")


def bench(options):
    with shaped_site(options, options.hosts, options.rate, wan=options.wan) as (site, directory):
        return measure_cases(options, site, directory)


def measure_cases(options, site, directory):
    nodes = Branchline(site, os.path.join(directory, "nodes"), options)
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
            worst = lambda key: round(max(run[key] for run in runs), 3)
            results.append({"case": case, **medians, "worst_seconds": worst("seconds"),
                            "worst_published_seconds": worst("published_seconds")})
    finally:
        nodes.tear_down()
    return results


if __name__ == "__main__":
    print_results(arguments(), bench)
