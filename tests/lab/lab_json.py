#!/usr/bin/env python3
"""What the lab answers as JSON.

usage: lab_json.py counters ROUTER_LINKS SWITCH_LINKS   from `ip -j -s link show`
       lab_json.py nat-table NFT WALK                   from `nft -j list table`, `snmpbulkwalk -On`
       lab_json.py facts NAME=VALUE...
"""

import json
import re
import sys

COLUMN = re.compile(r"^\.1\.3\.6\.1\.2\.1\.123\.1\.4\.1\.(\d+)\.(\d+)\.(\d+) = (?:([\w-]+): )?(.*)$")
STATUS = {1: "active", 2: "notInService", 3: "notReady"}


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def traffic(link):
    stats = link["stats64"]
    return {
        "received_bytes": stats["rx"]["bytes"], "received_packets": stats["rx"]["packets"],
        "sent_bytes": stats["tx"]["bytes"], "sent_packets": stats["tx"]["packets"],
    }


def counters(router_links, switch_links):
    """The line as the router sees it (received: into the site), and each machine's port as the
    machine sees it."""
    wan = next(link for link in json.loads(read(router_links)) if link["ifname"] == "wan0")
    machines = {}
    for link in json.loads(read(switch_links)):
        if link["ifname"].startswith("port-"):
            port = traffic(link)
            machines[link["ifname"].removeprefix("port-")] = {
                "received_bytes": port["sent_bytes"], "received_packets": port["sent_packets"],
                "sent_bytes": port["received_bytes"], "sent_packets": port["received_packets"],
            }
    return {"wan": traffic(wan), "machines": machines}


def forwarding(text):
    maps = {}
    for entry in json.loads(text)["nftables"]:
        if "map" in entry:
            maps[entry["map"]["name"]] = dict(entry["map"].get("elem", []))
    inbound, outbound = maps["dnat_map"], maps["snat_map"]
    return {
        "inbound": [{"global": g, "local": l} for g, l in sorted(inbound.items())],
        "outbound": [{"local": l, "global": g} for l, g in sorted(outbound.items())],
    }


def octets(value):
    return ".".join(str(int(part, 16)) for part in value.split())


def rows(text):
    """Rows of natAddrMapTable, or what the router said instead."""
    found = {}
    for line in text.splitlines():
        match = COLUMN.match(line.strip())
        if match is None:
            if "No Such" in line or "No more" in line:
                continue
            return None, text.strip()
        column, interface, index = (int(match[at]) for at in (1, 2, 3))
        found.setdefault((interface, index), {})[column] = match[5].strip()
    table = []
    for (interface, index), columns in sorted(found.items()):
        row = {"interface": interface, "index": index, "name": columns.get(2, "").strip('"')}
        for key, column in (("local", 6), ("local_to", 7), ("global", 11), ("global_to", 12)):
            row[key] = octets(columns[column]) if column in columns else None
        row["status"] = STATUS.get(int(columns.get(21, "0")), "unknown")
        table.append(row)
    return table, None


def nat_table(nft, walk):
    table, error = rows(read(walk))
    return {"forwarding": forwarding(read(nft)), "snmp": table, "snmp_error": error}


def facts(*pairs):
    return {name: int(value) if value.isdigit() else value
            for name, value in (pair.split("=", 1) for pair in pairs)}


def main():
    command, *arguments = sys.argv[1:]
    answer = {"counters": counters, "nat-table": nat_table, "facts": facts}[command](*arguments)
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()
