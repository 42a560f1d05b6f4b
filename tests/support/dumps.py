"""Full dumps of a database of MariaDB or SQLite, by a program or a connection of its own."""

import shutil
import sqlite3
import subprocess
from contextlib import closing
from typing import Any

from sqlalchemy import URL

from tests.support.mariadb import connect

PRAGMAS = ("user_version", "application_id", "journal_mode", "auto_vacuum", "encoding", "page_size")


def dump_of(url: URL, *, by_program: bool) -> list[str]:
    """Everything that is in a database, in lines.

    :param by_program: ask ``mariadb-dump``, where there is one; else a connection asks what the program does.
    """
    if url.get_backend_name() == "sqlite":
        return _sqlite(url)
    program = shutil.which("mariadb-dump") if by_program else None
    return _mariadb_dump(program, url) if program else _mariadb_read(url)


def _sqlite(url: URL) -> list[str]:
    uri = f"{url.database}?vfs={url.query['vfs']}" if "vfs" in url.query else f"file:{url.database}"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        connection.text_factory = bytes
        facts = [f"{each}: {connection.execute(f'PRAGMA {each}').fetchall()}" for each in PRAGMAS]
        master = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY 1, 2"
        schema = [repr(row) for row in connection.execute(master)]
        rows = []
        for kind, name, _, _ in connection.execute(master).fetchall():
            if kind == b"table":
                quoted = name.decode().replace('"', '""')
                rows += (
                    [f"{name} {row!r}" for row in connection.execute(f'SELECT rowid, * FROM "{quoted}"')]
                    if not (_without_rowid(connection, quoted))
                    else [f"{name} {row!r}" for row in connection.execute(f'SELECT * FROM "{quoted}"')]
                )
        return facts + schema + rows


def _without_rowid(connection: sqlite3.Connection, quoted: str) -> bool:
    try:
        connection.execute(f'SELECT rowid FROM "{quoted}" LIMIT 0')
    except sqlite3.OperationalError:
        return True
    return False


def _mariadb_dump(program: str, url: URL) -> list[str]:
    command = [
        program,
        f"--socket={url.query['unix_socket']}",
        f"--user={url.username}",
        *("--routines", "--events", "--triggers", "--dump-history", "--skip-comments", "--skip-extended-insert"),
        *("--hex-blob", "--single-transaction", "--order-by-primary", "--databases", str(url.database)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stderr}")
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    return lines + _beside_the_dump(url)


def _beside_the_dump(url: URL) -> list[str]:
    """What the program leaves out: options of sequences, the times of a history, values of invisible columns."""
    found: list[str] = []
    with closing(connect(url, url.database)) as connection, connection.cursor() as cursor:

        def ask(query: str) -> list[Any]:
            cursor.execute(query)
            return list(cursor.fetchall())

        for name, kind in ask("SHOW FULL TABLES"):
            quoted = "`" + name.replace("`", "``") + "`"
            if kind == "SEQUENCE":
                found += [f"{name} {row}" for row in ask(f"SHOW CREATE SEQUENCE {quoted}")]
                found += [f"{name} {row}" for row in ask(f"SELECT * FROM {quoted}")]
            elif kind == "SYSTEM VERSIONED":
                columns = ask(f"SHOW COLUMNS FROM {quoted}")
                period = "" if any(column[0] == "since" for column in columns) else ", row_start, row_end"
                found += sorted(f"{name} {row}" for row in ask(f"SELECT *{period} FROM {quoted} FOR SYSTEM_TIME ALL"))
            elif any("INVISIBLE" in str(column[5]) for column in ask(f"SHOW COLUMNS FROM {quoted}")):
                names = ", ".join(f"`{column[0]}`" for column in ask(f"SHOW COLUMNS FROM {quoted}"))
                found += [f"{name} {row}" for row in ask(f"SELECT {names} FROM {quoted} ORDER BY 1")]
    return found


def _mariadb_read(url: URL) -> list[str]:
    found = _beside_the_dump(url)
    with closing(connect(url, url.database)) as connection, connection.cursor() as cursor:

        def ask(query: str) -> list[Any]:
            cursor.execute(query)
            return list(cursor.fetchall())

        found += [str(row) for row in ask(f"SHOW CREATE DATABASE `{url.database}`")]
        for name, kind in ask("SHOW FULL TABLES"):
            quoted = "`" + name.replace("`", "``") + "`"
            if kind != "SEQUENCE":
                found += [str(row) for row in ask(f"SHOW CREATE TABLE {quoted}")]
                found += sorted(f"{name} {row}" for row in ask(f"SELECT * FROM {quoted}"))
        for what in ("ROUTINE", "EVENT"):
            kind = "ROUTINE_TYPE" if what == "ROUTINE" else "'EVENT'"
            names = ask(f"SELECT {kind}, {what}_NAME FROM information_schema.{what}S WHERE {what}_SCHEMA = DATABASE()")
            for word, name in sorted(names):
                found += [str(row) for row in ask(f"SHOW CREATE {word} `{name}`")]
        found += [str((*row[:5], *row[6:])) for row in ask("SHOW TRIGGERS")]
    return found
