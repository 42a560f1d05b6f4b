"""What a string of SQL would do to a transaction: read off its words, never sent anywhere.

The first word of each statement decides, and where that is not enough its structure: a
:mod:`lexer <dbtestcase.sandbox.lexer>` masks comments and what is quoted, so that only the words are left that the
server sees.  What is not plainly a read counts as a write.  Example::

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

from .lexer import NAME, PART, POSTGRESQL, Lexer, name_in
from .splitting import split, statement_spans
from .topics import Topic, topics_of


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


WRITE = Kind.WRITE  # each time that a member is asked of its class costs as much as a call


@dataclass(frozen=True, slots=True)
class Statement:
    """What was read off a string of SQL.

    ``text`` is the string itself; ``label`` the name of the application's savepoint, or ``LOCK TABLE``; ``settings``
    the names of the server's settings that it changes (``*`` for all); ``local`` says that they end with the
    transaction, ``resets`` that they come back to what they were at the beginning; ``calls`` are the functions that a
    read calls, or the procedure; ``cursor`` the server-side cursor that it declares (``holdable``: one that outlives
    its transaction); ``several`` says that the string has more than one statement, see :func:`parts`; ``counts`` says
    that the number of rows in the server's answer is everything that it wrote; ``rewrite`` is what to send in its
    place; ``topics`` are the things of the session that it speaks of; ``plain`` says that it reads or writes rows and
    does nothing of the rest; ``numbers`` that a write may take the next number of a sequence.
    """

    kind: Kind
    text: str
    label: str = ""
    settings: tuple[str, ...] = ()
    local: bool = False
    resets: bool = False
    calls: frozenset[str] = frozenset()
    cursor: str = ""
    holdable: bool = False
    several: bool = False
    counts: bool = False
    rewrite: str | None = None
    topics: Topic = field(init=False)
    plain: bool = field(init=False)
    numbers: bool = field(init=False)

    def __post_init__(self) -> None:
        topics = topics_of(self.text)
        special = topics or self.settings or self.cursor or self.label or self.rewrite is not None
        object.__setattr__(self, "topics", topics)
        object.__setattr__(self, "plain", self.kind in (Kind.READ, Kind.WRITE) and not special)
        object.__setattr__(self, "numbers", self.several or _NUMBERS_NOTHING.match(self.text) is None)

    @property
    def takes_snapshot(self) -> bool:
        """Whether it looks at the database, so that its transaction has a snapshot from then on."""
        if self.kind in (Kind.SETTING, Kind.CHARACTERISTICS, Kind.CONSTRAINTS) or not self.text:
            return False
        return self.plain or _NO_SNAPSHOT.match(self.text) is None

    @property
    def writes(self) -> bool:
        """Whether a rollback of it would undo something."""
        return self.kind in (Kind.WRITE, Kind.SCHEMA)


_NUMBERS_NOTHING = re.compile(
    r"\s*+(?:update|delete)\b(?![\s\S]*(?:nextval|setval|default|next\s+value))", re.IGNORECASE
)
_NO_SNAPSHOT = re.compile(r"\s*(?:show|lock|fetch|move|listen|notify|unlisten|checkpoint)\b", re.IGNORECASE)
_FIRST = re.compile(r"[\s(]*+([A-Za-z_]\w*+)")

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
_SAVEPOINT = re.compile(rf"savepoint\s++{NAME}$", re.IGNORECASE)
_RELEASE = re.compile(rf"release\s++(?:savepoint\s++)?{NAME}$", re.IGNORECASE)
_ROLLBACK_TO = re.compile(rf"rollback\s++(?:(?:work|transaction)\s++)?to\s++(?:savepoint\s++)?{NAME}$", re.IGNORECASE)
_PREPARE_TRANSACTION = re.compile(r"prepare\s++transaction\b", re.IGNORECASE)
_DECLARE = re.compile(rf"declare\s++{NAME}\s", re.IGNORECASE)
_CALLED = re.compile(rf"call\s++(?:{PART}\s*+\.\s*+)*({PART})\s*+\(", re.IGNORECASE)
_HOLD = re.compile(r"\bwith\s++hold\s++for\b", re.IGNORECASE)
_SET = re.compile(rf"(set|reset)\s++(?:(session|local|global)\s++)?{NAME}", re.IGNORECASE)
_TO_DEFAULT = re.compile(r"\b(?:default|authorization\s++default|zone\s++local)$", re.IGNORECASE)
_SET_CONFIG = re.compile(r"\bset_config\s*+\(\s*+(?:('\x01++')|\S)", re.IGNORECASE)
_IS_LOCAL = re.compile(r",\s*+(?:true|'t(?:rue)?'|'on')\s*+\)", re.IGNORECASE)
_IS_NOT_LOCAL = re.compile(r",\s*+(?:false|'f(?:alse)?'|'off')\s*+\)", re.IGNORECASE)
_CONCURRENTLY = re.compile(
    r"(?:create\s++(?:unique\s++)?index|drop\s++index|reindex\b\S*+(?:\s++(?!concurrently\b)\S++)*)"
    r"\s++(concurrently)\b\s*+",
    re.IGNORECASE,
)
_LOCKING = re.compile(
    r"\bfor\s++(?:no\s++key\s++update|update|share|key\s++share)\b|\block\s++in\s++share\s++mode\b", re.IGNORECASE
)
_INTO = re.compile(r"(\bas\s++)?(?<![.\w$])into\b", re.IGNORECASE)
_MODIFYING = r"(?:insert|update|delete|merge|replace(?=\s++into\b))\s++[\w$\"`\[]"
# a statement that changes rows inside another one: in parentheses of its own, or after those of WITH
_CHANGES_ROWS = re.compile(rf"[()]\s*+{_MODIFYING}", re.IGNORECASE)
_CHANGES_ROWS_LATE = re.compile(rf"\b{_MODIFYING}", re.IGNORECASE)
_SEARCHING = re.compile(r"\b(?:search|cycle)\b", re.IGNORECASE)
_EXPLAIN = re.compile(r"explain\b\s*+(?:\(([^()]*+)\)\s*+|((?:(?:analy[sz]e|verbose)\b\s*+)*))", re.IGNORECASE)
_ANALYZES = re.compile(r"\banaly[sz]e\b(?!\s*+(?:'?(?:false|off|0)\b))", re.IGNORECASE)
_DIRECTION = re.compile(r"[()]|\b(?:to|from)\b", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"(?<!%)%[sbt]")
_NAME_BY_PARAMETER = re.compile(r"\bset_config\s*+\(\s*+(?:%\((\w+)\)[sbt]|(%[sbt])|\$(\d+))", re.IGNORECASE)
_SETTING = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*")
_COMMON = {"search_path", "timezone", "role", "statement_timeout", "lock_timeout", "work_mem", "datestyle"} | {
    *("idle_in_transaction_session_timeout", "idle_session_timeout", "transaction_timeout")
}
_SPECIAL_SETTINGS = {
    "time": ("timezone",),
    "names": ("client_encoding",),
    "role": ("role",),
    "schema": ("search_path",),
}


def classify(text: str, lexer: Lexer = POSTGRESQL) -> Statement:
    """Say what ``text`` would do; a string of several statements is as strong as its strongest part."""
    if len(text) > 20_000:
        return _classify(text, lexer)
    return _cached(text) if lexer is POSTGRESQL else _cached_by(text, lexer)


@functools.lru_cache(maxsize=4096)
def _cached(text: str) -> Statement:  # of one argument, which is found sooner than two
    return _classify(text, POSTGRESQL)


@functools.lru_cache(maxsize=4096)
def _cached_by(text: str, lexer: Lexer) -> Statement:
    return _classify(text, lexer)


def _classify(text: str, lexer: Lexer) -> Statement:
    match = _FIRST.match(text)
    if match is not None and match[1].lower() in _COUNTED and text.find(";", 0, len(text.rstrip(";\n "))) < 0:
        return Statement(Kind.WRITE, text, counts=True)
    masked = lexer.mask(text)
    spans = statement_spans(masked)
    if not spans:
        return Statement(Kind.READ, text)
    if len(spans) == 1:
        begin, end = spans[0]
        if end - begin == len(text):
            return _one(text, masked)
        return replace(_one(text[begin:end], masked[begin:end]), text=text)
    found = [_one(text[begin:end], masked[begin:end]) for begin, end in spans]
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
        resets=all(s.resets for s in found if s.settings),
        calls=frozenset().union(*(s.calls for s in found)),
        cursor=next((s.cursor for s in found if s.cursor), ""),
        several=True,
        rewrite=rewrite,
    )


def parts(statement: Statement, lexer: Lexer = POSTGRESQL) -> list[Statement]:
    """The statements of a string, one by one."""
    return [classify(text, lexer) for text in split(statement.text, lexer)] if statement.several else [statement]


def with_parameter_names(statement: Statement, parameters: object) -> Statement:
    """``set_config(%s, …)``: the names of the settings are among the values of a statement's parameters."""
    values: list[object] = []
    if isinstance(parameters, Mapping):
        values = list(parameters.values())
    elif isinstance(parameters, Sequence) and not isinstance(parameters, (str, bytes)):
        values = list(parameters)
    named = [v.lower() for v in values if isinstance(v, str) and _SETTING.fullmatch(v)]
    known = [name for name in statement.settings if name != "?"]
    known += _named_by_place(statement.text, parameters, values)
    local = statement.local or any(v is True for v in values)
    found = dict.fromkeys(known + [n for n in named if "." in n or n in _COMMON])
    return replace(statement, settings=tuple(found), local=local)


def _named_by_place(text: str, parameters: object, values: list[object]) -> Iterator[str]:
    """The names that stand where ``set_config()`` has its first argument."""
    masked = POSTGRESQL.mask(text)
    for match in _NAME_BY_PARAMETER.finditer(masked):
        key, number = match[1], match[3]
        if key is not None:
            value = parameters.get(key) if isinstance(parameters, Mapping) else None
        else:
            place = int(number) - 1 if number else len(_PLACEHOLDER.findall(masked, 0, match.start(2)))
            value = values[place] if 0 <= place < len(values) else None
        if isinstance(value, str) and _SETTING.fullmatch(value):
            yield value.lower()


def _one(text: str, masked: str) -> Statement:
    """Classify a single statement that begins with its first word or a parenthesis."""
    match = _FIRST.match(masked)
    word = match[1].lower() if match else ""
    if word in _COUNTED:
        return Statement(Kind.WRITE, text, counts=True)
    if word in _TRANSACTION or (word == "prepare" and _PREPARE_TRANSACTION.match(masked)):
        return Statement(Kind.TRANSACTION, text, label=text)
    if word in ("savepoint", "release", "rollback"):
        kind, pattern = {
            "savepoint": (Kind.SAVEPOINT, _SAVEPOINT),
            "release": (Kind.RELEASE, _RELEASE),
            "rollback": (Kind.ROLLBACK_TO, _ROLLBACK_TO),
        }[word]
        match = pattern.match(masked)
        if match is None:
            return Statement(Kind.TRANSACTION, text, label=text)
        return Statement(kind, text, label=_name(match, 1, text))
    if word in ("set", "reset"):
        return _set(text, masked)
    if word == "explain":
        return _explain(text, masked)
    if word in _READS or (word == "copy" and _copies_out(masked)):
        return _read(word, text, masked)
    if word == "lock":
        return Statement(Kind.LOCK, text, label="LOCK TABLE")
    if word in _NEUTRAL:
        return Statement(Kind.READ if word not in ("discard", "analyze", "analyse") else Kind.WRITE, text)
    if word in _DML:
        called = _CALLED.match(masked) if word == "call" else None
        return Statement(Kind.WRITE, text, calls=frozenset([_name(called, 1, text)] if called else ()))
    rewrite = None
    if word in ("create", "drop", "reindex") and (words := _CONCURRENTLY.match(masked)):
        rewrite = text[: words.start(1)] + text[words.end() :]
    return Statement(Kind.SCHEMA, text, rewrite=rewrite)


def _name(match: re.Match[str], group: int, text: str) -> str:
    """The name that a pattern has found in the masked text."""
    return name_in(text[match.start(group) : match.end(group)])


def _copies_out(masked: str) -> bool:
    """Whether a COPY gives rows out: ``TO`` comes before ``FROM``, outside of parentheses."""
    depth = 0
    for match in _DIRECTION.finditer(masked):
        token = match[0]
        if token in "()":
            depth += 1 if token == "(" else -1
        elif not depth:
            return token.lower() == "to"
    return False


def _set(text: str, masked: str) -> Statement:
    words = masked.lower().split(None, 4)[:4]
    second = words[1] if len(words) > 1 else ""
    if second == "constraints":
        return Statement(Kind.CONSTRAINTS, text)
    lowered = " ".join(words)
    if lowered.startswith("set session characteristics"):  # of the transactions to come: a setting like any other
        return Statement(Kind.SETTING, text, settings=_characteristics(masked))
    if second == "transaction" or lowered.startswith(("set local transaction", "set session transaction")):
        return Statement(Kind.CHARACTERISTICS, text)
    if lowered.startswith(
        ("set session authorization", "reset session authorization", "set local session authorization")
    ):
        return Statement(Kind.SETTING, text, settings=("session_authorization", "role"), local="local" in words[:2])
    match = _SET.match(masked)
    if match is None:
        return Statement(Kind.WRITE, text)
    name = _name(match, 3, text)
    if name in ("transaction_isolation", "transaction_read_only", "transaction_deferrable"):
        return Statement(Kind.CHARACTERISTICS, text)
    names = ("*",) if name == "all" else _SPECIAL_SETTINGS.get(name, (name,))
    resets = match[1].lower() == "reset" or _TO_DEFAULT.search(masked) is not None
    return Statement(Kind.SETTING, text, settings=names, local=(match[2] or "").lower() == "local", resets=resets)


def _characteristics(masked: str) -> tuple[str, ...]:
    """The settings that ``SET SESSION CHARACTERISTICS AS TRANSACTION`` changes."""
    words = {"isolation": "isolation", "read": "read_only", "deferrable": "deferrable"}
    found = re.findall(r"isolation|read(?=\s+(?:only|write))|deferrable", masked.lower())
    return tuple(f"default_transaction_{words[word]}" for word in dict.fromkeys(found))


def _explain(text: str, masked: str) -> Statement:
    """``EXPLAIN`` reads, unless it runs what it explains."""
    match = _EXPLAIN.match(masked)
    if match is None or not _ANALYZES.search(match[1] or match[2] or ""):
        return Statement(Kind.READ, text)
    rest = masked[match.end() :]
    if rest[:7].lower() == "explain":  # which no server takes
        return Statement(Kind.READ, text)
    explained = _one(text[match.end() :], rest)
    return replace(explained, text=text, counts=False, rewrite=None)


def _read(word: str, text: str, masked: str) -> Statement:
    lowered = masked.lower()
    calls = _called(text, masked) if "(" in masked else frozenset()
    settings: tuple[str, ...] = ()
    local = False
    if "set_config" in calls:
        found = [(m.start(1), m.end(1)) for m in _SET_CONFIG.finditer(masked)]
        settings = tuple(text[begin + 1 : end - 1].lower() if end > begin else "?" for begin, end in found)
        local = bool(_IS_LOCAL.search(text))
        if not local and not _IS_NOT_LOCAL.search(text):
            settings = (*settings, "?")  # a parameter tells
    cursor = ""
    if word == "declare":
        match = _DECLARE.match(masked)
        cursor = _name(match, 1, text) if match else "?"
    kind = Kind.READ
    writes = "into" in lowered and word != "copy" and any(m[1] is None for m in _INTO.finditer(masked))
    if writes or (("with" in lowered or word == "copy") and _changes_rows(masked)):
        kind = Kind.WRITE
    elif ("for" in lowered or "lock" in lowered) and _LOCKING.search(masked):
        kind = Kind.LOCK
    holdable = bool(cursor and _HOLD.search(masked))
    return Statement(kind, text, settings=settings, local=local, calls=calls, cursor=cursor, holdable=holdable)


def _changes_rows(masked: str) -> bool:
    """Whether a statement that changes rows stands in ``WITH …`` or ``COPY (…)``."""
    if _CHANGES_ROWS.search(masked):
        return True
    # SEARCH and CYCLE stand between the parentheses of WITH and the statement
    return bool(_CHANGES_ROWS_LATE.search(masked) and _SEARCHING.search(masked))


def _called(text: str, masked: str) -> frozenset[str]:
    """The names before parentheses: those of functions are among them."""
    found = set()
    position = 0
    for piece in masked.split("(")[:-1]:
        position += len(piece) + 1
        before = piece.rstrip()
        last = before[-1:]
        if last in ('"', "`", "]") and last:
            opened = before.rfind("[" if last == "]" else last, 0, -1)
            begin = position - 1 - len(piece) + opened
            found.add(name_in(text[begin : begin + len(before) - opened]))
        elif last and (match := _WORD_BACKWARDS.match(before[: -_LONGEST_NAME - 1 : -1])):
            found.add(before[-match.end() :].lower())
    return frozenset(found)


_WORD_BACKWARDS = re.compile(r"[\w$]++")
_LONGEST_NAME = 255  # bytes of SQLite's; those of the others have 63 or 64
