"""What a string of SQL would do to a transaction: read off its words, never sent anywhere.

The first word of each statement decides; comments, quotes, dollar quotes and the bodies of functions are stepped over.
What is not plainly a read counts as a write.  Example::

    >>> classify("/* nightly */ COMMIT").kind
    <Kind.TRANSACTION: 'transaction control'>
    >>> classify("SELECT count(*) FROM post").kind
    <Kind.READ: 'read'>
"""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

__all__ = ["Kind", "Statement", "classify", "split", "with_parameter_names"]


class Kind(enum.Enum):
    """What a statement does to the transaction that it runs in."""

    READ = "read"
    LOCK = "locking read"
    WRITE = "write"
    SCHEMA = "schema change"
    SAVEPOINT = "SAVEPOINT"
    RELEASE = "RELEASE SAVEPOINT"
    ROLLBACK_TO = "ROLLBACK TO SAVEPOINT"
    TRANSACTION = "transaction control"
    CHARACTERISTICS = "transaction characteristics"
    SETTING = "setting"
    CONSTRAINTS = "SET CONSTRAINTS"


@dataclass(frozen=True, slots=True)
class Statement:
    """What was read off a string of SQL.

    ``text`` is the string itself; ``label`` the name of the application's savepoint; ``settings`` the names of the
    server's settings that it changes (``*`` for all); ``local`` says that they end with the transaction; ``calls`` are
    the functions that a read calls, or the procedure; ``cursor`` the server-side cursor that it declares (``holdable``:
    one that outlives its transaction); ``counts`` says that the number of rows in the server's answer is everything
    that it wrote; ``rewrite`` is what to send in its place;
    ``plain`` says that it reads or writes rows and does nothing of the rest.
    """

    kind: Kind
    text: str
    label: str = ""
    settings: tuple[str, ...] = ()
    local: bool = False
    calls: frozenset[str] = frozenset()
    cursor: str = ""
    holdable: bool = False
    counts: bool = False
    rewrite: str | None = None
    plain: bool = field(init=False)

    def __post_init__(self) -> None:
        special = self.settings or self.cursor or self.label or self.rewrite is not None
        object.__setattr__(self, "plain", self.kind in (Kind.READ, Kind.WRITE) and not special)

    @property
    def writes(self) -> bool:
        """Whether a rollback of it would undo something."""
        return self.kind in (Kind.WRITE, Kind.SCHEMA)


_FIRST = re.compile(r"(?:\s+|--[^\n]*(?:\n|$)|/\*.*?\*/|\()*([A-Za-z_]+)", re.DOTALL)
_TOKEN = re.compile(
    r"""
    (?P<space>\s+|--[^\n]*)
  | (?P<comment>/\*)
  | (?P<string>[eE]'(?:[^'\\]|''|\\.)*'|'(?:[^']|'')*')
  | (?P<ident>"(?:[^"]|"")*"|`[^`]*`)
  | (?P<dollar>\$(?:[A-Za-z_]\w*)?\$)
  | (?P<word>[^\W\d][\w$]*)
  | (?P<semicolon>;)
  | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)

_TRANSACTION = {"begin", "start", "commit", "end", "abort", "xa"}
_READS = {
    "select",
    "values",
    "table",
    "show",
    "fetch",
    "move",
    "close",
    "declare",
    "explain",
    "with",
    "describe",
    "desc",
}
_COUNTED = {"insert", "update", "delete", "merge"}
_DML = _COUNTED | {"copy", "truncate", "lock", "replace", "load", "call", "do", "execute", "with", "select", "explain"}
_NEUTRAL = {
    "listen",
    "unlisten",
    "notify",
    "prepare",
    "deallocate",
    "discard",
    "checkpoint",
    "use",
    "pragma",
    "analyze",
    "analyse",
}
_ROUTINES = {"function", "procedure", "trigger", "event"}
_OBJECTS = _ROUTINES | {
    "table",
    "view",
    "materialized",
    "index",
    "type",
    "domain",
    "sequence",
    "schema",
    "rule",
    "cast",
}
_MODIFYING = {"insert", "update", "delete", "merge", "replace", "into"}
_LOCKING = re.compile(
    r"\bfor\s+(?:no\s+key\s+)?(?:update|share|key\s+share)\b|\block\s+in\s+share\s+mode\b", re.IGNORECASE
)
_NAME = r'(?:"((?:[^"]|"")*)"|`([^`]*)`|([\w$.]+))'
_SAVEPOINT = re.compile(rf"savepoint\s+{_NAME}$", re.IGNORECASE)
_RELEASE = re.compile(rf"release\s+(?:savepoint\s+)?{_NAME}$", re.IGNORECASE)
_ROLLBACK_TO = re.compile(rf"rollback\s+(?:work\s+|transaction\s+)?to\s+(?:savepoint\s+)?{_NAME}$", re.IGNORECASE)
_DECLARE = re.compile(rf"declare\s+{_NAME}\s", re.IGNORECASE)
_CALLED = re.compile(rf'call\s+(?:(?:"[^"]*"|`[^`]*`|[\w$]+)\s*\.\s*)*{_NAME}\s*\(', re.IGNORECASE)
_HOLD = re.compile(r"\bwith\s+hold\s+for\b", re.IGNORECASE)
_SET = re.compile(rf"(set|reset)\s+(?:(session|local|global)\s+)?{_NAME}", re.IGNORECASE)
_SET_CONFIG = re.compile(r"set_config\s*\(\s*(?:'([^']+)'|(\S))", re.IGNORECASE)
_CONCURRENTLY = re.compile(r"\bconcurrently\b", re.IGNORECASE)
_SETTING = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*")
_COMMON = {"search_path", "timezone", "role", "statement_timeout", "lock_timeout", "work_mem", "datestyle"} | {
    *("idle_in_transaction_session_timeout", "idle_session_timeout", "transaction_timeout"),
}
_SPECIAL_SETTINGS = {
    "time": ("timezone",),
    "names": ("client_encoding",),
    "role": ("role",),
    "schema": ("search_path",),
}


def classify(text: str) -> Statement:
    """Say what ``text`` would do; a string of several statements is as strong as its strongest part."""
    return _classify(text) if len(text) > 20_000 else _cached(text)


@functools.lru_cache(maxsize=4096)
def _cached(text: str) -> Statement:
    return _classify(text)


def _classify(text: str) -> Statement:
    if ";" not in text or text.rstrip().rstrip(";").count(";") == 0:
        match = _FIRST.match(text)
        if match is not None and match[1].lower() in _COUNTED and "/*!" not in text and text.count("/*") < 2:
            return Statement(Kind.WRITE, text, counts=True)
    parts = list(split(text))
    if not parts:
        return Statement(Kind.READ, text)
    if len(parts) == 1:
        return replace(_one(parts[0]), text=text)
    found = [_one(part) for part in parts]
    for statement in found:
        # control of transactions cannot be carried out in the middle of a string
        if statement.kind in (Kind.TRANSACTION, Kind.SAVEPOINT, Kind.RELEASE, Kind.ROLLBACK_TO):
            return Statement(Kind.TRANSACTION, text, label=statement.text)
    settings = tuple(dict.fromkeys(name for s in found for name in s.settings))
    order = (Kind.SCHEMA, Kind.WRITE, Kind.CONSTRAINTS, Kind.SETTING, Kind.LOCK)
    kind = next((k for k in order if any(s.kind is k for s in found)), Kind.READ)
    rewrite = "; ".join(s.rewrite or s.text for s in found) if any(s.rewrite for s in found) else None
    return Statement(
        kind,
        text,
        settings=settings,
        local=all(s.local for s in found if s.settings),
        calls=frozenset().union(*(s.calls for s in found)),
        cursor=next((s.cursor for s in found if s.cursor), ""),
        rewrite=rewrite,
    )


def with_parameter_names(statement: Statement, parameters: object) -> Statement:
    """``set_config(%s, …)``: the names of the settings are among the values of a statement's parameters."""
    values: list[object] = []
    if isinstance(parameters, Mapping):
        values = list(parameters.values())
    elif isinstance(parameters, Sequence) and not isinstance(parameters, (str, bytes)):
        values = list(parameters)
    named = [v.lower() for v in values if isinstance(v, str) and _SETTING.fullmatch(v)]
    known = [name for name in statement.settings if name != "?"]
    local = statement.local or any(v is True for v in values)
    return replace(statement, settings=tuple(known + [n for n in named if "." in n or n in _COMMON]), local=local)


def split(text: str) -> Iterator[str]:
    """Yield the statements of a string, without comments at their ends, empty ones left out."""
    found, closed = _split(text, bodies=True)
    # a body that never ends was none: `begin` may be the name of a column
    return iter(found if closed else _split(text, bodies=False)[0])


def _split(text: str, *, bodies: bool) -> tuple[list[str], bool]:
    """The statements of a string; ``bodies``: of a routine, its semicolons belong to it."""
    found: list[str] = []
    start = words = body = depth = 0
    last = created = ""
    for kind, begin, end in _tokens(text):
        if kind == "semicolon" and not body:
            if words:
                found.append(text[start:begin].strip())
            start, words, depth, last, created = end, 0, 0, "", ""
        elif kind == "word":
            word = text[begin:end].lower()
            if not words:
                created = "?" if word == "create" and bodies else ""
                start = begin
            words += 1
            if created == "?" and word in _OBJECTS:
                created = word
            elif created in _ROUTINES:  # BEGIN ATOMIC …; …; END, and the triggers of SQLite and MySQL
                if word == "begin" and not body:
                    body += not depth and last not in (".", "exists", "returns", created)
                elif body and (word == "begin" or (word == "case" and last != "end")):
                    body += 1
                elif word == "end" and body:
                    body -= 1
                elif last == "end" and word in ("if", "loop", "while", "repeat"):
                    body += 1
            last = word
        elif kind == "comment" and not words:
            start = end
        elif kind not in ("space", "comment"):
            words += kind != "other" or text[begin] != "("
            last = text[begin]
            depth += (last == "(") - (last == ")")
    if words:
        found.append(text[start:].strip())
    return found, not body


def _tokens(text: str) -> Iterator[tuple[str, int, int]]:
    position, length = 0, len(text)
    while position < length:
        match = _TOKEN.match(text, position)
        assert match is not None and match.lastgroup is not None  # the last alternative takes any character
        kind, end = match.lastgroup, match.end()
        if kind == "comment":
            if text.startswith("/*!", position):  # MySQL executes what stands in these: step over the marks only
                end = re.compile(r"/\*!\d*").match(text, position).end()  # type: ignore[union-attr]
                kind = "space"
            else:
                end = _comment_end(text, end)
        elif kind == "dollar":
            close = text.find(match[0], end)
            end = length if close < 0 else close + len(match[0])
        yield kind, position, end
        position = end


def _comment_end(text: str, position: int) -> int:
    depth = 1
    for mark in re.compile(r"/\*|\*/").finditer(text, position):
        depth += 1 if mark[0] == "/*" else -1
        if not depth:
            return mark.end()
    return len(text)


def _one(text: str) -> Statement:
    """Classify a single statement that begins with its first word or a parenthesis."""
    match = _FIRST.match(text)
    word = match[1].lower() if match else ""
    bare = _without_comments(text)
    if word in _COUNTED:
        return Statement(Kind.WRITE, text, counts=True)
    if word in _TRANSACTION:
        return Statement(Kind.TRANSACTION, text, label=text)
    if word == "prepare" and re.match(r"prepare\s+transaction\b", bare, re.IGNORECASE):
        return Statement(Kind.TRANSACTION, text, label=text)
    if word == "savepoint":
        return _labelled(Kind.SAVEPOINT, _SAVEPOINT, bare, text)
    if word == "release":
        return _labelled(Kind.RELEASE, _RELEASE, bare, text)
    if word == "rollback":
        return _labelled(Kind.ROLLBACK_TO, _ROLLBACK_TO, bare, text)
    if word in ("set", "reset"):
        return _set(text, bare)
    if word in _READS or (word == "copy" and _copies_out(bare)):
        return _read(word, text, bare)
    if word == "lock":
        return Statement(Kind.LOCK, text)
    if word in _NEUTRAL:
        return Statement(Kind.READ if word not in ("discard", "analyze", "analyse") else Kind.WRITE, text)
    if word in _DML:
        called = _CALLED.match(bare) if word == "call" else None
        return Statement(Kind.WRITE, text, calls=frozenset([_folded(*called.groups())] if called else ()))
    rewrite = None
    if word in ("create", "drop", "reindex") and _CONCURRENTLY.search(bare):
        words = re.match(
            r"(?:create\s+(?:unique\s+)?index|drop\s+index|reindex\b[^;]*?)\s+concurrently\b", bare, re.IGNORECASE
        )
        if words:
            rewrite = bare[: words.end()][: -len("concurrently")] + bare[words.end() :].lstrip()
    return Statement(Kind.SCHEMA, text, rewrite=rewrite)


def _without_comments(text: str) -> str:
    if "--" not in text and "/*" not in text:
        return text.strip().rstrip(";").rstrip()
    kept = (" " if text[b:e].startswith(("--", "/*")) else text[b:e] for _, b, e in _tokens(text))
    return "".join(kept).strip().rstrip(";").rstrip()


def _copies_out(bare: str) -> bool:
    """Whether a COPY gives rows out: ``TO`` comes before ``FROM``, outside of parentheses."""
    depth = 0
    for kind, begin, end in _tokens(bare):
        if kind == "other":
            depth += (bare[begin] == "(") - (bare[begin] == ")")
        elif kind == "word" and not depth and bare[begin:end].lower() in ("to", "from"):
            return bare[begin:end].lower() == "to"
    return False


def _labelled(kind: Kind, pattern: re.Pattern[str], bare: str, text: str) -> Statement:
    match = pattern.match(bare)
    if match is None:
        return Statement(Kind.TRANSACTION, text, label=text)
    return Statement(kind, text, label=_folded(match[1], match[2], match[3]))


def _folded(*groups: str | None) -> str:
    quoted, back, plain = groups
    if quoted is not None:
        return quoted.replace('""', '"')
    return back if back is not None else (plain or "").lower()


def _set(text: str, bare: str) -> Statement:
    words = bare.split(None, 2)
    second = words[1].lower() if len(words) > 1 else ""
    if second == "constraints":
        return Statement(Kind.CONSTRAINTS, text)
    lowered = " ".join(bare.lower().split()[:4])
    if second == "transaction" or lowered.startswith(
        ("set session characteristics", "set local transaction", "set session transaction")
    ):
        return Statement(Kind.CHARACTERISTICS, text)
    if lowered.startswith(
        ("set session authorization", "reset session authorization", "set local session authorization")
    ):
        return Statement(Kind.SETTING, text, settings=("session_authorization", "role"), local="local" in lowered)
    match = _SET.match(bare)
    if match is None:
        return Statement(Kind.WRITE, text)
    name = _folded(match[3], match[4], match[5])
    if name in ("transaction_isolation", "transaction_read_only", "transaction_deferrable"):
        return Statement(Kind.CHARACTERISTICS, text)
    names = ("*",) if name == "all" else _SPECIAL_SETTINGS.get(name, (name,))
    return Statement(Kind.SETTING, text, settings=names, local=(match[2] or "").lower() == "local")


def _read(word: str, text: str, bare: str) -> Statement:
    words: list[str] = []
    calls: set[str] = set()
    pending = ""
    for kind, begin, end in _tokens(bare):
        if kind == "word":
            pending = bare[begin:end].lower()
            words.append(pending)
        elif kind == "ident":
            pending = bare[begin + 1 : end - 1]
        elif kind == "other" and bare[begin] == "(" and pending:
            calls.add(pending)
            pending = ""
        elif kind != "space":
            pending = ""
    found = set(words)
    settings: tuple[str, ...] = ()
    local = False
    if "set_config" in calls:
        names = _SET_CONFIG.findall(bare)
        settings = tuple(plain.lower() if plain else "?" for plain, _ in names)
        local = bool(re.search(r",\s*(?:true|'t(?:rue)?'|'on')\s*\)", bare, re.IGNORECASE))
        if not local and not re.search(r",\s*(?:false|'f(?:alse)?'|'off')\s*\)", bare, re.IGNORECASE):
            settings = (*settings, "?")  # a parameter tells
    cursor = ""
    if word == "declare":
        match = _DECLARE.match(bare)
        cursor = _folded(match[1], match[2], match[3]) if match else "?"
    kind_ = Kind.READ
    if word == "explain":
        if "analyze" in found or "analyse" in found:
            kind_ = Kind.WRITE if found & _MODIFYING else Kind.READ
    elif found & _MODIFYING and (word in ("with", "copy") or "into" in found) and _modifies(word, words):
        kind_ = Kind.WRITE
    elif _LOCKING.search(bare):
        kind_ = Kind.LOCK
    holdable = bool(cursor and _HOLD.search(bare))
    return Statement(
        kind_, text, settings=settings, local=local, calls=frozenset(calls), cursor=cursor, holdable=holdable
    )


def _modifies(word: str, words: list[str]) -> bool:
    if word in ("with", "copy"):
        # FOR UPDATE is no modification; a column called "update" would have to be quoted
        return any(
            w in _MODIFYING and not (w == "update" and i and words[i - 1] in ("for", "key"))
            for i, w in enumerate(words)
        )
    return "into" in words
