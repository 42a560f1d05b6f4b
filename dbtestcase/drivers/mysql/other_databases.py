"""Which databases a statement of MySQL's names: one connection reaches every database of its server.

Found are those of ``USE`` and the ones before the dot of a table's name, where such a name stands after a word that a
table follows; a column's (``shop.id``) is no database's.
"""

from __future__ import annotations

import functools
import re

_LONG = 20_000
_PART = r"(?:`((?:[^`]|``)+)`|([\w$]+))"
_BEFORE = (
    r"(?<!key )(?:from|join|into|update|table|exists|truncate|insert|replace|ignore|low_priority|delayed"
    r"|high_priority|quick|delete|call|to|view|trigger|procedure|function|sequence|event)"
)
_HIDDEN = r"'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.)*\"|/\*(?!M?!).*?\*/|--\s[^\n]*|#[^\n]*|extract\s*\([^)]*\)"
_ONE = r"(?:use|database|schema)(?:\s+if(?:\s+not)?\s+exists)?"


@functools.cache
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE | re.DOTALL)  # when first used: who imports this is mostly on another server


def names_database(statement: str | bytes, name: str) -> bool:
    """Whether a statement names a database; mostly its name is not even among the words."""
    if isinstance(statement, str):
        return name in statement and name in named_databases(statement)
    return name.encode() in statement and name in named_databases(bytes(statement).decode(errors="replace"))


def named_databases(text: str) -> frozenset[str]:
    """The databases that a statement names."""
    return _named(text) if len(text) < 500 else _named.__wrapped__(text[:_LONG])


@functools.lru_cache(maxsize=512)
def _named(text: str) -> frozenset[str]:
    bare = " ".join(_pattern(_HIDDEN).sub(lambda match: " " if match[0][0] in "/-#" else " ' ", text).split())
    found = [*_pattern(rf"\b{_BEFORE} {_PART} ?\.").findall(bare), *_pattern(rf"\b{_ONE} {_PART}").findall(bare)]
    return frozenset(quoted.replace("``", "`") or plain for quoted, plain in found)
