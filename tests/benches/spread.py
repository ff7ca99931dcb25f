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

import filecmp
import os
import statistics
import time

from common import (GOODPUT, RUN_SECONDS_MAX, BenchError, add_site_options, option_parser, print_results, say,
                    write_payloads)
from nodes import Branchline
from site_lab import machine_seconds, shaped_site
from tools import Aria2, Http, Libtorrent

# What the kernel does for packets belongs to no process, and the bench itself works a little.
OTHERS_BUSY = 0.25


def arguments():
    parser = option_parser(__doc__)
    add_site_options(parser, hosts=20)
    parser.add_argument("--size", type=int, default=64, metavar="MIB", help="length of the file (64)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each tool (3)")
    parser.add_argument("--tools", default="branchline,aria2,libtorrent,http", help="which, with commas between")
    parser.add_argument("--unequal", action="store_true", help="half of the hosts at a fifth of the rate")
    return parser.parse_args()


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
        if time.time() - start > RUN_SECONDS_MAX:
            raise BenchError(f"{tool.name}: {len(done)} of {len(site.hosts)} hosts are done after {RUN_SECONDS_MAX} s")
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


def make_tools(options, site, directory):
    makers = {
        "branchline": lambda: Branchline(site, os.path.join(directory, "branchline"), options),
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
    with shaped_site(options, options.hosts, options.rate, options.unequal) as (site, directory):
        tools = make_tools(options, site, directory)
        try:
            run_all(options, site, tools, directory, results)
        finally:
            for tool in tools:
                tool.tear_down()
    say(f"{options.hosts} hosts at {options.rate} Mbit/s, {options.size} MiB, {options.congestion_control}, "
        f"medians of {options.runs}")
    return [{"tool": name, **medians(runs)} for name, runs in results.items()]


def run_all(options, site, tools, directory, results):
    payloads = write_payloads(directory, options.runs, options.size)
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


if __name__ == "__main__":
    print_results(arguments(), bench)
