"""What is in a MySQL or MariaDB database: definitions, rows, counters; and how it is emptied."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

from .admin import Admin
from .definitions import read_definitions
from .link import quoted
from .rows import settle_sequence

_COUNTER = re.compile(r"\n\) ENGINE=\w+ AUTO_INCREMENT=(\d+)")


@dataclass(frozen=True)
class Content:
    """What is in a database."""

    digest: str
    """Of the definitions and the rows."""
    counters: dict[str, int] = field(default_factory=dict)
    """Where the counter of each table that has one, and each sequence, stands; a rollback does not take them back."""
    engines: list[tuple[str, str]] = field(default_factory=list)
    """The tables whose rows no rollback takes back, with their engines."""


def relations(admin: Admin, database: str) -> list[tuple[str, str]]:
    """The names of tables and views with their kinds, such as ``BASE TABLE``."""
    return [(str(name), str(kind)) for name, kind in admin.rows(f"SHOW FULL TABLES FROM {quoted(database)}")]


def read_content(admin: Admin, database: str) -> Content:
    """Read definitions, counters and rows."""
    digest = hashlib.sha256()
    counters = {}
    tables = []

    def add(*values: object) -> None:
        digest.update(repr(values).encode())

    for name, kind in relations(admin, database):
        place = f"{quoted(database)}.{quoted(name)}"
        if kind == "SEQUENCE":
            ((counters[name],),) = admin.rows(f"SELECT next_not_cached_value FROM {place}")
        elif kind != "VIEW":
            tables.append(place)
            counter = _COUNTER.search(str(admin.rows(f"SHOW CREATE TABLE {place}")[0][1]))
            if counter is not None:
                counters[name] = int(counter[1])
    add(sorted(read_definitions(admin.rows, database).items()))
    if tables:
        add(admin.rows("CHECKSUM TABLE " + ", ".join(tables)))
    return Content(digest.hexdigest(), counters, _without_transactions(admin, database))


def settle_sequences(admin: Admin, database: str) -> None:
    """Let the sequences say which value comes next, so that it can be put back."""
    for name, kind in relations(admin, database):
        if kind == "SEQUENCE":
            settle_sequence(admin.rows, f"{quoted(database)}.{quoted(name)}")


def restore(admin: Admin, database: str, made: Content) -> bool:
    """Set the counters back as they were made; ``False`` where definitions or rows have changed."""
    now = read_content(admin, database)
    if now.digest != made.digest:
        return False
    kinds = dict(relations(admin, database))
    for name in now.counters.keys() | made.counters.keys():
        start = made.counters.get(name, 1)
        if now.counters.get(name, 1) != start:
            place = f"{quoted(database)}.{quoted(name)}"
            if kinds[name] == "SEQUENCE":
                admin.run(f"ALTER SEQUENCE {place} RESTART {int(start)}")
            else:
                admin.run(f"ALTER TABLE {place} AUTO_INCREMENT = {int(start)}")
    return True


def drop_everything(admin: Admin, database: str) -> None:
    """Drop views, tables (whatever their foreign keys), functions, procedures and events."""
    admin.run("SET SESSION foreign_key_checks = 0")
    try:
        for name, kind in sorted(relations(admin, database), key=lambda item: item[1] == "BASE TABLE"):
            what = {"VIEW": "VIEW", "SEQUENCE": "SEQUENCE"}.get(kind, "TABLE")
            admin.run(f"DROP {what} IF EXISTS {quoted(database)}.{quoted(name)}")
        for name, kind in admin.rows(
            "SELECT ROUTINE_NAME, ROUTINE_TYPE FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = %s"
            " UNION ALL SELECT EVENT_NAME, 'EVENT' FROM information_schema.EVENTS WHERE EVENT_SCHEMA = %s",
            (database, database),
        ):
            admin.run(f"DROP {kind} IF EXISTS {quoted(database)}.{quoted(name)}")
    finally:
        admin.run("SET SESSION foreign_key_checks = 1")


def _without_transactions(admin: Admin, database: str) -> list[tuple[str, str]]:
    rows = admin.rows(
        "SELECT t.TABLE_NAME, t.ENGINE FROM information_schema.TABLES t JOIN information_schema.ENGINES e"
        " ON e.ENGINE = t.ENGINE WHERE t.TABLE_SCHEMA = %s AND t.TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED')"
        " AND coalesce(e.TRANSACTIONS, 'NO') <> 'YES' ORDER BY t.TABLE_NAME",
        (database,),
    )
    return [(str(name), str(engine)) for name, engine in rows]
