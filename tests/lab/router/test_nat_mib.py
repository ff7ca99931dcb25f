"""Tests of the router's table as a value: python3 -m unittest, no root and no kernel."""

import os
import tempfile
import unittest

import forwarding
import nat_mib as m
from storage import Faults, load_rows, save_rows


def address(text):
    return bytes(int(part) for part in text.split("."))


def columns(local, outside):
    return {
        m.NAME: (m.OCTETS, b"site"), m.ENTRY_TYPE: (m.INTEGER, 1), m.ENTITY: (m.OCTETS, b"\x30"),
        m.LOCAL_TYPE: (m.INTEGER, 1), m.LOCAL_FROM: (m.OCTETS, address(local)),
        m.LOCAL_TO: (m.OCTETS, address(local)), m.GLOBAL_TYPE: (m.INTEGER, 1),
        m.GLOBAL_FROM: (m.OCTETS, address(outside)), m.GLOBAL_TO: (m.OCTETS, address(outside)),
        m.PROTOCOL: (m.OCTETS, b"\xf0"),
    }


def bindings(index, values, status=None, interface=2):
    named = dict(values)
    if status is not None:
        named[m.ROW_STATUS] = (m.INTEGER, status)
    return [(m.MAP_ENTRY + (column, interface, index), kind, value)
            for column, (kind, value) in named.items()]


FIRST = columns("10.1.1.1", "198.51.100.65")
SECOND = columns("10.1.1.2", "198.51.100.66")


class Tables(unittest.TestCase):
    def setUp(self):
        self.table = m.NatTable(2, ["198.51.100.64/28"], 4)

    def put(self, *args, **faults):
        rows = self.table.test(bindings(*args), faults)
        self.table.replace(rows)
        return rows

    def refused(self, status, index, *args, **faults):
        before = self.table.rows
        with self.assertRaises(m.SnmpError) as caught:
            self.put(*args, **faults)
        self.assertEqual((caught.exception.status, caught.exception.index), (status, index),
                         caught.exception.reason)
        self.assertIs(self.table.rows, before, "a refused SET changes nothing")

    def test_create_and_go_shows_as_active_with_its_binding(self):
        self.put(1, FIRST, m.CREATE_AND_GO)
        self.assertEqual(self.table.get(m.MAP_ENTRY + (m.ROW_STATUS, 2, 1)), (m.INTEGER, m.ACTIVE))
        bound = self.table.get(m.BIND_ENTRY + (4, 2, 1, 4, 10, 1, 1, 1))
        self.assertEqual(bound, (m.OCTETS, address("198.51.100.65")))
        self.assertEqual(self.table.get(m.BIND_COUNT), (m.GAUGE, 1))

    def test_two_rows_in_one_set_are_taken_or_left_as_one(self):
        wrong = bindings(1, FIRST, m.CREATE_AND_GO) + bindings(
            2, columns("10.1.1.2", "192.0.2.1"), m.CREATE_AND_GO)
        with self.assertRaises(m.SnmpError):
            self.table.test(wrong, {})
        self.assertEqual(self.table.rows, {})

    def test_two_rows_of_one_set_may_swap_addresses(self):
        self.put(1, FIRST, m.CREATE_AND_GO)
        both = bindings(1, {}, m.DESTROY) + bindings(
            2, columns("10.1.1.2", "198.51.100.65"), m.CREATE_AND_GO)
        rows = self.table.test(both, {})
        self.assertEqual(list(rows), [(2, 2)])

    def test_step_by_step(self):
        self.put(1, {}, m.CREATE_AND_WAIT)
        self.assertEqual(self.table.rows[2, 1][m.ROW_STATUS], m.NOT_READY)
        self.refused(m.INCONSISTENT_VALUE, 1, 1, {}, m.ACTIVE)
        self.put(1, FIRST)
        self.assertEqual(self.table.rows[2, 1][m.ROW_STATUS], m.NOT_IN_SERVICE)
        self.assertNotIn("198", forwarding.script(self.table.rows))
        self.put(1, {}, m.ACTIVE)
        self.assertIn("{ 198.51.100.65 : 10.1.1.1 }", forwarding.script(self.table.rows))

    def test_refusals(self):
        self.put(1, FIRST, m.CREATE_AND_GO)
        self.refused(m.INCONSISTENT_VALUE, 11, 1, FIRST, m.CREATE_AND_GO)
        self.refused(m.INCONSISTENT_VALUE, 1, 1, {m.NAME: (m.OCTETS, b"x")})
        self.refused(m.INCONSISTENT_VALUE, 11, 2, columns("10.1.1.1", "198.51.100.66"), m.CREATE_AND_GO)
        self.refused(m.INCONSISTENT_VALUE, 11, 2, columns("10.1.1.2", "198.51.100.65"), m.CREATE_AND_GO)
        self.refused(m.INCONSISTENT_VALUE, 11, 2, columns("10.1.1.2", "198.51.100.80"), m.CREATE_AND_GO)
        self.refused(m.WRONG_TYPE, 1, 2, {m.NAME: (m.INTEGER, 1)})
        self.refused(m.WRONG_LENGTH, 1, 2, {m.LOCAL_FROM: (m.OCTETS, b"\x0a\0\1")})
        self.refused(m.WRONG_VALUE, 1, 2, {m.ENTRY_TYPE: (m.INTEGER, 2)})
        self.refused(m.NOT_WRITABLE, 1, 1, {m.ADDRESSES_USED: (m.GAUGE, 1)})
        self.refused(m.INCONSISTENT_NAME, 1, 9, {m.NAME: (m.OCTETS, b"x")})
        self.refused(m.NO_CREATION, 1, 1, {}, m.CREATE_AND_WAIT, 99)
        self.refused(m.NOT_WRITABLE, 1, 2, SECOND, m.CREATE_AND_GO, read_only=True)
        self.refused(m.RESOURCE_UNAVAILABLE, 11, 2, SECOND, m.CREATE_AND_GO, table_full=True)

    def test_destroying_an_absent_row_is_no_error(self):
        self.put(7, {}, m.DESTROY)
        self.assertEqual(self.table.rows, {})

    def test_table_has_an_end(self):
        for index in range(1, 5):
            self.put(index, columns(f"10.1.1.{index}", f"198.51.100.{64 + index}"), m.CREATE_AND_GO)
        self.refused(m.RESOURCE_UNAVAILABLE, 11, 5, columns("10.1.1.5", "198.51.100.69"),
                     m.CREATE_AND_GO)

    def test_walk_visits_every_instance_once_in_order(self):
        self.put(1, FIRST, m.CREATE_AND_GO)
        self.put(2, SECOND, m.CREATE_AND_GO)
        seen, at = [], m.NAT_MIB
        while (found := self.table.following(at)) is not None:
            at = found[0]
            seen.append(at)
        self.assertEqual(seen, sorted(self.table.view()))

    def test_only_changed_translations_are_named(self):
        before = self.table.rows
        after = self.put(1, FIRST, m.CREATE_AND_GO)
        self.assertEqual(m.changed_rows(before, after), [(2, 1)])
        self.assertEqual(m.changed_rows(after, self.put(2, {}, m.CREATE_AND_WAIT)), [])


class Files(unittest.TestCase):
    def test_rows_survive_and_volatile_ones_do_not(self):
        table = m.NatTable(2, ["198.51.100.64/28"], 4)
        kept = table.test(bindings(1, FIRST, m.CREATE_AND_GO), {})
        table.replace(kept)
        rows = table.test(bindings(2, {**SECOND, m.STORAGE_TYPE: (m.INTEGER, 2)}, m.CREATE_AND_GO), {})
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "rows.json")
            self.assertEqual(load_rows(path), {})
            save_rows(path, rows)
            self.assertEqual(load_rows(path), kept)

    def test_commit_failures_are_counted_off(self):
        with tempfile.TemporaryDirectory() as directory:
            faults = Faults(directory)
            self.assertFalse(faults.take_commit_failure())
            with open(os.path.join(directory, "commit_failed"), "w", encoding="ascii") as file:
                file.write("2")
            taken = [faults.take_commit_failure() for _ in range(3)]
            self.assertEqual(taken, [True, True, False])


if __name__ == "__main__":
    unittest.main()
