"""The tools that a user would pick instead: aria2, libtorrent, and nginx as one HTTP server.

A tool prepares (every process started, joined as far as it can without a byte of the payload), is
told to go, and says when each host has finished and where its result lies.
"""

import hashlib
import json
import os
import shutil
import sys
import time

from common import BenchError
from site_lab import HERE, Process

SYSTEM_PYTHON = "/usr/bin/python3"  # Debian's libtorrent belongs to Debian's python.


def bencode(value):
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    return b"d%se" % b"".join(bencode(key) + bencode(value[key]) for key in sorted(value))


def make_torrent(payload, tracker, path):
    """A torrent of one file in pieces of 1 MiB."""
    pieces = []
    with open(payload, "rb") as file:
        while piece := file.read(1 << 20):
            pieces.append(hashlib.sha1(piece).digest())
    information = {"length": os.path.getsize(payload), "name": os.path.basename(payload),
                   "piece length": 1 << 20, "pieces": b"".join(pieces)}
    with open(path, "wb") as file:
        file.write(bencode({"announce": tracker, "info": information}))


class Tool:
    """What all of them share: a directory for each host, and processes that are ended."""

    def __init__(self, site, directory):
        self.site, self.directory = site, directory
        self.processes = []
        self.payload = ""

    def set_up(self, payloads):
        """Once, before the first run; `payloads` has one file for each run."""

    def tear_down(self):
        """Once, after the last run."""

    def prepare(self, run, payload):
        raise NotImplementedError

    def go(self):
        raise NotImplementedError

    def finished(self):
        """The time at which each host that is done was done."""
        done = {}
        for host in self.site.hosts:
            path = self.path(host, "done")
            if os.path.exists(path):
                with open(path, encoding="ascii") as file:
                    done[host] = float(file.read())
        return done

    def result(self, host):
        return self.path(host, os.path.basename(self.payload))

    def wan_ratio(self):
        """None: this tool brings nothing into a site."""

    def end(self):
        for process in self.processes:
            process.end()
        self.processes = []
        shutil.rmtree(self.directory, ignore_errors=True)

    def path(self, machine, name):
        return os.path.join(self.directory, machine, name)

    def start(self, machine, command, stdin=False):
        os.makedirs(os.path.join(self.directory, machine), exist_ok=True)
        process = Process(self.site, machine, command, self.path(machine, "log"),
                          {"DONE": self.path(machine, "done")}, stdin)
        self.processes.append(process)
        return process

    def start_tracker(self):
        address = self.site.address("station")
        make_torrent(self.payload, f"http://{address}:6969/announce", self.path("", "torrent"))
        self.start("station", [sys.executable, os.path.join(HERE, "peers/tracker.py"), address, "6969"])

    def must_run(self):
        for process in self.processes:
            process.must_run()


class Aria2(Tool):
    """aria2: the leechers stand paused until they are told to go by their RPC."""

    name = "aria2"
    options = ["--enable-dht=false", "--bt-enable-lpd=false", "--seed-ratio=0", "--file-allocation=none",
               "--quiet=true", "--bt-max-peers=0", "--bt-request-peer-speed-limit=100M", "--listen-port=6881",
               "--bt-tracker-interval=2"]

    def prepare(self, run, payload):
        self.payload = payload
        os.makedirs(self.directory)
        self.start_tracker()
        torrent = self.path("", "torrent")
        self.start("station", ["aria2c", "-d", os.path.dirname(payload), "--check-integrity=true",
                               "--bt-seed-unverified=true", *self.options, torrent])
        hook = self.path("", "hook.sh")
        with open(hook, "w", encoding="ascii") as file:
            file.write('#!/bin/sh\ndate +%s.%N >"$DONE.new" && mv "$DONE.new" "$DONE"\n')
        os.chmod(hook, 0o755)
        for host in self.site.hosts:
            self.start(host, ["aria2c", "-d", self.path(host, ""), "--enable-rpc", "--pause=true",
                              f"--on-bt-download-complete={hook}", *self.options, torrent])
        time.sleep(5)
        self.connections = [self.site.connect(host, "127.0.0.1", 6800) for host in self.site.hosts]

    def go(self):
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "aria2.unpauseAll", "params": []})
        request = f"POST /jsonrpc HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        for connection in self.connections:
            connection.sendall(request)
        for connection in self.connections:
            if b"OK" not in connection.recv(4096):
                raise BenchError("an aria2 refuses to start")
            connection.close()


class Libtorrent(Tool):
    """libtorrent: the leechers are connected with each other and take nothing until they are told."""

    name = "libtorrent"

    def prepare(self, run, payload):
        self.payload = payload
        os.makedirs(self.directory)
        self.start_tracker()
        peer, torrent = os.path.join(HERE, "peers/lt_peer.py"), self.path("", "torrent")
        self.start("station", [SYSTEM_PYTHON, peer, torrent, os.path.dirname(payload), "seed"])
        time.sleep(1)
        self.leechers = [
            self.start(host, [SYSTEM_PYTHON, peer, torrent, self.path(host, ""), "leech"], stdin=True)
            for host in self.site.hosts
        ]
        time.sleep(5)

    def go(self):
        for leecher in self.leechers:
            leecher.popen.stdin.write(b"\n")
            leecher.popen.stdin.flush()


class Http(Tool):
    """nginx as one server, curl at every host."""

    name = "http"

    def prepare(self, run, payload):
        self.payload = payload
        os.makedirs(self.directory)
        address, place = self.site.address("station"), self.path("", "nginx")
        os.makedirs(place)
        paths = " ".join(f"{kind}_temp_path {place}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        with open(f"{place}/nginx.conf", "w", encoding="ascii") as file:
            file.write(
                f"user root; worker_processes 2; pid {place}/pid; error_log {place}/error; events {{ worker_connections 1024; }}\n"
                f"http {{ access_log off; sendfile on; {paths}\n"
                f"server {{ listen {address}:80; root {os.path.dirname(payload)}; }} }}\n")
        self.start("station", ["nginx", "-g", "daemon off;", "-c", f"{place}/nginx.conf"])
        line = 'read -r go; curl -sS -o "$1" "$2" && date +%s.%N >"$DONE.new" && mv "$DONE.new" "$DONE"; read -r stop'
        url = f"http://{address}/{os.path.basename(payload)}"
        self.clients = []
        for host in self.site.hosts:
            command = ["sh", "-c", line, "sh", self.path(host, os.path.basename(payload)), url]
            self.clients.append(self.start(host, command, stdin=True))
        time.sleep(1)

    def go(self):
        for client in self.clients:
            client.popen.stdin.write(b"go\n")
            client.popen.stdin.flush()
