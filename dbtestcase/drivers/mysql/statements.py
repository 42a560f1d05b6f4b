"""What MySQL and MariaDB read out of a string of SQL, above all which statements commit by themselves; no I/O.

The list of those that do is the other way round: what is not known to leave the transaction alone is refused.  Sources:
"Statements That Cause an Implicit Commit" in the manuals of MySQL and of MariaDB.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ...sandbox import BLANKS, MYSQL, Kind, Lexer, Statement, classify, split, statement_spans

_PLAIN = Lexer(names="`", strings="'\"", hashes=True, executed=True)
"""The SQL mode ``NO_BACKSLASH_ESCAPES``."""
_OTHERS = (_PLAIN, Lexer(names="`", strings="'\"", backslashes=True, hashes=True))
"""What the server may read otherwise: by its mode, and by its version, which ``/*!99999 … */`` is a comment for."""

_WORDS = re.compile(r"[^A-Za-z_]*+([A-Za-z_]\w*+)")

#: First words of statements that leave the transaction alone, and what they are to the sandbox.
_HARMLESS = {
    **dict.fromkeys(("select", "with", "values", "table", "show", "describe", "desc", "explain", "help"), None),
    **dict.fromkeys(("insert", "update", "delete", "replace", "savepoint", "release", "rollback", "set"), None),
    **dict.fromkeys(("call", "execute", "handler", "load", "import"), Kind.WRITE),
    **dict.fromkeys(("checksum", "deallocate", "diagnostics", "do", "get", "kill", "prepare", "resignal"), Kind.READ),
    **dict.fromkeys(("signal", "unlock"), Kind.READ),
}
_TEMPORARY = re.compile(
    r"(create(?:\s++or\s++replace)?|drop)\s++temporary\s++table\s++(?:if\s++(?:not\s++)?exists\s++)?(`[^`]++`|[\w$.]++)",
    re.IGNORECASE,
)
_DROP_PREPARE = re.compile(r"drop\s++prepare\b", re.IGNORECASE)
_LOAD_ROWS = re.compile(r"load\s++(?:data|xml)\b", re.IGNORECASE)
_ANALYZE_STATEMENT = re.compile(
    r"analyze\s++(?:format\s*+=\s*+\w++\s++)?(?:select|with|insert|update|delete|replace)\b", re.I
)
_SET_STATEMENT = re.compile(r"set\s++statement\s++.*?\bfor\s++(.*+)$", re.IGNORECASE | re.DOTALL)
_CHARACTERISTICS = re.compile(r"set\s++(?:session\s++|local\s++)?transaction\b", re.IGNORECASE)
_LEVEL = re.compile(r"\bisolation\s++level\s++([a-z]++(?:\s++(?:un)?committed|\s++read)?)", re.IGNORECASE)
_ASKS_LEVEL = re.compile(r"\s*+select\s++@@(?:session\.)?(?:tx|transaction)_isolation\s*+;?\s*+", re.IGNORECASE)
_SET_SPECIAL = re.compile(r"set\s++(password|default\s++role|role|resource\s++group)\b", re.IGNORECASE)
_SET_NAMES = re.compile(r"set\s++(?:names|character\s++set|charset)\b", re.IGNORECASE)
_ASSIGNMENT = re.compile(
    r"\s*+(?:(?P<scope>global|persist_only|persist|session|local)\s++"
    r"|@@(?:(?P<at>global|persist_only|persist|session|local)\s*+\.\s*+)?)?"
    r"(?P<user>@)?(?P<name>`[^`]++`|'[^']*+'|[\w$.]++)\s*+:?=",
    re.IGNORECASE,
)
_VARIABLE = re.compile(r"(?<!@)@(\w++)\s*+:=|\binto\s++@(\w++)", re.IGNORECASE)
_CONTROL = re.compile(
    r"[\s;]*+(commit|rollback)(?:\s++work)?(?:\s++and\s++no\s++chain)?(?:\s++no\s++release)?[\s;]*+$", re.IGNORECASE
)
_PREPARED = re.compile(r"(?:prepare\s++\S++\s++from|execute\s++immediate)\s++(?=['\"])", re.IGNORECASE)
_CALLED = re.compile(r"(?<![\w$])(\w++)\s*+\(")
_NAMES = ("character_set_client", "character_set_connection", "character_set_results", "collation_connection")


_neutral = functools.lru_cache(maxsize=16)(MYSQL.neutral)  # several questions are asked about each statement


@functools.lru_cache(maxsize=16)
def _parts(bare: str) -> tuple[str, ...]:
    if ";" not in bare:  # there are no comments any more that could stand at its ends
        stripped = bare.strip(BLANKS)
        return (stripped,) if stripped else ()
    return tuple(split(bare, MYSQL))


def read(text: str) -> Statement:
    """:func:`~dbtestcase.sandbox.statements.classify`, by the lexical rules of MySQL."""
    return _read(text) if len(text) < 20_000 else _read.__wrapped__(text)


@functools.lru_cache(maxsize=4096)
def _read(text: str) -> Statement:
    bare = _neutral(text)
    statement = classify(bare, MYSQL)
    parts = _parts(bare)
    if len(parts) == 1:
        statement = _one(parts[0], statement)
    elif any(_is_call(part) for part in parts):
        statement = replace(statement, kind=Kind.WRITE, counts=False)
    elif statement.kind is Kind.SCHEMA:
        statement = replace(statement, kind=Kind.WRITE)
    names = tuple(dict.fromkeys(name for part in parts for name in (*settings_of(part).names, *_assigned(part))))
    if statement.kind in (Kind.SETTING, Kind.CONSTRAINTS) and not names:
        statement = replace(statement, kind=Kind.READ)
    if statement.text == text and not (names or statement.settings or statement.local or statement.rewrite):
        return statement
    return replace(statement, text=text, settings=names, local=False, rewrite=None)


def _assigned(part: str) -> Iterator[str]:
    """The users' variables that a query sets: ``SELECT @x := 1``, ``SELECT 1 INTO @x``."""
    if "@" in part:
        for assigned, into in _VARIABLE.findall(part):
            yield f"@{(assigned or into).lower()}"


def _one(part: str, statement: Statement) -> Statement:
    word = _first_word(part)
    if statement.kind is Kind.TRANSACTION:
        return statement
    if statement.kind is Kind.RELEASE and part.split()[1].lower() != "savepoint":
        return replace(statement, kind=Kind.READ)  # other servers do without the word; this one says what it misses
    if word == "set":
        inner = _SET_STATEMENT.match(part)
        if inner is not None:
            return classify(inner[1], MYSQL)
        if _CHARACTERISTICS.match(part):
            return replace(statement, kind=Kind.CHARACTERISTICS, settings=())
        return replace(statement, kind=Kind.SETTING)
    if _TEMPORARY.match(part):
        return replace(statement, kind=Kind.WRITE, counts=False)
    if word == "analyze" and _ANALYZE_STATEMENT.match(part):
        return replace(statement, kind=Kind.READ if "select" in part.lower() else Kind.WRITE)
    kind = _HARMLESS.get(word)
    if kind is not None:
        calls = frozenset(each.lower() for each in _CALLED.findall(part)) if word == "do" else statement.calls
        return replace(statement, kind=kind, calls=calls)
    return statement


def _first_word(part: str) -> str:
    match = _WORDS.match(part)
    return match[1].lower() if match else ""


def _is_call(part: str) -> bool:
    return _first_word(part) in ("call", "execute")


def runs_procedures(text: str) -> bool:
    """Whether it runs code on the server that may commit."""
    lowered = text.lower()
    return ("call" in lowered or "execute" in lowered) and any(_is_call(part) for part in _parts(_neutral(text)))


def committing_part(text: str) -> str:
    """The statement in ``text`` that would commit the transaction, or leave it otherwise; empty if there is none."""
    return _committing(text) if len(text) < 20_000 else _committing.__wrapped__(text)


@functools.lru_cache(maxsize=4096)
def _committing(text: str) -> str:
    readings = {_neutral(text)}
    if ";" in text and ("\\" in text or "/*" in text):
        readings |= {lexer.neutral(text) for lexer in _OTHERS}
    for reading in sorted(readings):
        for part in _parts(reading):
            if not _leaves_alone(part):
                return " ".join(part.split())[:200]
    inner = prepared_text(text)
    return committing_part(inner) if inner is not None else ""


def _leaves_alone(part: str) -> bool:
    word = _first_word(part)
    if word in ("create", "drop"):
        return bool(_TEMPORARY.match(part) or _DROP_PREPARE.match(part))
    if word == "load":
        return bool(_LOAD_ROWS.match(part))
    if word == "analyze":
        return bool(_ANALYZE_STATEMENT.match(part))
    if word == "set":
        inner = _SET_STATEMENT.match(part)
        return _leaves_alone(inner[1]) if inner is not None else not settings_of(part).escapes
    if word in ("begin", "start", "commit", "xa", "end", "abort"):
        return True  # control of transactions has an error of its own
    return word in _HARMLESS and word != "import"


def prepared_text(text: str) -> str | None:
    """The statement that ``PREPARE … FROM '…'`` or ``EXECUTE IMMEDIATE '…'`` names."""
    if "'" not in text and '"' not in text:
        return None
    for begin, end in statement_spans(masked := MYSQL.mask(text)):
        match = _PREPARED.match(masked, begin, end)
        if match is not None:
            close = masked.find(masked[match.end()], match.end() + 1)
            quoted = text[match.end() + 1 : close if close > 0 else len(text)]
            return quoted.replace("\\'", "'").replace("''", "'")
    return None


def temporary_tables(text: str) -> Iterator[str]:
    """The temporary tables that it makes, quoted as they were."""
    if "temporary" in text.lower():
        for part in _parts(_neutral(text)):
            match = _TEMPORARY.match(part)
            if match is not None and match[1].lower() != "drop":
                yield match[2]


def isolation_level(text: str) -> str:
    """The level that ``SET [SESSION] TRANSACTION`` names, as the server's variable has it: ``READ-COMMITTED``."""
    match = _LEVEL.search(text)
    return "-".join(match[1].upper().split()) if match else ""


_AUTOCOMMIT = re.compile(r"@@(?:(?:session|local)\s*\.\s*)?autocommit\b", re.IGNORECASE)


def with_autocommit(text: str, mode: bool) -> str | None:
    """A query that asks for the mode of its session, with the answer in it; None for any other text."""
    if "@@" not in text or not re.match(r"\s*+select\b", text, re.IGNORECASE):
        return None
    whole = re.fullmatch(rf"\s*select\s+{_AUTOCOMMIT.pattern}[\s;]*", text, re.IGNORECASE)
    answer = f"{int(mode)} AS `@@autocommit`" if whole else str(int(mode))
    return _AUTOCOMMIT.sub(answer, text) if _AUTOCOMMIT.search(text) else None


def asks_isolation_level(text: str) -> bool:
    """Whether it is the query by which SQLAlchemy asks for the level."""
    return "_isolation" in text and _ASKS_LEVEL.fullmatch(text) is not None


def sets_charset(text: str, charset: str) -> bool:
    """Whether it is ``SET NAMES`` with this character set, and nothing more."""
    return re.fullmatch(rf"\s*set\s+names\s+'?{re.escape(charset)}'?\s*;?\s*", text, re.IGNORECASE) is not None


def control_word(text: str) -> str:
    """``commit`` or ``rollback`` if that is the whole statement, else nothing."""
    match = _CONTROL.match(MYSQL.mask(text))
    return match[1].lower() if match else ""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a ``SET`` changes.

    ``names`` are variables of the session (those of users begin with ``@``); ``autocommit`` the value that it is to
    have; ``escapes`` says that something outlives the session, or commits.
    """

    names: tuple[str, ...] = ()
    autocommit: str | None = None
    escapes: bool = False


_NOTHING = Setting()


def settings_of(part: str) -> Setting:
    """Take a ``SET`` apart; anything else changes nothing."""
    return _settings_of(part.strip().rstrip(";")) if _first_word(part) == "set" else _NOTHING


@functools.lru_cache(maxsize=1024)
def _settings_of(part: str) -> Setting:
    if _CHARACTERISTICS.match(part) or _SET_STATEMENT.match(part):
        return _NOTHING
    if _SET_NAMES.match(part):
        return Setting(_NAMES)
    special = _SET_SPECIAL.match(part)
    if special is not None:
        return Setting(escapes=special[1].lower() != "role")
    names: list[str] = []
    autocommit = None
    for piece in _top_level_pieces(part.split(None, 1)[1] if len(part.split(None, 1)) > 1 else ""):
        match = _ASSIGNMENT.match(piece)
        if match is None:
            continue
        name = match["name"].strip("`'").lower()
        scope = (match["scope"] or match["at"] or "").lower()
        if scope in ("global", "persist", "persist_only"):
            return Setting(escapes=True)
        if name == "autocommit" and not match["user"]:
            autocommit = piece[match.end() :].strip().lower()
            if autocommit not in ("0", "off", "false"):
                return Setting(autocommit=autocommit, escapes=True)
        else:
            names.append(f"@{name}" if match["user"] else name)
    return Setting(tuple(dict.fromkeys(names)), autocommit)


def _top_level_pieces(text: str) -> Iterator[str]:
    depth, start = 0, 0
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            yield text[start:position]
            start = position + 1
    yield text[start:]


def literal(text: str) -> str:
    """A string, as a statement takes it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
