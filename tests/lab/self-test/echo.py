"""Greets each connection with both its ends as seen here, then echoes: echo.py PORT"""

import socketserver
import sys


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        own, peer = self.request.getsockname()[0], self.request.getpeername()[0]
        self.request.sendall(f"{own} sees {peer}\n".encode())
        while data := self.request.recv(100):
            self.request.sendall(data)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


Server(("0.0.0.0", int(sys.argv[1])), Echo).serve_forever()
