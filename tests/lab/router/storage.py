"""What the test router remembers over a restart, and the switches of its faults."""

import json
import os

from nat_mib import STORAGE_NON_VOLATILE, STORAGE_TYPE


def _encode(value):
    return {"hex": value.hex()} if isinstance(value, bytes) else value


def _decode(value):
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else value


def load_rows(path):
    if not os.path.exists(path):
        return {}
    with open(path, encoding="ascii") as file:
        return {
            tuple(row["index"]): {int(c): _decode(v) for c, v in row["columns"].items()}
            for row in json.load(file)
        }


def save_rows(path, rows):
    """Replaces the file by rename; rows that are to be volatile are left out."""
    kept = [
        {"index": list(key), "columns": {str(c): _encode(v) for c, v in row.items()}}
        for key, row in rows.items()
        if row.get(STORAGE_TYPE, STORAGE_NON_VOLATILE) >= STORAGE_NON_VOLATILE
    ]
    temporary = path + ".new"
    with open(temporary, "w", encoding="ascii") as file:
        json.dump(kept, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


class Faults:
    """A directory in which a file is a switch that is on: read_only, table_full, hang and
    commit_failed, which holds the number of commits that are still to fail."""

    def __init__(self, directory):
        self.directory = directory

    def on(self):
        try:
            return {name: True for name in os.listdir(self.directory)}
        except FileNotFoundError:
            return {}

    def take_commit_failure(self):
        """Whether this commit is to fail; counts it off."""
        path = os.path.join(self.directory, "commit_failed")
        try:
            with open(path, encoding="ascii") as file:
                left = int(file.read())
        except FileNotFoundError:
            return False
        if left <= 1:
            os.unlink(path)
        else:
            with open(path, "w", encoding="ascii") as file:
                file.write(str(left - 1))
        return left > 0
