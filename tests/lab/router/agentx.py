"""AgentX (RFC 2741), the sub-agent's side: encoding, and a session that serves one subtree.

A whole SET PDU arrives in one TestSet, so that a handler can take it or leave it as one.
"""

import socket
import struct

from nat_mib import COUNTER64, GAUGE, INTEGER, OCTETS, TICKS

OPEN, CLOSE, REGISTER, GET, GET_NEXT, GET_BULK = 1, 2, 3, 5, 6, 7
TEST_SET, COMMIT_SET, UNDO_SET, CLEANUP_SET, RESPONSE = 8, 9, 10, 11, 18
NETWORK_BYTE_ORDER, NON_DEFAULT_CONTEXT = 0x10, 0x08
NO_SUCH_INSTANCE, END_OF_MIB_VIEW = 129, 130
HEADER = struct.Struct(">BBBBIIII")  # version, type, flags, 0, session, transaction, packet, length
TYPE_CODES = {INTEGER: 2, OCTETS: 4, GAUGE: 0x42, TICKS: 0x43, COUNTER64: 0x46}
TYPE_NAMES = {code: name for name, code in TYPE_CODES.items()}


def encode_oid(oid, include=0):
    return struct.pack(">BBBB", len(oid), 0, include, 0) + struct.pack(f">{len(oid)}I", *oid)


def encode_octets(octets):
    return struct.pack(">I", len(octets)) + octets + b"\0" * (-len(octets) % 4)


def encode_binding(oid, kind, value):
    if kind == OCTETS:
        data = encode_octets(value)
    elif kind == COUNTER64:
        data = struct.pack(">Q", value)
    else:
        data = struct.pack(">I", value & 0xFFFFFFFF)
    return struct.pack(">HH", TYPE_CODES[kind], 0) + encode_oid(oid) + data


def encode_absence(oid, code):
    return struct.pack(">HH", code, 0) + encode_oid(oid)


class Reader:
    """Takes values off a PDU's body in order."""

    def __init__(self, body):
        self.body, self.at = body, 0

    def more(self):
        return self.at < len(self.body)

    def take(self, count):
        taken = self.body[self.at:self.at + count]
        if len(taken) != count:
            raise ValueError("the PDU is shorter than it says")
        self.at += count
        return taken

    def unpack(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def oid(self):
        """An object identifier and its include flag."""
        count, prefix, include, _ = self.unpack(">BBBB")
        parts = self.unpack(f">{count}I")
        return ((1, 3, 6, 1, prefix) + parts if prefix else parts), bool(include)

    def octets(self):
        (length,) = self.unpack(">I")
        octets = self.take(length)
        self.take(-length % 4)
        return octets

    def binding(self):
        """(oid, type, value); a type that no column here has keeps its number and loses its value."""
        code, _ = self.unpack(">HH")
        oid, _ = self.oid()
        if code == 2:
            (value,) = self.unpack(">i")
        elif code in (0x41, 0x42, 0x43):
            (value,) = self.unpack(">I")
        elif code in (4, 0x40, 0x44):
            value = self.octets()
        elif code == 0x46:
            (value,) = self.unpack(">Q")
        elif code == 6:
            value = self.oid()[0]
        else:
            value = None
        return oid, TYPE_NAMES.get(code, code), value

    def ranges(self, count=None):
        """Search ranges: [(start, include, end)]."""
        found = []
        while self.more() and (count is None or len(found) < count):
            start, include = self.oid()
            end, _ = self.oid()
            found.append((start, include, end))
        return found


class Session:
    """One connection to the master agent. `handler` answers get, following, test, commit, undo and
    clean_up; the last four take the transaction's number, and test, commit and undo may raise
    SnmpError."""

    def __init__(self, path, subtree, description, handler):
        self.handler, self.session, self.packet = handler, 0, 0
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.session = self._call(
            OPEN, struct.pack(">BBBB", 5, 0, 0, 0) + encode_oid(()) + encode_octets(description))
        self._call(REGISTER, struct.pack(">BBBB", 5, 127, 0, 0) + encode_oid(subtree))

    def close(self):
        self.socket.close()

    def _send(self, kind, body, transaction=0, packet=None):
        if packet is None:
            self.packet += 1
            packet = self.packet
        self.socket.sendall(HEADER.pack(1, kind, NETWORK_BYTE_ORDER, 0, self.session, transaction,
                                        packet, len(body)) + body)

    def _read(self, count):
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise EOFError("the master agent closed the connection")
            data += part
        return data

    def _receive(self):
        _, kind, flags, _, session, transaction, packet, length = HEADER.unpack(
            self._read(HEADER.size))
        if not flags & NETWORK_BYTE_ORDER:
            raise ValueError("the master agent does not use network byte order")
        reader = Reader(self._read(length))
        if flags & NON_DEFAULT_CONTEXT:
            reader.octets()
        return kind, session, transaction, packet, reader

    def _call(self, kind, body):
        self._send(kind, body)
        _, session, _, _, reader = self._receive()
        _, error, _ = reader.unpack(">IHH")
        if error:
            raise ConnectionError(f"the master agent refused PDU {kind} with error {error}")
        return session

    def serve(self):
        """Answers until the master agent goes away (EOFError or OSError)."""
        while True:
            kind, _, transaction, packet, reader = self._receive()
            if kind == CLOSE:
                raise EOFError("the master agent closed the session")
            if kind == CLEANUP_SET:
                self.handler.clean_up(transaction)
            elif kind != RESPONSE:
                error, index, bindings = self._answer(kind, transaction, reader)
                self._send(RESPONSE, struct.pack(">IHH", 0, error, index) + bindings, transaction,
                           packet)

    def _answer(self, kind, transaction, reader):
        """(error, index, encoded bindings)."""
        if kind == GET:
            return 0, 0, b"".join(self._get(start) for start, _, _ in reader.ranges())
        if kind == GET_NEXT:
            return 0, 0, b"".join(self._next(*found)[0] for found in reader.ranges())
        if kind == GET_BULK:
            return 0, 0, self._bulk(reader)
        if kind == TEST_SET:
            bindings = []
            while reader.more():
                bindings.append(reader.binding())
            return (*self.handler.test(transaction, bindings), b"")
        if kind == COMMIT_SET:
            return (*self.handler.commit(transaction), b"")
        if kind == UNDO_SET:
            return (*self.handler.undo(transaction), b"")
        return 0, 0, b""

    def _get(self, oid):
        found = self.handler.get(oid)
        return encode_binding(oid, *found) if found else encode_absence(oid, NO_SUCH_INSTANCE)

    def _next(self, start, include, end):
        """The encoded next instance and its name, or the end of the view and None."""
        found = self.handler.following(start, include)
        if found and (not end or found[0] < end):
            return encode_binding(*found), found[0]
        return encode_absence(start, END_OF_MIB_VIEW), None

    def _bulk(self, reader):
        single, repetitions = reader.unpack(">HH")
        out = [self._next(*found)[0] for found in reader.ranges(single)]
        repeated = reader.ranges()
        for _ in range(repetitions):
            for at, (start, include, end) in enumerate(repeated):
                encoded, name = self._next(start, include, end)
                out.append(encoded)
                if name is not None:
                    repeated[at] = (name, False, end)
        return b"".join(out)
