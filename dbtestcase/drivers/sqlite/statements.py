"""What SQLite and Python's ``sqlite3`` read out of a string of SQL: decisions only, no I/O."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import quote

from ...sandbox import (
    FILL,
    PART,
    SQLITE,
    Fail,
    Kind,
    Rows,
    Rules,
    SchemaFacts,
    SessionObjects,
    Stack,
    Statement,
    TemporaryNames,
    Wire,
    classify,
    common_objects,
    register_objects,
    register_rules,
)

_BEFORE = " \t\n\r\f\v;"
_FIRST = re.compile(r"[;\s]*+([A-Za-z]++)")
_DML = {"insert", "update", "delete", "replace"}
_OR_ROLLBACK = re.compile(r"[;\s]*+(?:insert|update)\s++or\s++(rollback)\b", re.IGNORECASE)
_OR_FAIL = re.compile(r"[;\s]*+(?:insert|update)\s++or\s++fail\b", re.IGNORECASE)
_PRAGMA = re.compile(
    rf"[;\s]*+pragma\s++(?:{PART}\s*+\.\s*+)?(?P<name>\w++)\s*+"
    r"(?:=(?P<equals>[^;]++)|\((?P<call>[^;)]*+)\))?[\s;]*+$",
    re.IGNORECASE,
)
_CONTROL = re.compile(
    r"[;\s]*+(begin|commit|end|rollback)(?:\s++(deferred|immediate|exclusive))?(?:\s++transaction(?:\s++\S++)?)?[\s;]*+$",
    re.IGNORECASE,
)
_ATTACH = re.compile(
    rf"[;\s]*+attach\s++(?:database\s++)?(?P<file>'{FILL}*+'|[^\s;]++)\s++as\s++(?P<alias>{PART}|'{FILL}*+')[\s;]*+$",
    re.IGNORECASE,
)

#: Flags of one connection, which can be changed at any time and do not belong to the database.
FLAGS = frozenset(
    {
        "case_sensitive_like",
        "cell_size_check",
        "defer_foreign_keys",
        "ignore_check_constraints",
        "legacy_alter_table",
        "query_only",
        "read_uncommitted",
        "recursive_triggers",
        "reverse_unordered_selects",
        "trusted_schema",
        "writable_schema",
    }
)
#: Values of one connection, likewise.
VALUES = frozenset({"analysis_limit", "automatic_index", "busy_timeout", "cache_size", "mmap_size", "threads"})
#: What SQLite refuses inside a transaction, or would do to the file of a database that is thrown away.
POINTLESS = frozenset(
    {
        "auto_vacuum",
        "encoding",
        "journal_mode",
        "journal_size_limit",
        "locking_mode",
        "page_size",
        "secure_delete",
        "synchronous",
        "temp_store",
        "temp_store_directory",
        "wal_autocheckpoint",
        "wal_checkpoint",
    }
)
#: Those that write into the database itself.
WRITING = frozenset({"application_id", "incremental_vacuum", "optimize", "schema_version", "user_version"})


class SQLiteRules(Rules):
    """SQLite 3.35 and later: savepoints as they are, DDL in transactions, one writer at a time."""

    name = "sqlite"
    begin = "BEGIN"
    end = "ROLLBACK"
    connects_early = True  # PRAGMA foreign_keys
    one_writer = True
    counters_roll_back = True
    no_savepoint = ("OperationalError", "no such savepoint: {}")
    nothing = "PRAGMA dbtc_nothing"
    # a statement that finds no row fires no trigger, but for BEFORE INSERT and those of views, whose rows do not count
    trigger_counts = (
        "WITH t AS (SELECT tbl_name IN (SELECT name FROM sqlite_master WHERE type = 'view') AS view FROM sqlite_master"
        " WHERE type = 'trigger' UNION ALL SELECT 1 FROM sqlite_temp_master WHERE type = 'trigger')"
        " SELECT count(*), coalesce(sum(view), 0), coalesce(sum(view), 0) FROM t"
    )
    any_case = True
    relations = (
        "WITH k AS (SELECT m.name AS child, f.\"table\" AS parent, on_update || ' ' || on_delete AS rules"
        " FROM sqlite_master m JOIN pragma_foreign_key_list(m.name) f WHERE m.type = 'table')"
        " SELECT type, name, '' FROM sqlite_master WHERE type IN ('table', 'view')"
        " UNION ALL SELECT 'trigger', tbl_name, '' FROM sqlite_master WHERE type = 'trigger'"
        " UNION ALL SELECT 'trigger', tbl_name, '' FROM sqlite_temp_master WHERE type = 'trigger'"
        " UNION ALL SELECT 'cascade', parent, child FROM k WHERE rules LIKE '%CASCADE%' OR rules LIKE '%SET %'"
        " UNION ALL SELECT 'check', child, parent FROM k UNION ALL SELECT 'check', parent, child FROM k"
    )
    # sqlite_master keeps the words of the table's CREATE statement; nothing else says what is deferred
    deferred_names = (
        "SELECT coalesce(group_concat(name), '') FROM sqlite_master WHERE type = 'table'"
        " AND sql LIKE '%deferrable%initially%deferred%'"
    )

    def check_deferred(self, names: str) -> list[str]:
        return ["PRAGMA foreign_key_check"]

    def __init__(self) -> None:
        self.known_violations: frozenset[tuple[object, ...]] = frozenset()
        """Rows without a parent that were in the database before any test."""

    def violation(self, rows: Rows) -> str:
        return "FOREIGN KEY constraint failed" if any(row not in self.known_violations for row in rows) else ""


@dataclass(frozen=True, slots=True)
class Pragma:
    """A ``PRAGMA`` statement; ``value`` is ``None`` where it only asks."""

    name: str
    value: str | None
    does: Literal["asks", "flags", "foreign_keys", "pointless", "writes"]


def read(text: str) -> Statement:
    """:func:`~dbtestcase.sandbox.statements.classify` with what only SQLite has."""
    return _read(text) if len(text) < 20_000 else _read.__wrapped__(text)


@functools.lru_cache(maxsize=2048)
def _read(text: str) -> Statement:
    statement = classify(text, SQLITE)
    word = _first_word(text)
    if word in ("attach", "detach", "explain"):
        return replace(statement, kind=Kind.READ)
    if word in ("analyze", "reindex"):
        return replace(statement, kind=Kind.WRITE)
    if word == "pragma":
        pragma = parse_pragma(text)
        return replace(statement, kind=Kind.WRITE if pragma is not None and pragma.does == "writes" else Kind.READ)
    if statement.counts and "returning" in text.lower():
        return replace(statement, counts=False)  # sqlite3 counts the rows only when they have been fetched
    match = _OR_ROLLBACK.match(_readable(text)) if statement.kind is Kind.WRITE else None
    if match is not None:
        return replace(statement, rewrite=f"{text[: match.start(1)]}ABORT{text[match.end(1) :]}")
    return statement


def _readable(text: str) -> str:
    """The text, masked where it begins with a comment: its first words stand where they stood."""
    return SQLITE.mask(text) if text.lstrip(_BEFORE)[:1] in "-/" else text


def _first_word(text: str) -> str:
    match = _FIRST.match(_readable(text))
    return match[1].lower() if match else ""


def begins_transaction(text: str) -> bool:
    """Whether ``sqlite3`` in its legacy mode begins a transaction before the statement."""
    return _first_word(text) in _DML


def keeps_part(text: str) -> bool:
    """Whether the statement, when it fails, keeps the rows that it has written already."""
    return _OR_FAIL.match(_readable(text)) is not None


def control_word(text: str) -> str:
    """``begin``, ``begin immediate``, ``commit`` or ``rollback`` if that is the whole statement, else nothing."""
    match = _CONTROL.match(SQLITE.mask(text))
    if match is None:
        return ""
    word = match[1].lower()
    if word == "begin" and (match[2] or "").lower() in ("immediate", "exclusive"):
        return "begin immediate"
    return "commit" if word == "end" else word


def parse_pragma(text: str) -> Pragma | None:
    """Take a ``PRAGMA`` apart; ``None`` where it cannot be."""
    match = _PRAGMA.match(SQLITE.mask(text))
    if match is None:
        return None
    name = match["name"].lower()
    begin, end = match.span("equals" if match["equals"] is not None else "call")
    value = text[begin:end].strip().strip("'\"") if begin >= 0 else None
    if name in WRITING and (value is not None or name in ("incremental_vacuum", "optimize")):
        return Pragma(name, value, "writes")
    if value is None and name != "wal_checkpoint":
        return Pragma(name, None, "asks")
    if name == "foreign_keys":
        return Pragma(name, value, "foreign_keys")
    if name in FLAGS or name in VALUES:
        return Pragma(name, value, "flags")
    return Pragma(name, value, "pointless" if name in POINTLESS else "asks")


def is_on(value: str) -> bool:
    """How SQLite reads a boolean."""
    return value.lower() in ("1", "on", "yes", "true") or (value.isdigit() and int(value) != 0)


def parse_attach(text: str, parameters: Any = ()) -> tuple[str, str] | None:
    """The file and the alias of an ``ATTACH``; a file that an expression makes as it was written."""
    match = _ATTACH.match(SQLITE.mask(text)) if "attach" in text.lower() else None
    if match is None:
        return None
    file, alias = (text[slice(*match.span(group))] for group in ("file", "alias"))
    return _file_of(file, parameters), alias.strip("'\"`[]").lower()


def attach_as_file(file: str, alias: str) -> tuple[str, tuple[str]] | None:
    """Attach a file to a database of SQLite's memdb, which would look for it in there; None: as it was."""
    if not file or file.startswith(("file:", "?", ":", "@", "$")):  # one in memory, or a parameter that is not there
        return None
    uri = f"file:{quote(os.path.abspath(file))}?vfs={'win32' if os.name == 'nt' else 'unix'}"
    return f'ATTACH DATABASE ? AS "{alias}"', (uri,)


def _file_of(written: str, parameters: Any) -> str:
    if (first := written[0]) in "'\"":
        return written[1:-1].replace(first * 2, first)
    name, value = written[1:], None
    if first in "?:@$" and isinstance(parameters, Mapping):
        value = parameters.get(name)
    elif first in "?:@$":
        value = [*parameters, None][min(int(name) - 1 if name.isdigit() else 0, len(parameters))]
    return os.fsdecode(value) if isinstance(value, str | bytes) else written


def _objects(rules: Rules, wire: Wire, facts: SchemaFacts, stack: Stack, fail: Fail) -> list[SessionObjects]:
    drop = 'DROP TABLE IF EXISTS temp."{}"'
    return [*common_objects(rules, wire, facts, stack, fail), TemporaryNames(drop, SQLITE, rolls_back=True)]


register_rules("sqlite", SQLiteRules)
register_objects("sqlite", _objects)
