"""The forwarding plane of the test router: two nftables maps and the kernel's table of flows."""

import subprocess

from nat_mib import (COMMIT_FAILED, ENTITY, INBOUND_DESTINATION, OUTBOUND_SOURCE, SnmpError, dotted,
                     is_active, pairs)

TABLE = "branchline"


def script(rows):
    """The nft script that makes both maps say what the active rows say: one transaction, which also
    heals what someone else changed in them."""
    lines = [f"flush map ip {TABLE} dnat_map", f"flush map ip {TABLE} snat_map"]
    for row in rows.values():
        if not is_active(row):
            continue
        for local, outside in pairs(row):
            if row[ENTITY][0] & INBOUND_DESTINATION:
                lines.append(
                    f"add element ip {TABLE} dnat_map {{ {dotted(outside)} : {dotted(local)} }}")
            if row[ENTITY][0] & OUTBOUND_SOURCE:
                lines.append(
                    f"add element ip {TABLE} snat_map {{ {dotted(local)} : {dotted(outside)} }}")
    return "\n".join(lines) + "\n"


def install(rows):
    """Programs the maps, or raises commitFailed and leaves them as they were."""
    done = subprocess.run(["nft", "-f", "-"], input=script(rows), text=True, capture_output=True)
    if done.returncode:
        raise SnmpError(COMMIT_FAILED, reason=done.stderr.strip())


def forget_flows(row):
    """Ends the flows that a row carried: the kernel keeps them when the map element goes.

    Only flows by the row's global addresses are named, so that what its inside host opened before
    the row existed, behind the router's own address, lives on."""
    for _, outside in pairs(row):
        for direction in ("--orig-dst", "--reply-dst"):
            subprocess.run(["conntrack", "-D", direction, dotted(outside)], capture_output=True)
