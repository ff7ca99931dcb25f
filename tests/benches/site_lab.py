"""The site lab as the benches use it: its namespaces, processes in them, counters and rates."""

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import tempfile
import time

from common import NAME, BenchError

HERE = os.path.dirname(os.path.abspath(__file__))
LAB = os.path.join(HERE, "../lab/lab")
TICKS = os.sysconf("SC_CLK_TCK")
ALLOWED = "/proc/sys/net/ipv4/tcp_allowed_congestion_control"
CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


class CongestionControl:
    """Lets namespaces choose the congestion control while the bench runs; then all is as before."""

    def __init__(self, name):
        with open(ALLOWED, encoding="ascii") as file:
            self.before = file.read().split()
        self.name = name

    def __enter__(self):
        if self.name not in self.before:
            self.write(self.before + [self.name])

    def __exit__(self, *_why):
        self.write(self.before)

    def write(self, names):
        try:
            with open(ALLOWED, "w", encoding="ascii") as file:
                file.write(" ".join(names))
        except OSError as error:
            raise BenchError(f"the kernel does not let a namespace use {self.name}: {error}") from error


class NeighbourTable:
    """Room for every pair that talks: the kernel's table of link addresses is one for all namespaces, 1024 by default."""

    paths = [f"/proc/sys/net/ipv4/neigh/default/gc_thresh{number}" for number in (1, 2, 3)]

    def __init__(self, hosts):
        self.entries = 1024 + 64 * hosts
        self.before = []

    def __enter__(self):
        for path in reversed(self.paths):
            with open(path, encoding="ascii") as file:
                self.before.append((path, int(file.read())))
        for path, entries in self.before:
            self.write(path, max(entries, self.entries))

    def __exit__(self, *_why):
        for path, entries in reversed(self.before):
            self.write(path, entries)

    @staticmethod
    def write(path, entries):
        try:
            with open(path, "w", encoding="ascii") as file:
                file.write(str(entries))
        except OSError as error:
            raise BenchError(f"the kernel's neighbour table cannot be made larger ({path}): {error}") from error


def processor_seconds(stat):
    """Seconds of one /proc/PID/stat, with those of children that have ended."""
    return sum(int(field) for field in stat.rpartition(")")[2].split()[11:15]) / TICKS


def machine_seconds():
    """Processor seconds of this machine so far: (busy, all)."""
    with open("/proc/stat", encoding="ascii") as file:
        fields = [int(field) / TICKS for field in file.readline().split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)


class Process:
    """A tool's process in a machine of the lab."""

    def __init__(self, site, machine, command, log, env=None, stdin=False):
        with open(log, "ab") as output:
            self.popen = subprocess.Popen(
                site.enter(machine) + command, stdout=output, stderr=output,
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL, env=env and dict(os.environ, **env))
        self.pid = self.popen.pid
        self.name = f"{os.path.basename(command[0])} on {machine}"
        self.log = log

    def ended(self):
        return self.popen.poll() is not None

    def connections(self, port):
        """Established TCP connections of the machine's network from or to a port."""
        with open(f"/proc/{self.pid}/net/tcp", encoding="ascii") as file:
            rows = [line.split() for line in file.readlines()[1:]]
        ends = lambda row: {int(end.rpartition(":")[2], 16) for end in row[1:3]}
        return sum(1 for row in rows if row[3] == "01" and port in ends(row))

    def memory_bytes(self, what="VmRSS"):
        with open(f"/proc/{self.pid}/status", encoding="ascii") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith(what))

    def must_run(self):
        if self.ended():
            with open(self.log, encoding="utf-8", errors="replace") as file:
                tail = "".join(file.readlines()[-12:])
            raise BenchError(f"{self.name} has ended with {self.popen.returncode}:\n{tail}")

    def end(self):
        for kind, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
            if self.ended():
                return
            os.kill(self.pid, kind)
            until = time.monotonic() + patience
            while not self.ended() and time.monotonic() < until:
                time.sleep(0.02)


class Site:
    """A seed (the lab's station) and N hosts on one switch, every port shaped both ways."""

    def __init__(self, name, hosts, rate, slow_half, wan="1gbit"):
        self.name, self.rate, self.wan = name, rate, wan
        self.hosts = [f"host{number}" for number in range(1, hosts + 1)]
        self.slow = set(self.hosts[hosts // 2:]) if slow_half else set()
        self.rates = {host: rate / 5 if host in self.slow else rate for host in self.hosts}

    def lab(self, *words):
        environment = dict(os.environ, BRANCHLINE_LAB_ID=self.name)
        done = subprocess.run([LAB, *words], env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BenchError(f"lab {' '.join(words)}: {done.stderr}{done.stdout}")
        return done.stdout

    def __enter__(self):
        self.lab("down")
        self.lab("up", "--hosts", str(len(self.hosts)), "--lan", f"{self.rate}mbit", "--wan", self.wan)
        self.facts = json.loads(self.lab("facts"))
        for host in sorted(self.slow):
            for space, device in ((host, "eth0"), ("switch", f"port-{host}")):
                subprocess.run(
                    ["tc", "-n", f"{self.name}-{space}", "class", "change", "dev", device, "parent", "1:", "classid",
                     "1:1", "htb", "rate", f"{int(self.rates[host] * 1000)}kbit", "burst", "64kb", "cburst", "64kb"],
                    check=True)
        return self

    def __exit__(self, *_why):
        self.lab("down")

    def enter(self, machine):
        return ["nsenter", f"--net=/run/netns/{self.name}-{machine}", "--"]

    def address(self, machine):
        return self.lab("address", machine).strip()

    def sent_bytes(self, machine):
        """What left the machine's port, headers included."""
        return json.loads(self.lab("counters"))["machines"][machine]["sent_bytes"]

    def processor_seconds(self):
        """What everything in the namespaces of the seed, the hosts and headquarters has used so far."""
        machines = ["station", "headquarters", *self.hosts]
        spaces = {os.stat(f"/run/netns/{self.name}-{machine}").st_ino for machine in machines}
        total = 0
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.stat(f"/proc/{pid}/ns/net").st_ino in spaces:
                    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
                        total += processor_seconds(file.read())
            except OSError:
                continue  # It has ended meanwhile; its parent has its time.
        return total

    def connect(self, machine, address, port):
        """A TCP connection made inside a machine's network; it stays there."""
        with open("/proc/thread-self/ns/net", "rb") as own, open(f"/run/netns/{self.name}-{machine}", "rb") as other:
            if LIBC.setns(other.fileno(), CLONE_NEWNET) != 0:
                raise BenchError(f"cannot enter the network of {machine}: {os.strerror(ctypes.get_errno())}")
            try:
                return socket.create_connection((address, port), timeout=30)
            finally:
                LIBC.setns(own.fileno(), CLONE_NEWNET)


@contextlib.contextmanager
def shaped_site(options, hosts, rate, slow_half=False, wan="1gbit"):
    """A site as the options say, with room for all who talk in it, and a directory that goes with it."""
    with tempfile.TemporaryDirectory(prefix=f"{NAME}-", dir=options.directory, ignore_cleanup_errors=True) as directory, \
            CongestionControl(options.congestion_control), NeighbourTable(hosts), \
            Site(options.name, hosts, rate, slow_half, wan) as site:
        found = site.facts["congestion_control"]
        if found != options.congestion_control:
            raise BenchError(f"the namespaces use {found}, not {options.congestion_control}")
        yield site, directory
