"""Branchline in the benches: real nodes of one site, made with the commands of an operator.

Headquarters and the station stand from the start; every host joins with a token and runs
`branchline run`. Before the clock starts the station has the pack, fetched over the line, and the
members have made ready (`packs prepare`), as other tools hold a torrent. The clock runs from
`packs stage` at the station until the last host says that the pack is complete and synced.
"""

import concurrent.futures
import json
import os
import selectors
import shutil
import socket
import subprocess
import time

from common import BenchError, say
from site_lab import Process
from tools import Tool

DEFINITION = """name = "payload"
version = "{version}"
description = "what a bench moves"
architectures = ["all"]
format = "tar"
select = "false"

[[steps]]
action = {{ unpack = {{ prefix = "/opt/payload" }} }}
"""
# Seconds that a site may take to be ready for the next step.
READY_SECONDS_MAX = 240


class Call:
    """One question to a node by its control socket: a line of JSON each way."""

    def __init__(self, home, command):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(os.path.join(home, "control.sock"))
        self.buffer = b""
        self.socket.sendall(json.dumps(command).encode() + b"\n")

    def take(self):
        """Reads what is there; the answer once it is whole."""
        part = self.socket.recv(1 << 16)
        self.buffer += part
        if part and not self.buffer.endswith(b"\n"):
            return None
        answer = json.loads(self.buffer or b'{"failed": "the node ended"}')
        if "done" not in answer:
            raise BenchError(f"a node says: {answer.get('failed')}")
        self.socket.close()
        return answer["done"]


def ask(home, command):
    call = Call(home, command)
    while True:
        answer = call.take()
        if answer is not None:
            return answer


class Branchline(Tool):
    """Real nodes of one site."""

    name = "branchline"

    def __init__(self, site, directory, options):
        super().__init__(site, directory)
        self.program, self.level, self.logs = os.environ["BRANCHLINE_BINARY"], options.log, options.keep
        self.packs = []
        self.pack = None
        self.peak_memory = {}

    def home(self, machine):
        return self.path(machine, "home")

    def command(self, machine, *words):
        """Runs a command in a machine's network and gives what it printed."""
        line = self.site.enter(machine) + [self.program, *words]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BenchError(f"{machine}: branchline {' '.join(words)}: {done.stderr}{done.stdout}")
        return done.stdout

    def set_up(self, payloads):
        os.makedirs(self.directory)
        bundle = self.path("", "bundle")
        for machine in ("headquarters", "station"):
            self.make_root(machine)
            self.command(machine, "identity", "--home", self.home(machine), "--listen", self.site.address(machine),
                         "--out", self.path(machine, "seat"))
            self.configure(machine)
        self.command("headquarters", "init", "--bundle", bundle, "--site", "bench", "--prefix",
                     self.site.facts["inside_prefix"], "--station", self.path("station", "seat"), "--headquarters",
                     self.path("headquarters", "seat"), "--adopt", self.home("headquarters"), "--adopt",
                     self.home("station"))
        for number, payload in enumerate(payloads, 1):
            self.add_payload(bundle, number, payload)
        self.run_node("headquarters")
        self.run_node("station")
        token = self.until(lambda: self.command("station", "token", "--home", self.home("station"), "--uses",
                                                str(len(self.site.hosts))).strip(), "a join token")
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda host: self.join(host, token), self.site.hosts))
        ask(self.home("headquarters"), {"publish": {"directory": os.path.join(bundle, "catalogue")}})
        with open(os.path.join(bundle, "policy.json"), encoding="utf-8") as policy:
            ask(self.home("headquarters"), {"document": {"kind": "policy", "json": policy.read()}})
        # The first start surveys every machine; the runs that count begin with that done.
        self.start_hosts()
        self.until(self.catalogue_is_everywhere, "the catalogue at every host")
        self.until(self.is_calm, "surveys and plans of all hosts")
        self.stop()

    def make_root(self, machine):
        """A root of its own: two machines with one machine-id are a fault."""
        root = self.path(machine, "root/etc")
        os.makedirs(root)
        digits = f"{abs(hash((self.site.name, machine))):032x}"[:32]
        for name, text in (("machine-id", digits), ("hostname", machine),
                           ("os-release", 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="bench"')):
            with open(os.path.join(root, name), "w", encoding="ascii") as file:
                file.write(text + "\n")

    def configure(self, machine):
        os.makedirs(self.home(machine), exist_ok=True)
        with open(os.path.join(self.home(machine), "node.toml"), "w", encoding="ascii") as file:
            file.write(f'listen = "{self.site.address(machine)}"\nroot = "{self.path(machine, "root")}"\n')

    def add_payload(self, bundle, number, payload):
        definition = self.path("", f"payload-{number}.toml")
        with open(definition, "w", encoding="ascii") as file:
            file.write(DEFINITION.format(version=f"{number}.0"))
        said = self.command("headquarters", "catalogue", "add", "--bundle", bundle, "--package", definition,
                            "--payload", payload, "--patches-from", "0", "--json")
        self.packs.append(find_pack(json.loads(said)))

    def join(self, host, token):
        self.make_root(host)
        self.configure(host)
        self.command(host, "join", token, "--home", self.home(host), "--root", self.path(host, "root"))

    def run_node(self, machine):
        command = [self.program, "run", "--home", self.home(machine)]
        process = Process(self.site, machine, command, self.path(machine, "log"), {"BRANCHLINE_LOG": self.level})
        process.machine = machine
        self.processes.append(process)
        self.until(lambda: ask(self.home(machine), "status"), f"{machine} to answer")

    def start_hosts(self):
        for host in self.site.hosts:
            self.run_node(host)

    def start_all(self):
        """Headquarters, station and hosts run, and the station knows them all."""
        self.run_node("headquarters")
        self.run_node("station")
        self.start_hosts()
        station = self.home("station")
        self.until(lambda: len(ask(station, "status")["neighbours"]) >= len(self.site.hosts) + 1, "all members")

    def until(self, wanted, what, pause_seconds=0.2):
        """Tries until it gives something; a node that has ended, or too long a wait, is an error."""
        limit = time.monotonic() + READY_SECONDS_MAX
        while True:
            try:
                value, said = wanted(), "it is not so"
            except (BenchError, OSError) as error:
                value, said = None, str(error)
            if value:
                return value
            self.must_run()
            if time.monotonic() > limit:
                raise BenchError(f"after {READY_SECONDS_MAX} s there is not yet {what}: {said}")
            time.sleep(pause_seconds)

    def catalogue_is_everywhere(self):
        return all(self.catalogue_is_at(machine) for machine in ["station", *self.site.hosts])

    def catalogue_is_at(self, machine):
        return ask(self.home(machine), "status")["sites"][0]["catalogue_version"] == len(self.packs)

    def is_calm(self):
        """No node works any more: all together use less than a fifth of a processor and 0.5 % of one for each host."""
        before = self.site.processor_seconds()
        time.sleep(2)
        return self.site.processor_seconds() - before < 2 * (0.2 + 0.005 * len(self.site.hosts))

    def prepare(self, run, payload):
        self.payload, self.pack = payload, self.packs[run]
        self.start_all()
        self.until(self.catalogue_is_everywhere, "the catalogue at every host")
        self.fill_station()
        answer = ask(self.home("station"), {"packs": {"stage": {"pack": self.pack, "staging": "prepared", "here": False}}})
        refusals = [member for member in answer["members"] if member["refusal"]]
        if refusals or len(answer["members"]) != len(self.site.hosts):
            raise BenchError(f"not every member is ready: {answer}")
        time.sleep(3)
        self.until(self.is_calm, "calm")
        self.done = {}
        self.selector = selectors.DefaultSelector()
        for host in self.site.hosts:
            call = Call(self.home(host), {"packs": {"wait": self.pack}})
            self.selector.register(call.socket, selectors.EVENT_READ, (host, call))

    def fill_station(self):
        """The station has the pack before the clock starts, as a seed has the file."""
        station = self.home("station")
        ask(station, {"packs": {"stage": {"pack": self.pack, "staging": "fetched", "here": True}}})
        ask(station, {"packs": {"wait": self.pack}})

    def go(self):
        self.staging = Call(self.home("station"),
                            {"packs": {"stage": {"pack": self.pack, "staging": "fetched", "here": False}}})

    def finished(self):
        for key, _ in self.selector.select(timeout=0):
            host, call = key.data
            if call.take() is not None:
                self.done[host] = time.time()
                self.selector.unregister(key.fileobj)
        return self.done

    def result(self, host):
        """The image, assembled from the host's frames by the command for that."""
        for other in self.site.hosts:
            if os.path.exists(self.path(other, "image")):
                os.remove(self.path(other, "image"))
        self.command(host, "packs", "export", self.pack, "--home", self.home(host), "--out", self.path(host, "image"))
        return self.path(host, "image")

    def wan_ratio(self):
        transfers = ask(self.home("headquarters"), "transfers")["origin"]
        sent = sum(record["meter"]["bytes"] for record in transfers if record["pack"] == self.pack)
        row = ask(self.home("station"), {"packs": {"show": self.pack}})
        return sent / row["bytes"]

    def end(self):
        """Ends the nodes; headquarters keeps its packs, the site's are taken away to make room."""
        for process in self.processes:
            if not process.ended():
                known = self.peak_memory.get(process.machine, 0)
                self.peak_memory[process.machine] = max(known, process.memory_bytes("VmHWM"))
        self.stop()
        for machine in ["station", *self.site.hosts]:
            shutil.rmtree(os.path.join(self.home(machine), "packs"), ignore_errors=True)
            staged = os.path.join(self.home(machine), "staged.json")
            if os.path.exists(staged):
                os.remove(staged)

    def stop(self):
        for process in reversed(self.processes):
            process.end()
        self.processes = []

    def tear_down(self):
        hosts = [size for machine, size in self.peak_memory.items() if machine.startswith("host")]
        if hosts:
            say(f"peak memory: station {self.peak_memory['station'] >> 20} MiB, hosts at most {max(hosts) >> 20} MiB")
        self.stop()
        for machine in ["headquarters", "station", *self.site.hosts] if self.logs else []:
            if os.path.exists(self.path(machine, "log")):
                os.makedirs(self.logs, exist_ok=True)
                shutil.copy(self.path(machine, "log"), os.path.join(self.logs, f"{machine}.log"))
        shutil.rmtree(self.directory, ignore_errors=True)


def find_pack(value):
    """The pack that `catalogue add --json` tells of, wherever it stands."""
    if isinstance(value, dict):
        if isinstance(value.get("pack"), str):
            return value["pack"]
        value = list(value.values())
    if isinstance(value, list):
        return next(filter(None, map(find_pack, value)), None)
    return None
