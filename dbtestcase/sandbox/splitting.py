"""Where the statements of a string begin and end; the semicolons in the body of a routine are its own."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

from .lexer import FILL, POSTGRESQL, Lexer

BLANKS = "".join(c for c in map(chr, range(min(sys.maxunicode, 0x3001))) if c.isspace())
"""Every character that Python takes for a blank."""

ROUTINES = frozenset({"function", "procedure", "trigger", "event"})
_OBJECTS = ROUTINES | {"table", "view", "materialized", "index", "type", "domain", "sequence", "schema", "rule", "cast"}
_LEAD = re.compile(r"[;\s]*+")
_TOKEN = re.compile(rf"[^\W\d][\w$]*+|{FILL}++|[^\s\w]")


def split(text: str, lexer: Lexer = POSTGRESQL) -> Iterator[str]:
    """Yield the statements of a string, without blanks and comments at their ends, empty ones left out."""
    for begin, end in statement_spans(lexer.mask(text)):
        yield text[begin:end]


def statement_spans(masked: str) -> list[tuple[int, int]]:
    """Where the statements of a masked text begin and end."""
    length = len(masked.rstrip(BLANKS + ";"))
    lead = _LEAD.match(masked)
    begin = lead.end() if lead is not None else 0
    if begin >= length:
        return []
    if masked.find(";", begin, length) < 0:
        return [(begin, length)]
    lowered = masked.lower()
    if "begin" in lowered and "create" in lowered:
        ends, closed = _ends_outside_of_bodies(masked, length)
        if closed:  # a body that never ends was none: `begin` may be the name of a column
            return _spans(masked, ends, length)
    return _spans(masked, [m.start() for m in re.finditer(";", masked[:length])], length)


def _spans(masked: str, ends: list[int], length: int) -> list[tuple[int, int]]:
    found = []
    begin = 0
    for end in (*ends, length):
        part = masked[begin:end]
        stripped = part.strip(BLANKS)
        if stripped:
            start = begin + len(part) - len(part.lstrip(BLANKS))
            found.append((start, start + len(stripped)))
        begin = end + 1
    return found


def _ends_outside_of_bodies(masked: str, length: int) -> tuple[list[int], bool]:
    """The semicolons that end a statement, and whether the last body has ended."""
    ends: list[int] = []
    words = body = depth = 0
    last = created = ""
    for match in _TOKEN.finditer(masked, 0, length):
        token = match[0].lower()
        if token == ";":
            if not body:
                ends.append(match.start())
                words, depth, last, created = 0, 0, "", ""
        elif len(token) > 1 or token.isalpha() or token == "_":
            if not words:
                created = "?" if token == "create" else ""
            words += 1
            if created == "?" and token in _OBJECTS:
                created = token
            elif created in ROUTINES:  # BEGIN ATOMIC …; …; END, and the triggers of SQLite and MySQL
                if token == "begin" and not body:
                    body += not depth and last not in (".", "exists", "returns", created)
                elif body and (token == "begin" or (token == "case" and last != "end")):
                    body += 1
                elif token == "end" and body:
                    body -= 1
                elif last == "end" and token in ("if", "loop", "while", "repeat"):
                    body += 1
            last = token
        else:
            words += token != "("
            last = token
            depth += (token == "(") - (token == ")")
    return ends, not body
