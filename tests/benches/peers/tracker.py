"""A minimal BitTorrent HTTP tracker: tracker.py ADDRESS PORT"""

import http.server
import socket
import socketserver
import struct
import sys
import urllib.parse

PEERS = {}


class Announce(http.server.BaseHTTPRequestHandler):
    """Remembers who asks and answers with everybody else (BEP 3, compact form of BEP 23)."""

    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query, encoding="latin1")
        own = (self.client_address[0], int(query["port"][0]))
        PEERS[own] = None
        others = b"".join(
            socket.inet_aton(address) + struct.pack(">H", port) for address, port in PEERS if (address, port) != own
        )
        body = b"d8:intervali3e12:min intervali2e5:peers%d:%se" % (len(others), others)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments):
        pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 256


if __name__ == "__main__":
    Server((sys.argv[1], int(sys.argv[2])), Announce).serve_forever()
