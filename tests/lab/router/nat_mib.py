"""RFC 4008 natAddrMapTable as a value: columns, checks of a SET, and what a GET sees.

Nothing here touches the kernel or a file. A SET is taken whole: `NatTable.test` works on all
variable bindings of one PDU as if simultaneous (RFC 3416, 4.2.5) and answers with the rows as they
would be, or raises `SnmpError` with the index of the binding at fault.
"""

import bisect
import ipaddress

NAT_MIB = (1, 3, 6, 1, 2, 1, 123, 1)  # natMIBObjects
INTERFACE_ENTRY = NAT_MIB + (3, 1)  # natInterfaceEntry
MAP_ENTRY = NAT_MIB + (4, 1)  # natAddrMapEntry
BIND_COUNT = NAT_MIB + (5, 0)  # natAddrBindNumberOfEntries.0
BIND_ENTRY = NAT_MIB + (6, 1)  # natAddrBindEntry

# Value types.
INTEGER, OCTETS, GAUGE, TICKS, COUNTER64 = "integer", "octets", "gauge", "ticks", "counter64"

# error-status of RFC 3416.
GEN_ERR = 5
NO_ACCESS = 6
WRONG_TYPE = 7
WRONG_LENGTH = 8
WRONG_VALUE = 10
NO_CREATION = 11
INCONSISTENT_VALUE = 12
RESOURCE_UNAVAILABLE = 13
COMMIT_FAILED = 14
UNDO_FAILED = 15
NOT_WRITABLE = 17
INCONSISTENT_NAME = 18

# RowStatus of RFC 2579.
ACTIVE, NOT_IN_SERVICE, NOT_READY, CREATE_AND_GO, CREATE_AND_WAIT, DESTROY = 1, 2, 3, 4, 5, 6

# Columns of natAddrMapEntry.
NAME, ENTRY_TYPE, ENTITY = 2, 3, 4
LOCAL_TYPE, LOCAL_FROM, LOCAL_TO, LOCAL_PORT_FROM, LOCAL_PORT_TO = 5, 6, 7, 8, 9
GLOBAL_TYPE, GLOBAL_FROM, GLOBAL_TO, GLOBAL_PORT_FROM, GLOBAL_PORT_TO = 10, 11, 12, 13, 14
PROTOCOL, IN_TRANSLATES, OUT_TRANSLATES, DISCARDS, ADDRESSES_USED = 15, 16, 17, 18, 19
STORAGE_TYPE, ROW_STATUS = 20, 21

REQUIRED = (NAME, ENTRY_TYPE, ENTITY, LOCAL_TYPE, LOCAL_FROM, LOCAL_TO,
            GLOBAL_TYPE, GLOBAL_FROM, GLOBAL_TO, PROTOCOL)
PORTS = (LOCAL_PORT_FROM, LOCAL_PORT_TO, GLOBAL_PORT_FROM, GLOBAL_PORT_TO)
STORAGE_NON_VOLATILE, STORAGE_PERMANENT = 3, 4
DEFAULTS = {**{port: 0 for port in PORTS}, STORAGE_TYPE: STORAGE_NON_VOLATILE}
LARGEST_RANGE = 4096

# BITS of natAddrMapTranslationEntity: bit 2 is the destination of inbound packets, bit 3 the source
# of outbound ones (counted from the most significant bit).
INBOUND_DESTINATION, OUTBOUND_SOURCE = 0x20, 0x10


class SnmpError(Exception):
    """A SET that is refused: error-status, 1-based index of the binding (0: the whole), reason."""

    def __init__(self, status, index=0, reason=""):
        super().__init__(f"status {status} at {index}: {reason}")
        self.status, self.index, self.reason = status, index, reason


def _between(low, high):
    return lambda value: None if low <= value <= high else WRONG_VALUE


def _length(low, high):
    return lambda value: None if low <= len(value) <= high else WRONG_LENGTH


def _entity(value):
    if len(value) != 1:
        return WRONG_LENGTH
    both = INBOUND_DESTINATION | OUTBOUND_SOURCE
    return None if value[0] & both and not value[0] & ~both else WRONG_VALUE


_PORT = (GAUGE, _between(0, 65535))
_IPV4 = (INTEGER, _between(1, 1))
_ADDRESS = (OCTETS, _length(4, 4))
# Writable columns: type and check. Entry type: only static(1); storage: volatile to permanent.
WRITABLE = {
    NAME: (OCTETS, _length(1, 32)),
    ENTRY_TYPE: (INTEGER, _between(1, 1)),
    ENTITY: (OCTETS, _entity),
    LOCAL_TYPE: _IPV4, LOCAL_FROM: _ADDRESS, LOCAL_TO: _ADDRESS,
    LOCAL_PORT_FROM: _PORT, LOCAL_PORT_TO: _PORT,
    GLOBAL_TYPE: _IPV4, GLOBAL_FROM: _ADDRESS, GLOBAL_TO: _ADDRESS,
    GLOBAL_PORT_FROM: _PORT, GLOBAL_PORT_TO: _PORT,
    PROTOCOL: (OCTETS, _length(1, 1)),
    STORAGE_TYPE: (INTEGER, _between(2, 4)),
    ROW_STATUS: (INTEGER, _between(1, 6)),
}
READ_ONLY = (IN_TRANSLATES, OUT_TRANSLATES, DISCARDS, ADDRESSES_USED)


def number(octets):
    return int.from_bytes(octets, "big")


def dotted(address):
    return str(ipaddress.IPv4Address(address))


def pairs(row):
    """The (local, global) addresses of a complete row, as numbers."""
    count = number(row[LOCAL_TO]) - number(row[LOCAL_FROM]) + 1
    local, outside = number(row[LOCAL_FROM]), number(row[GLOBAL_FROM])
    return [(local + i, outside + i) for i in range(count)]


def is_active(row):
    return row is not None and row.get(ROW_STATUS) == ACTIVE


def changed_rows(before, after):
    """Keys whose translation differs between two tables."""

    def translation(rows, key):
        row = rows.get(key)
        return row if is_active(row) else None

    keys = sorted(set(before) | set(after))
    return [key for key in keys if translation(before, key) != translation(after, key)]


class NatTable:
    """The rows of one router: {(ifIndex, natAddrMapIndex): {column: value}}."""

    def __init__(self, interface, batch, most_rows, rows=None):
        self.interface = interface
        self.batch = [ipaddress.ip_network(prefix) for prefix in batch]
        self.most_rows = most_rows
        self.replace(rows or {})

    def replace(self, rows):
        self.rows = rows
        self._view = None

    # ---- SET ---------------------------------------------------------------------------------

    def test(self, bindings, faults):
        """The rows as `bindings`, [(oid, type, value)], would make them."""
        groups = self._check_each(bindings)
        if faults.get("read_only"):
            raise SnmpError(NOT_WRITABLE, 1, "this router's table is read-only")
        most_rows = len(self.rows) if faults.get("table_full") else self.most_rows
        rows = {key: dict(row) for key, row in self.rows.items()}
        for key, group in groups.items():
            self._apply(rows, key, group, most_rows)
        return rows

    def _check_each(self, bindings):
        groups = {}
        for index, (oid, kind, value) in enumerate(bindings, 1):
            if oid[: len(MAP_ENTRY)] != MAP_ENTRY or len(oid) != len(MAP_ENTRY) + 3:
                inside = oid[: len(NAT_MIB)] == NAT_MIB
                raise SnmpError(NOT_WRITABLE if inside else NO_ACCESS, index)
            column, key = oid[len(MAP_ENTRY)], tuple(oid[len(MAP_ENTRY) + 1:])
            if column not in WRITABLE:
                raise SnmpError(NOT_WRITABLE, index, "read-only column")
            expected, check = WRITABLE[column]
            if kind != expected:
                raise SnmpError(WRONG_TYPE, index)
            status = check(value)
            if status:
                raise SnmpError(status, index)
            if key[0] != self.interface or key[1] < 1:
                raise SnmpError(NO_CREATION if column == ROW_STATUS else INCONSISTENT_NAME, index,
                                "not a NAT interface")
            groups.setdefault(key, {})[column] = (index, value)
        return groups

    def _apply(self, rows, key, group, most_rows):
        status_index, status = group.get(ROW_STATUS, (0, None))
        first = min(index for index, _ in group.values())
        columns = {c: value for c, (_, value) in group.items() if c != ROW_STATUS}
        if status == DESTROY:
            rows.pop(key, None)
        elif status in (CREATE_AND_GO, CREATE_AND_WAIT):
            if key in rows:
                raise SnmpError(INCONSISTENT_VALUE, status_index, "row exists")
            if len(rows) >= most_rows:
                raise SnmpError(RESOURCE_UNAVAILABLE, status_index, "table full")
            rows[key] = self._created(rows, key, columns, status, status_index)
        elif status == NOT_READY:
            raise SnmpError(WRONG_VALUE, status_index, "notReady is not for a manager to write")
        else:
            rows[key] = self._modified(rows, key, columns, status, status_index, first)

    def _created(self, rows, key, columns, status, status_index):
        row = {**DEFAULTS, **columns}
        complete = self._complete(row)
        if status == CREATE_AND_GO:
            if not complete:
                raise SnmpError(INCONSISTENT_VALUE, status_index, "columns are missing")
            self._check_consistent(row, key, rows, status_index)
            row[ROW_STATUS] = ACTIVE
        else:
            row[ROW_STATUS] = NOT_IN_SERVICE if complete else NOT_READY
        return row

    def _modified(self, rows, key, columns, status, status_index, first):
        current = rows.get(key)
        if current is None:
            raise SnmpError(INCONSISTENT_NAME if status is None else INCONSISTENT_VALUE, first,
                            "no such row")
        if is_active(current) and columns and status != NOT_IN_SERVICE:
            raise SnmpError(INCONSISTENT_VALUE, first, "the row is active")
        if current.get(STORAGE_TYPE) == STORAGE_PERMANENT and columns:
            raise SnmpError(INCONSISTENT_VALUE, first, "the row is permanent")
        row = {**current, **columns}
        complete = self._complete(row)
        if status is not None:
            if not complete:
                raise SnmpError(INCONSISTENT_VALUE, status_index, "columns are missing")
            if status == ACTIVE:
                self._check_consistent(row, key, rows, status_index)
            row[ROW_STATUS] = status
        elif row[ROW_STATUS] == NOT_READY and complete:
            row[ROW_STATUS] = NOT_IN_SERVICE
        return row

    @staticmethod
    def _complete(row):
        return all(column in row for column in REQUIRED)

    def _check_consistent(self, row, key, rows, index):
        def refuse(reason):
            raise SnmpError(INCONSISTENT_VALUE, index, reason)

        if any(row.get(port, 0) for port in PORTS):
            refuse("basic NAT translates addresses, not ports")
        local = (number(row[LOCAL_FROM]), number(row[LOCAL_TO]))
        outside = (number(row[GLOBAL_FROM]), number(row[GLOBAL_TO]))
        span = local[1] - local[0]
        if not 0 <= span < LARGEST_RANGE or span != outside[1] - outside[0]:
            refuse("the ranges differ in length, are reversed or too long")
        mine = pairs(row)
        for _, address in mine:
            if not any(ipaddress.IPv4Address(address) in prefix for prefix in self.batch):
                refuse(f"{dotted(address)} is not in this router's batch")
        locals_, globals_ = {pair[0] for pair in mine}, {pair[1] for pair in mine}
        for other, row_ in rows.items():
            if other != key and is_active(row_):
                for local_, global_ in pairs(row_):
                    if local_ in locals_ or global_ in globals_:
                        refuse(f"row {other[1]} has {dotted(local_)} at {dotted(global_)}")

    # ---- GET and GETNEXT -----------------------------------------------------------------------

    def view(self):
        """Every instance and its (type, value); kept until the rows are replaced."""
        if self._view is None:
            self._view = self._build_view()
            self._order = sorted(self._view)
        return self._view

    def _build_view(self):
        view = {
            INTERFACE_ENTRY + (1, self.interface): (INTEGER, 2),  # realm public
            INTERFACE_ENTRY + (2, self.interface): (OCTETS, b"\x20"),  # service: basic NAT
            INTERFACE_ENTRY + (6, self.interface): (INTEGER, 4),
            INTERFACE_ENTRY + (7, self.interface): (INTEGER, 1),
        }
        bindings = 0
        for key, row in sorted(self.rows.items()):
            active = is_active(row)
            for column, (kind, _) in WRITABLE.items():
                if column in row:
                    view[MAP_ENTRY + (column,) + key] = (kind, row[column])
            for column in (IN_TRANSLATES, OUT_TRANSLATES, DISCARDS):
                view[MAP_ENTRY + (column,) + key] = (COUNTER64, 0)
            view[MAP_ENTRY + (ADDRESSES_USED,) + key] = (GAUGE, len(pairs(row)) if active else 0)
            for local, outside in pairs(row) if active else []:
                bindings += 1
                view.update(_binding(key, row, bindings, local, outside))
        view[BIND_COUNT] = (GAUGE, bindings)
        return view

    def get(self, oid):
        return self.view().get(tuple(oid))

    def following(self, oid, include=False):
        """The first instance after `oid` (or at it): (oid, type, value), or None."""
        view = self.view()
        find = bisect.bisect_left if include else bisect.bisect_right
        at = find(self._order, tuple(oid))
        return (self._order[at], *view[self._order[at]]) if at < len(self._order) else None


def _binding(key, row, identifier, local, outside):
    """One natAddrBindEntry: what the forwarding plane does now for one inside address."""
    index = (key[0], 1, 4) + tuple(local.to_bytes(4, "big"))
    columns = {
        3: (INTEGER, 1), 4: (OCTETS, outside.to_bytes(4, "big")), 5: (GAUGE, identifier),
        6: (OCTETS, row[ENTITY]), 7: (INTEGER, 1), 8: (GAUGE, key[1]), 9: (GAUGE, 0),
        10: (TICKS, 0), 11: (TICKS, 0), 12: (COUNTER64, 0), 13: (COUNTER64, 0),
    }
    return {BIND_ENTRY + (column,) + index: value for column, value in columns.items()}
