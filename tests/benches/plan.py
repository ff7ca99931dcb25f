"""tests/bench plan: what the simulator predicts, beside what the site lab does.

Each configuration is a site of real nodes in the lab: headquarters behind a shaped line, a station, N
hosts. The clock runs from `packs stage` until the last host has the pack, verified and synced. The
same site is written as a scenario, and `branchline simulate` says how long it takes and how many
bytes cross which network, frame by frame.

Two configurations calibrate: what the line carries of its shaped rate is fitted to the makespan of
one that its line limits, what a port carries to one that its ports limit. Nothing else is fitted; all
other configurations are predictions.

Results are kept in --results, so that configurations can be measured one at a time (--only) and the
table be made of all of them (--table). It exits with 1 where a prediction is further from the lab than
10 % of the makespan or 2 % of the bytes.
"""

import dataclasses
import filecmp
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from common import GOODPUT, RUN_SECONDS_MAX, BenchError, need_root, option_parser, say, write_payloads
from nodes import Branchline, ask
from site_lab import shaped_site

# Between these the share of a shaped rate is looked for that makes the simulation agree with the lab.
SHARES = (0.3, 1.0)
LINE, PORT = "line", "port"
# How far a prediction may be from the lab, and of which figures.
GOALS = {"makespan_seconds": 0.10, "wan_bytes": 0.02, "lan_bytes": 0.02}


@dataclasses.dataclass(frozen=True)
class Configuration:
    """A site: rates in Mbit/s, the payload in MiB, whether the station holds it from the start.

    Frames are 64 KiB long, as the catalogue makes them of payloads below 512 MiB, and 128 KiB from there on.
    """

    name: str
    hosts: int
    wan: int
    lan: int
    size: int
    prestaged: bool
    unequal: bool = False
    killed_seconds: float | None = None
    calibrates: str | None = None


CONFIGURATIONS = [
    Configuration("thin-line", 8, 20, 100, 64, False, calibrates=LINE),
    Configuration("ports", 16, 100, 50, 64, True, calibrates=PORT),
    Configuration("faster-line", 12, 50, 100, 64, False),
    Configuration("many-hosts", 24, 100, 50, 32, True),
    Configuration("forty-hosts", 40, 100, 20, 32, True),
    Configuration("long-chunks", 8, 100, 100, 512, True),
    Configuration("thinnest-line", 10, 10, 50, 24, False),
    Configuration("slow-half", 12, 100, 100, 64, True, unequal=True),
    Configuration("killed-host", 10, 30, 50, 64, False, killed_seconds=8.0),
]


def arguments():
    names = ", ".join(configuration.name for configuration in CONFIGURATIONS)
    parser = option_parser(__doc__)
    parser.add_argument("--only", default="", metavar="NAMES", help=f"with commas between: {names} (all)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each configuration (3)")
    parser.add_argument("--results", default="plan-results.json", metavar="FILE", help="where measurements are kept")
    parser.add_argument("--table", action="store_true", help="measure nothing; predict, and print the table")
    parser.add_argument("--slots", choices=("nodes", "link"), default="nodes",
                        help="what the simulator's machines take: as nodes do, or as their links allow (nodes)")
    return parser.parse_args()


class Nodes(Branchline):
    """Real nodes whose station need not hold the pack, and one of which may be killed."""

    def __init__(self, site, directory, options, configuration):
        super().__init__(site, directory, options)
        self.configuration = configuration

    def fill_station(self):
        if self.configuration.prestaged:
            super().fill_station()

    def kill(self, machine):
        """Pulls a node's plug; it is expected no more."""
        process = next(process for process in self.processes if process.machine == machine)
        os.kill(process.pid, signal.SIGKILL)
        process.popen.wait()
        self.processes.remove(process)

    def lost(self, machine):
        """Waits for this host no more."""
        keys = [key for key in self.selector.get_map().values() if key.data[0] == machine]
        for key in keys:
            self.selector.unregister(key.fileobj)

    def line_bytes(self):
        """Frame bytes of this pack that headquarters sent."""
        records = ask(self.home("headquarters"), "transfers")["origin"]
        return sum(record["meter"]["bytes"] for record in records if record["pack"] == self.pack)

    def received(self, machines):
        """Frame bytes that these nodes got inside the site."""
        answers = (ask(self.home(machine), "transfers")["transfers"] for machine in machines)
        return sum(answer["received_lan"]["bytes"] for answer in answers)


def measure(configuration, site, nodes, payload):
    """One run: makespan, and bytes by the networks they crossed."""
    nodes.prepare(0, payload)
    nodes.must_run()
    machines = ["station", *site.hosts]
    sent_before = nodes.line_bytes()
    before = {machine: nodes.received([machine]) for machine in machines}
    start, expected, killed, killed_bytes = time.time(), list(site.hosts), None, 0
    nodes.go()
    done = {}
    while not all(host in done for host in expected):
        time.sleep(0.01)
        done = nodes.finished()
        passed = time.time() - start
        if configuration.killed_seconds and not killed and passed > configuration.killed_seconds:
            killed = expected.pop()
            machines.remove(killed)
            killed_bytes = nodes.received([killed]) - before[killed]
            nodes.lost(killed)
            nodes.kill(killed)
        if passed > RUN_SECONDS_MAX:
            raise BenchError(
                f"{configuration.name}: {len(done)} of {len(expected)} hosts are done after {RUN_SECONDS_MAX} s")
    makespan = max(done[host] for host in expected) - start
    figures = {"makespan_seconds": makespan, "wan_bytes": nodes.line_bytes() - sent_before,
               "lan_bytes": killed_bytes + nodes.received(machines) - sum(before[machine] for machine in machines)}
    for host in expected:
        if not filecmp.cmp(payload, nodes.result(host), shallow=False):
            raise BenchError(f"{configuration.name}: what {host} has is not the file")
    nodes.end()
    return figures


def measure_all(one, options):
    """Medians over the runs, each in a site of its own: what nodes hold lies in memory."""
    runs = []
    for run in range(options.runs):
        with shaped_site(options, one.hosts, one.lan, one.unequal, f"{one.wan}mbit") as (site, directory):
            payloads = write_payloads(directory, 1, one.size)
            nodes = Nodes(site, os.path.join(directory, "branchline"), options, one)
            try:
                nodes.set_up(payloads)
                runs.append(measure(one, site, nodes, payloads[0]))
                say(f"{one.name}, run {run + 1}: {json.dumps(runs[-1])}")
            finally:
                nodes.tear_down()
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def scenario(configuration, shares):
    """The same site for the simulator; `shares` is what line and port carry of their shaped rates, and the slots."""
    wan, lan = (configuration.wan * 1e6 * shares[LINE], configuration.lan * 1e6 * shares[PORT])
    slow = "slow_share = 0.5\nslow_factor = 0.2\n" if configuration.unequal else ""
    killed = configuration.killed_seconds
    slow += f"hosts_fail = {{ count = 1, at_seconds = {killed} }}\n" if killed else ""
    return (f'seed = 1\nresolution = "chunk"\n[payload]\nsize_bytes = {configuration.size << 20}\n'
            f"[headquarters]\nuplink_bits_per_second = {wan:.0f}\n"
            f"[[sites]]\nhosts = {configuration.hosts}\nwan_bits_per_second = {wan:.0f}\n"
            f'lan_bits_per_second = {lan:.0f}\nslots = "{shares["slots"]}"\nprestaged = {str(configuration.prestaged).lower()}\n{slow}')


def simulate(configuration, shares):
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(scenario(configuration, shares))
        file.flush()
        command = [os.environ["BRANCHLINE_BINARY"], "simulate", file.name, "--json", "--no-lifts"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"simulating {configuration.name}: {done.stderr}")
    outcome = json.loads(done.stdout)
    return {"makespan_seconds": outcome["makespan_seconds"], "lan_bytes": outcome["bytes"]["lan"],
            "wan_bytes": outcome["bytes"]["headquarters"]}


def fit(configuration, measured, shares):
    """The share of its shaped rate at which the limiting part makes the simulation take as long as the lab did."""
    wanted = measured["makespan_seconds"]
    simulated = lambda share: simulate(configuration, shares | {configuration.calibrates: share})["makespan_seconds"]
    low, high = SHARES
    slowest, fastest = simulated(low), simulated(high)
    if not fastest <= wanted <= slowest:
        raise BenchError(f"{configuration.name} took {wanted:.2f} s in the lab, and the simulation takes {fastest:.2f} s to "
                         f"{slowest:.2f} s with {high:g} to {low:g} of the shaped rate: nothing can be fitted to it")
    for _ in range(14):
        middle = (low + high) / 2
        if simulated(middle) > wanted:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def calibrated(results, slots):
    """First what ports carry, then, with that, what the line does."""
    shares = {LINE: GOODPUT, PORT: GOODPUT, "slots": slots}
    for part in (PORT, LINE):
        configuration = next(one for one in CONFIGURATIONS if one.calibrates == part)
        if configuration.name not in results:
            raise BenchError(f"{configuration.name} calibrates and is not measured yet; --only {configuration.name}")
        shares[part] = fit(configuration, results[configuration.name], shares)
    return shares


def error(predicted, measured):
    """The share by which a prediction is off; None where nothing was predicted and nothing measured."""
    return None if measured == 0 and predicted == 0 else predicted / max(measured, 1) - 1


def print_table(results, slots):
    """The table; gives what is further off than the goals."""
    missed = []
    shares = calibrated(results, slots)
    print(f"A port carries {shares[PORT]:.3f} of its shaped rate, the line {shares[LINE]:.3f}: fitted to the two that calibrate.\n")
    print("| configuration | hosts | line | ports | payload | lab | simulated | makespan | line's bytes | LAN bytes |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for one in CONFIGURATIONS:
        if one.name not in results:
            continue
        measured, predicted = results[one.name], simulate(one, shares)
        kind = f"{one.name} (calibrates)" if one.calibrates else one.name
        line = "-" if one.prestaged else f"{one.wan} Mbit/s"
        seconds = f"{measured['makespan_seconds']:.2f} s | {predicted['makespan_seconds']:.2f} s"
        errors = {key: error(predicted[key], measured[key]) for key in GOALS}
        missed += [f"{one.name}: {key} is {off:+.1%} off, at most {GOALS[key]:.0%} may be"
                   for key, off in errors.items() if off is not None and abs(off) > GOALS[key]]
        shown = " | ".join("-" if off is None else f"{off * 100:+.1f} %" for off in errors.values())
        print(f"| {kind} | {one.hosts} | {line} | {one.lan} Mbit/s | {one.size} MiB | {seconds} | {shown} |")
    return missed


def load(path):
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def main():
    options = arguments()
    chosen = [name for name in options.only.split(",") if name]
    unknown = set(chosen) - {one.name for one in CONFIGURATIONS}
    if unknown:
        sys.exit(f"plan: there is no configuration {', '.join(sorted(unknown))}; --help lists them")
    if not options.table:
        need_root()
    try:
        for one in CONFIGURATIONS:
            if not options.table and (not chosen or one.name in chosen):
                results = load(options.results) | {one.name: measure_all(one, options)}
                with open(options.results, "w", encoding="utf-8") as file:
                    json.dump(results, file, indent=1)
        if options.table or not chosen:
            missed = print_table(load(options.results), options.slots)
            if missed:
                sys.exit("plan: " + "; ".join(missed))
    except BenchError as fault:
        sys.exit(f"plan: {fault}")


if __name__ == "__main__":
    main()
