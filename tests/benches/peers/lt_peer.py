"""A libtorrent peer: lt_peer.py TORRENT DIRECTORY seed|leech

A leecher connects first and takes nothing (upload mode); it begins at the first line on standard
input, and writes the time of its completion into the file that DONE names.
"""

import os
import sys
import time

import libtorrent as lt

torrent, directory, role = sys.argv[1:4]
session = lt.session({
    "listen_interfaces": "0.0.0.0:6881", "enable_dht": False, "enable_lsd": False, "enable_upnp": False,
    "enable_natpmp": False, "allow_multiple_connections_per_ip": True, "announce_to_all_trackers": True,
    "alert_mask": 0, "min_announce_interval": 2, "tracker_backoff": 2, "enable_incoming_utp": False,
    "enable_outgoing_utp": False, "unchoke_slots_limit": 16 if role == "leech" else 4, "request_queue_time": 1,
})
parameters = lt.add_torrent_params()
parameters.ti = lt.torrent_info(torrent)
parameters.save_path = directory
parameters.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
if role == "seed":
    parameters.flags |= lt.torrent_flags.seed_mode | lt.torrent_flags.super_seeding
else:
    parameters.flags |= lt.torrent_flags.upload_mode
handle = session.add_torrent(parameters)
if role == "leech":
    sys.stdin.readline()
    handle.unset_flags(lt.torrent_flags.upload_mode)
    while not handle.status().is_seeding:
        time.sleep(0.02)
    with open(os.environ["DONE"] + ".new", "w", encoding="ascii") as done:
        done.write(f"{time.time():f}")
    os.rename(os.environ["DONE"] + ".new", os.environ["DONE"])
while True:
    time.sleep(1)
