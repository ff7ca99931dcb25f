"""Holds one connection to an echo server and says, for each line on standard input, whether it still
carries a byte there and back within five seconds: flow.py ADDRESS PORT"""

import socket
import sys

try:
    connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
    connection.settimeout(5)
    print(connection.recv(100).decode().strip(), flush=True)
except OSError as error:
    sys.exit(f"no connection: {error}")
for _ in sys.stdin:
    try:
        connection.sendall(b"x")
        alive = connection.recv(1) == b"x"
    except OSError:
        alive = False
    print("alive" if alive else "dead", flush=True)
