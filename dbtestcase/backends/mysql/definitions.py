"""Everything in a database of MySQL or MariaDB but its rows, in the words of ``SHOW CREATE``; and how it is put back.

They are the statements that ``mariadb-dump`` is made of, so what no definition here tells, no dump tells either.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .link import Link, Rows, ServerSaid, literal, number_of, quoted

Key = tuple[str, str]
"""Kind and name.  The kind is the word of ``DROP``; triggers and tables have names of their own."""

_COUNTER = re.compile(r"(\n\) ENGINE=\w+) AUTO_INCREMENT=\d+")
_NO_DATABASE = 1049
_MISSING = {_NO_DATABASE, 1146, 1305, 1360, 1539, 4089, 4091}
_ORDER = (
    "DATABASE",
    "SEQUENCE",
    "TABLE",
    "FUNCTION",
    "PROCEDURE",
    "PACKAGE",
    "PACKAGE BODY",
    "VIEW",
    "TRIGGER",
    "EVENT",
)
_ENCODINGS = {"utf8mb4": "utf-8", "utf8mb3": "utf-8", "utf8": "utf-8", "latin1": "cp1252", "ascii": "ascii"}


@dataclass(frozen=True)
class Definition:
    """What one object is.

    ``text``: the statement that makes it, without a counter of ids.  ``settings``: those of the session that made it,
    in the order ``sql_mode``, ``time_zone``, ``character_set_client``, ``collation_connection``, where it keeps any.
    ``table`` and ``place``: a trigger's table, and its number among those of the database.
    """

    text: str
    settings: tuple[str, ...] = ()
    table: str = ""
    place: int = 0


def names_of(rows: Rows, database: str) -> list[tuple[Key, str, int]]:
    """Everything that there is, each with a trigger's table and its number there; nothing without the database."""
    place = quoted(database)
    try:
        tables = rows(f"SHOW FULL TABLES FROM {place}")
    except Exception as error:
        if number_of(error) != _NO_DATABASE:
            raise
        return []
    found: list[tuple[Key, str, int]] = [(("DATABASE", database), "", 0)]
    found += [((kind if kind in ("VIEW", "SEQUENCE") else "TABLE", str(name)), "", 0) for name, kind in tables]
    for kind in ("ROUTINE", "EVENT"):
        type_of = "ROUTINE_TYPE" if kind == "ROUTINE" else "'EVENT'"
        for word, name in rows(
            f"SELECT {type_of}, {kind}_NAME FROM information_schema.{kind}S WHERE {kind}_SCHEMA = {literal(database)}"
        ):
            found.append(((str(word), str(name)), "", 0))
    numbers: dict[str, int] = {}
    for name, _, table, *_ in rows(f"SHOW TRIGGERS FROM {place}"):
        numbers[table] = numbers.get(table, 0) + 1
        found.append((("TRIGGER", str(name)), str(table), numbers[table]))
    return found


def read_definitions(rows: Rows, database: str) -> dict[Key, Definition]:
    """The definitions of everything in a database."""
    found = {}
    for key, table, place in names_of(rows, database):
        definition = read_definition(rows, database, key, table, place)
        if definition is not None:
            found[key] = definition
    return found


def read_definition(rows: Rows, database: str, key: Key, table: str = "", place: int = 0) -> Definition | None:
    """The definition of one object; ``None`` where it is gone."""
    kind, name = key
    what = quoted(name) if kind == "DATABASE" else f"{quoted(database)}.{quoted(name)}"
    try:
        ((_, *found),) = rows(f"SHOW CREATE {kind} {what}")
    except Exception as error:
        if number_of(error) in _MISSING:
            return None
        raise
    values = [str(value) for value in found]
    if kind in ("DATABASE", "SEQUENCE"):
        return Definition(values[0])
    if kind == "TABLE":
        return Definition(_COUNTER.sub(r"\1", values[0]))
    if kind == "VIEW":
        text, client, collation = values
        return Definition(text, ("", "", client, collation))
    if kind == "EVENT":
        mode, zone, text, client, collation, _ = values
        return Definition(text, (mode, zone, client, collation))
    mode, text, client, collation = values[:4]
    return Definition(text, (mode, "", client, collation), table, place)


def restore_definitions(link: Link, wanted: Mapping[Key, Definition], found: Mapping[Key, Definition]) -> set[str]:
    """Drop what is new or different, and make what is missing; the tables that are new, and empty."""
    different = {key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key)}
    tables = {name for kind, name in different if kind == "TABLE"}
    around = {each.table for key in different if (each := wanted.get(key) or found.get(key)) is not None and each.table}
    different |= {
        key for key, each in [*wanted.items(), *found.items()] if each.table and each.table in tables | around
    }
    database = ("DATABASE", link.database)
    if database in different:
        _restore_database(link, wanted[database].text, found.get(database))
        different.discard(database)
    gone = {name for kind, name in different & found.keys() if kind == "TABLE"}
    for kind, name in sorted(different & found.keys(), key=_rank, reverse=True):
        if found[kind, name].table not in gone:
            _drop(link, kind, name)
    create(link, {key: wanted[key] for key in different & wanted.keys()})
    return tables & {name for kind, name in wanted if kind == "TABLE"}


def _drop(link: Link, kind: str, name: str) -> None:
    if not kind.startswith("PACKAGE"):
        link.rows(f"DROP {kind} IF EXISTS {quoted(name)}")
        return
    link.rows("SET SESSION sql_mode = 'ORACLE'")  # the word is known nowhere else
    try:
        link.rows(f"DROP {kind} IF EXISTS {quoted(name)}")
    finally:
        link.settle()


def create(link: Link, definitions: Mapping[Key, Definition]) -> None:
    """Make objects; what needs another one, such as a view on a view, is tried again after it."""
    waiting = sorted(definitions, key=lambda key: (_rank(key), definitions[key].place))
    problem: ServerSaid | None = None
    while waiting:
        left = []
        for key in waiting:
            try:
                _run(link, definitions[key])
            except ServerSaid as error:
                if error.lost or error.locked or key[0] != "VIEW":
                    raise
                problem = error
                left.append(key)
        if problem is not None and len(left) == len(waiting):
            raise problem
        waiting = left


def _rank(key: Key) -> tuple[int, str]:
    return _ORDER.index(key[0]), key[1]


def _run(link: Link, definition: Definition) -> None:
    if not definition.settings:
        link.rows(definition.text)
        return
    mode, zone, client, collation = definition.settings
    settings = [
        f"character_set_client = {client}",
        f"collation_connection = {collation}",
        f"sql_mode = {literal(mode)}",
    ]
    if zone:
        settings.append(f"time_zone = {literal(zone)}")
    link.rows("SET SESSION " + ", ".join(settings))
    try:
        link.rows(definition.text.encode(_ENCODINGS.get(client, "ascii"), "strict"))
    finally:
        link.settle()


def _restore_database(link: Link, text: str, found: Definition | None) -> None:
    if found is None:
        link.rows(text)
        link.rows(f"USE {quoted(link.database)}")
        return
    comment = " COMMENT ''" if " COMMENT " in found.text and " COMMENT " not in text else ""
    link.rows("ALTER" + text.removeprefix("CREATE") + comment)
