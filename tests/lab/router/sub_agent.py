#!/usr/bin/env python3
"""The test router's NAT: natAddrMapTable as an AgentX sub-agent that programs nftables.

usage: sub_agent.py CONFIGURATION

CONFIGURATION is JSON: interface (ifIndex of the WAN), batch (list of prefixes), most_rows, rows (file
in which rows survive), faults (directory of switches), socket (the master agent's)."""

import json
import sys
import time

import agentx
import forwarding
from nat_mib import (COMMIT_FAILED, NAT_MIB, UNDO_FAILED, NatTable, SnmpError, changed_rows,
                     is_active)
from storage import Faults, load_rows, save_rows


def log(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


class Handler:
    """Keeps a SET's two phases apart: test computes rows, commit makes them true, undo restores."""

    def __init__(self, configuration):
        self.rows_path = configuration["rows"]
        self.faults = Faults(configuration["faults"])
        self.table = NatTable(configuration["interface"], configuration["batch"],
                              configuration["most_rows"], load_rows(self.rows_path))
        self.tested, self.replaced = {}, {}
        forwarding.install(self.table.rows)

    def get(self, oid):
        self._hang_if_told()
        return self.table.get(oid)

    def following(self, oid, include):
        self._hang_if_told()
        return self.table.following(oid, include)

    def _hang_if_told(self):
        while "hang" in self.faults.on():
            time.sleep(0.05)

    def test(self, transaction, bindings):
        self._hang_if_told()
        try:
            self.tested[transaction] = self.table.test(bindings, self.faults.on())
        except SnmpError as error:
            log(f"SET of {len(bindings)} refused: {error}")
            return error.status, error.index
        return 0, 0

    def commit(self, transaction):
        before = self.table.rows
        try:
            if self.faults.take_commit_failure():
                raise SnmpError(COMMIT_FAILED, 1, "a fault switch says so")
            self._become(self.tested[transaction])
        except SnmpError as error:
            log(f"commit failed: {error}")
            return error.status, 1
        self.replaced[transaction] = before
        log(f"SET committed: {len(self.table.rows)} rows")
        return 0, 0

    def undo(self, transaction):
        # A commit that failed has replaced nothing.
        before = self.replaced.pop(transaction, None)
        try:
            if before is not None:
                self._become(before)
        except SnmpError as error:
            log(f"undo failed: {error}")
            return UNDO_FAILED, 1
        return 0, 0

    def clean_up(self, transaction):
        self.tested.pop(transaction, None)
        self.replaced.pop(transaction, None)

    def _become(self, rows):
        before = self.table.rows
        changed = changed_rows(before, rows)
        if changed:
            forwarding.install(rows)
            for key in changed:
                if is_active(before.get(key)):
                    forwarding.forget_flows(before[key])
        self.table.replace(rows)
        save_rows(self.rows_path, rows)


def main():
    with open(sys.argv[1], encoding="ascii") as file:
        configuration = json.load(file)
    handler = Handler(configuration)
    while True:
        try:
            session = agentx.Session(configuration["socket"], NAT_MIB, b"branchline NAT-MIB", handler)
        except OSError:
            time.sleep(0.05)  # snmpd is not there yet, or not any more
            continue
        log(f"serving {len(handler.table.rows)} rows")
        try:
            session.serve()
        except (EOFError, OSError) as error:
            log(f"connection lost: {error}")
        finally:
            session.close()


if __name__ == "__main__":
    main()
