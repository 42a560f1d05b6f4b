"""What it costs to read a statement for the first time: python -m tests.benchmarks.bench_reading

Wide statements as SQLAlchemy writes them, once each by every dialect's reader, and texts that are hostile to a reader.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from dbtestcase.drivers.mysql import statements as mysql
from dbtestcase.drivers.sqlite import statements as sqlite
from dbtestcase.sandbox.statements import classify
from tests.benchmarks.measure import finish, print_table, verdict

STATEMENTS = 1000
STATEMENT_LIMIT = 50e-6
KILOBYTE_LIMIT = 1e-3

COLUMNS = ", ".join(f"users.column_{i} AS users_column_{i}" for i in range(75))
WIDE = f"SELECT {COLUMNS} FROM users WHERE users.id = %s AND lower(users.name) = %s"
READERS: dict[str, Callable[[str], object]] = {
    "postgresql": classify,
    "sqlite": sqlite.read,
    "mysql": lambda text: (mysql.read(text), mysql.committing_part(text)),
}
HOSTILE = {
    "10,000 blanks": "\n" + " " * 10_000 + "-- end\n",
    "1,000 comment lines": "    -- a note\n" * 1_000 + "SELECT 1",
    "100 kB of literals": "SELECT " + "'for update; commit', " * 4_600 + "1",
    "100 kB of calls": "SELECT " + "f(" * 50_000,
    "a script of 100 kB": "CREATE TABLE t (begin int);" * 3_700,
}


def seconds(read: Callable[[str], object], texts: list[str]) -> float:
    began = time.process_time()
    for text in texts:
        read(text)
    return time.process_time() - began


def main() -> None:
    rows: list[tuple[str, float, str]] = []
    kept = []
    for dialect, read in READERS.items():
        each = seconds(read, [f"{WIDE} LIMIT {i}" for i in range(STATEMENTS)]) / STATEMENTS
        rows.append((f"{dialect}: a new statement of {len(WIDE) / 1000:.1f} kB", each, ""))
        kept.append((f"{dialect}: a new statement, µs", each * 1e6, STATEMENT_LIMIT * 1e6))
        for name, text in HOSTILE.items():
            each = seconds(read, [text]) / (len(text) / 1000)
            rows.append((f"{dialect}: {name}", each, "a kB"))
            kept.append((f"{dialect}: {name}, µs a kB", each * 1e6, KILOBYTE_LIMIT * 1e6))
    print_table("A statement that is read for the first time", rows, "us")
    finish([verdict(*each) for each in kept])


if __name__ == "__main__":
    main()
