"""What stands beside tables on PostgreSQL (views, routines, triggers, …): the SQL that makes, changes and drops it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from ..sandbox import FILL, POSTGRESQL
from .naming import qualified, quoted
from .schema_state import Item, SchemaState

#: What stands by itself, and the word that drops it; what depends on others comes first.
WHOLES = {
    "event trigger": "EVENT TRIGGER",
    "publication": "PUBLICATION",
    "view": "VIEW",
    "materialized view": "MATERIALIZED VIEW",
    "foreign table": "FOREIGN TABLE",
    "cast": "CAST",
    "operator class": "OPERATOR CLASS",
    "operator family": "OPERATOR FAMILY",
    "operator": "OPERATOR",
    "aggregate": "AGGREGATE",
    "function": "FUNCTION",
    "procedure": "PROCEDURE",
    "statistics": "STATISTICS",
    "domain": "DOMAIN",
    "type": "TYPE",
    "range": "TYPE",
    "collation": "COLLATION",
    "text search configuration": "TEXT SEARCH CONFIGURATION",
    "text search dictionary": "TEXT SEARCH DICTIONARY",
    "server": "SERVER",
    "foreign-data wrapper": "FOREIGN DATA WRAPPER",
    "extension": "EXTENSION",
}
OF_TABLES = ("trigger", "rule", "policy")

#: All of it, with what belongs to a table.
KINDS = frozenset({*WHOLES, *OF_TABLES, "row security", "storage parameter"})

_NAMED_IN_FULL = frozenset(  # as pg_identify_object writes it
    kind for kind in WHOLES if kind.startswith(("cast", "operator", "text search", "server", "foreign-", "publication"))
)
_STATE = re.compile(r" \((DISABLE|ENABLE ALWAYS|ENABLE REPLICA)\)$")
_PLAIN = re.compile(r"[\w.]+")
_BODY = re.compile(r"\A(?P<head>.*?\n)AS (?P<tag>\$\w*\$)(?P<body>.*)(?P=tag)\s*\Z", re.DOTALL)
_FREE_TEXT = re.compile(r"LANGUAGE (?:sql|plpgsql)\b")


def create(item: Item, definition: str) -> list[str]:
    """The statements that make something, of what a snapshot says; none where it does not say enough."""
    name = qualified(item)
    state = _STATE.search(definition)
    plain = _STATE.sub("", definition)
    match item.kind:
        case "view" | "materialized view" | "event trigger":
            made = [f"CREATE {WHOLES[item.kind]} {name} {plain}"]
        case "function" | "procedure" | "rule" | "statistics" | "trigger":
            made = [plain]
        case "aggregate" | "collation":
            made = [f"CREATE {WHOLES[item.kind]} {name} ({definition})"]
        case "extension":
            made = [f"CREATE EXTENSION {quoted(item.name)}"]
        case "domain":
            made = [f"CREATE DOMAIN {name} AS {definition}"]
        case "range":
            made = [f"CREATE TYPE {name} AS RANGE (SUBTYPE = {definition})"]
        case "policy":
            made = [f"CREATE POLICY {quoted(item.part)} ON {name} {definition}"]
        case "row security":
            made = [f"ALTER TABLE {name} {item.part} ROW LEVEL SECURITY"]
        case "storage parameter":
            value = definition if _PLAIN.fullmatch(definition) else "'" + definition.replace("'", "''") + "'"
            made = [f"ALTER TABLE {name} SET ({quoted(item.part)} = {value})"]
        case _:
            return []
    if state and item.kind == "trigger":
        made.append(f"ALTER TABLE {name} {state[1]} TRIGGER {quoted(item.part)}")
    elif state:
        made.append(f"ALTER EVENT TRIGGER {name} {state[1]}")
    return made


def drop(item: Item) -> str | None:
    """The statement that drops something; a ``CASCADE`` may follow it."""
    match item.kind:
        case "trigger" | "rule" | "policy":
            return f"DROP {item.kind.upper()} {quoted(item.part)} ON {qualified(item)}"
        case "row security":
            word = "DISABLE" if item.part == "ENABLE" else "NO FORCE"
            return f"ALTER TABLE {qualified(item)} {word} ROW LEVEL SECURITY"
        case "storage parameter":
            return f"ALTER TABLE {qualified(item)} RESET ({quoted(item.part)})"
        case kind if kind in WHOLES:
            return f"DROP {WHOLES[kind]} {item.name if kind in _NAMED_IN_FULL else qualified(item)}"
    return None


def drop_all(items: Collection[Item]) -> Iterator[str]:
    """Statements that drop whatever stands by itself, and what needs it."""
    words = {"event trigger": "EVENT TRIGGER", "table": "TABLE", **WHOLES, "sequence": "SEQUENCE", "enum": "TYPE"}
    for kind, word in words.items():
        names = [_full(item) for item in items if item.kind == kind and not item.part]
        apart = kind in _NAMED_IN_FULL or kind == "event trigger"
        for some in [[name] for name in names] if apart else [names] if names else []:
            yield f"DROP {word} IF EXISTS {', '.join(some)} CASCADE"


def _full(item: Item) -> str:
    if item.kind in _NAMED_IN_FULL:
        return item.name
    name = item.name if item.name.endswith(")") else _always_quoted(item.name)
    return f"{_always_quoted(item.schema)}.{name}" if item.schema else name


def _always_quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def owner_of(part: Item, state: SchemaState) -> Item | None:
    """The view or type that a part belongs to; ``None`` where that is a table."""
    owners = (Item(kind, part.schema, part.name) for kind in ("view", "materialized view", "domain", "type"))
    return next((owner for owner in owners if owner in state), None)


def comment_on(item: Item, state: SchemaState) -> str:
    """What a comment is on, as SQL: ``VIEW billing.unpaid``."""
    what, _, name = item.name.partition(" ")
    if name and what in ("type", "function", "index", "schema"):
        word = "ROUTINE" if what == "function" else what.upper()
        return f"{word} {qualified(item._replace(name=name))}" if what != "schema" else f"SCHEMA {quoted(name)}"
    part, _, of_part = item.part.partition(" ")
    owner = owner_of(item, state)
    if of_part and part in ("constraint", "trigger"):
        on = "DOMAIN " if owner is not None and owner.kind == "domain" else ""
        return f"{part.upper()} {quoted(of_part)} ON {on}{qualified(item)}"
    if item.part:
        return f"COLUMN {qualified(item)}.{quoted(item.part)}"
    return f"{owner.kind.upper() if owner is not None else 'TABLE'} {qualified(item)}"


def same(item: Item, one: str, other: str) -> bool:
    """Whether two definitions come to the same: in a function, blanks, comments and case make no difference."""
    if one == other:
        return True
    if item.kind not in ("function", "procedure"):
        return item.kind == "extension"  # a version that the revisions name is theirs
    return _squeezed(one) == _squeezed(other)


def _squeezed(definition: str) -> str:
    found = _BODY.match(definition)
    if found is None or not _FREE_TEXT.search(found["head"]):
        return definition
    body = found["body"]
    masked = POSTGRESQL.mask(body)
    words = []
    for match in re.finditer(rf"[\"'$\w]*{FILL}+[\"'$\w]*|\w+|\S", masked):
        text = body[match.start() : match.end()]
        words.append(text if FILL in match[0] else text.lower())
    return found["head"] + " ".join(words)
