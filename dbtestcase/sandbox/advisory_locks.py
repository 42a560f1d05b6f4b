"""Advisory locks of PostgreSQL: imitated for each connection, since a session never keeps itself out.

The functions are called by their own names in the temporary schema, where others stand that know who calls.  They are
told before each statement which connection holds what, and leave behind what it holds afterwards.  They take the real
lock as well, so that other processes are kept out and ``pg_locks`` shows it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from ..errors import SandboxConflict
from .connections import Client
from .lexer import POSTGRESQL
from .rules import COMMITTING
from .schema_facts import SchemaFacts
from .session_objects import SessionObjects, nothing
from .session_settings import Flow, literal
from .statements import Statement
from .topics import Topic

IS_HELD = "DT001"
"""The SQLSTATE of a lock that would be waited for, and that another connection of the sandbox holds."""

_CALL = re.compile(
    r"(?:\bpg_catalog\s*\.\s*)?\b(pg_(?:(?:try_)?advisory_(?:xact_)?lock(?:_shared)?|advisory_unlock(?:_shared|_all)?))"
    r"(?=\s*\()",
    re.IGNORECASE,
)
_STATE, _CALLER = "dbtestcase.locks", "dbtestcase.caller"


@dataclass
class _Lock:
    """``key`` as ``7`` or ``1,2``, ``mode`` is ``x`` or ``s``; ``transaction``: it ends with that.

    ``depth``: how many savepoints were set when it was taken.
    """

    client: Client
    key: str
    mode: str
    transaction: bool
    depth: int = 0

    @property
    def release(self) -> str:
        """The call that gives the real lock back."""
        return f"pg_catalog.pg_advisory_unlock{'_shared' if self.mode == 's' else ''}({self.key})"


class AdvisoryLocks(SessionObjects):
    """Which connection holds which lock, and how often."""

    topics: ClassVar[Topic] = Topic.ADVISORY

    def __init__(self, facts: SchemaFacts) -> None:
        self._facts = facts
        self._held: list[_Lock] = []
        self._owed: list[_Lock] = []
        """Locks that are over, and that the session still holds."""
        self._numbers: dict[Client, int] = {}

    @property
    def used(self) -> bool:  # type: ignore[override]
        return any(lock.transaction for lock in self._held)

    def blockers(self) -> set[Client]:
        """Those whose transactions hold a lock."""
        return {lock.client for lock in self._held if lock.transaction}

    def check(self, client: Client, statement: Statement) -> Flow:
        if Topic.ADVISORY not in statement.topics and Topic.ADVISORY in self._facts.topics_of(statement):
            for lock in self._held:
                if lock.client is not client:
                    raise _refusal(client, lock.client, "by code in the server")
        return nothing()

    def before(self, client: Client, statement: Statement) -> Flow:
        if Topic.ADVISORY not in statement.topics:
            return
        while self._owed:
            yield f"SELECT {self._owed.pop().release}"
        number = self._numbers.setdefault(client, len(self._numbers) + 1)
        state = "".join(f";{self._numbers[lock.client]}|{_entry(lock)}" for lock in self._held)
        rows = yield (
            "SELECT pg_catalog.to_regprocedure('pg_temp.dbtc_advisory(text, bigint, integer)') IS NOT NULL, "
            f"pg_catalog.set_config('{_STATE}', {literal(state)}, false), "
            f"pg_catalog.set_config('{_CALLER}', '{number}', false)"
        )
        if rows[0][0] not in (True, "t"):
            for function in _FUNCTIONS:
                yield function

    def replace(self, client: Client, statement: Statement) -> str | None:
        if Topic.ADVISORY not in statement.topics:
            return None
        text = statement.text
        in_body = text.lstrip()[:3].lower() == "do "
        for match in reversed(list(_CALL.finditer(text if in_body else POSTGRESQL.mask(text)))):
            text = f"{text[: match.start()]}pg_temp.{match[1]}{text[match.end() :]}"
        return text if text != statement.text else None

    def after(self, client: Client, statement: Statement) -> Flow:
        if Topic.ADVISORY in statement.topics:
            rows = yield f"SELECT pg_catalog.current_setting('{_STATE}', true)"
            self._note(client, str(rows[0][0] or ""))
        elif Topic.ADVISORY in self._facts.topics_of(statement):
            known = {lock.key for lock in self._held}
            for key, mode in (yield _TAKEN):
                if key not in known:
                    self._held.append(_Lock(client, str(key), str(mode), transaction=False))

    def _note(self, client: Client, state: str) -> None:
        number = str(self._numbers[client])
        entries = (each.split("|") for each in state.split(";")[1:])
        mine = [(key, mode, scope == "t") for owner, key, mode, scope in entries if owner == number]
        before = [lock for lock in self._held if lock.client is client]
        left = Counter(mine)
        kept: list[_Lock] = []
        for lock in before:
            if left[lock.key, lock.mode, lock.transaction]:
                left[lock.key, lock.mode, lock.transaction] -= 1
                kept.append(lock)
        new = [_Lock(client, *each, client.depth) for each in left.elements()]
        self._held = [lock for lock in self._held if lock.client is not client] + kept + new

    def ended(self, client: Client, *, committed: bool) -> Flow:
        if self._held:
            self._drop(lambda lock: lock.client is client and lock.transaction)
        while self._owed:
            yield f"SELECT {self._owed.pop().release}"

    def rolled_back_to(self, client: Client, depth: int) -> None:
        self._drop(lambda lock: lock.client is client and lock.transaction and lock.depth >= depth)

    def released(self, client: Client, depth: int) -> None:
        for lock in self._held:
            if lock.client is client:
                lock.depth = min(lock.depth, depth - 1)

    def closed(self, client: Client) -> None:
        self._drop(lambda lock: lock.client is client)

    def _drop(self, is_over: Callable[[_Lock], bool]) -> None:
        self._owed += [lock for lock in self._held if is_over(lock)]
        self._held = [lock for lock in self._held if not is_over(lock)]

    def conflict(self, client: Client, error: BaseException) -> SandboxConflict:
        """The error for a lock that would be waited for."""
        key = str(error).partition("advisory lock ")[2].split()[:1]
        holder = next((lock.client for lock in self._held if key == [lock.key]), None)
        return _refusal(client, holder, f"({key[0]}) " if key else "")

    def forget(self, scope: int) -> Flow:
        self._held.clear()
        self._owed.clear()
        self._numbers.clear()
        return nothing()


def _entry(lock: _Lock) -> str:
    return f"{lock.key}|{lock.mode}|{'t' if lock.transaction else 's'}"


def _refusal(client: Client, holder: Client | None, how: str) -> SandboxConflict:
    return SandboxConflict(
        f"{client} waits for an advisory lock {how.strip()} that {holder or 'another connection'} holds: nobody would "
        "give it back meanwhile.",
        cause="two connections want one lock; in the sandbox they run on one connection, one after the other",
        remedy="end the transaction or give the lock back before the other connection asks for it, ask by "
        "pg_try_advisory_lock(), or " + COMMITTING,
    )


_TAKEN = (
    "SELECT CASE objsubid WHEN 1 THEN (classid::bigint << 32 | objid::bigint)::text "
    "ELSE classid::bigint || ',' || objid::bigint END, CASE mode WHEN 'ShareLock' THEN 's' ELSE 'x' END "
    "FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid()"
)
_CORE = f"""
CREATE FUNCTION pg_temp.dbtc_advisory(verb text, k1 bigint, k2 integer) RETURNS boolean LANGUAGE plpgsql AS $dbtc$
DECLARE
    state text := coalesce(pg_catalog.current_setting('{_STATE}', true), '');
    caller text := pg_catalog.current_setting('{_CALLER}', true);
    key text := k1 || coalesce(',' || k2, '');
    mode text := CASE WHEN verb LIKE '%shared' THEN 's' ELSE 'x' END;
    entry text := ';' || caller || '|' || key || '|' || mode || CASE WHEN verb LIKE '%xact%' THEN '|t' ELSE '|s' END;
    found integer;
    given boolean;
BEGIN
    IF verb LIKE '%unlock%' THEN
        found := strpos(state || ';', entry || ';');
        IF found = 0 THEN
            RAISE WARNING 'you don''t own a lock of type %',
                CASE mode WHEN 's' THEN 'ShareLock' ELSE 'ExclusiveLock' END;
            RETURN false;
        END IF;
        EXECUTE 'SELECT pg_catalog.pg_advisory_unlock' || CASE mode WHEN 's' THEN '_shared' ELSE '' END
            || '(' || key || ')';
        state := left(state, found - 1) || substr(state, found + length(entry));
    ELSE
        IF state ~ (';(?!' || caller || '\\|)[0-9]+\\|' || key || '\\|'
                || CASE mode WHEN 's' THEN 'x' ELSE '[xs]' END) THEN
            IF verb LIKE 'try%' THEN
                RETURN false;
            END IF;
            RAISE EXCEPTION 'advisory lock % is held', key USING ERRCODE = '{IS_HELD}';
        END IF;
        IF verb LIKE 'try%' THEN
            EXECUTE 'SELECT pg_catalog.pg_try_advisory_lock' || CASE mode WHEN 's' THEN '_shared' ELSE '' END
                || '(' || key || ')' INTO given;
            IF NOT given THEN
                RETURN false;
            END IF;
        ELSE
            EXECUTE 'SELECT pg_catalog.pg_advisory_lock' || CASE mode WHEN 's' THEN '_shared' ELSE '' END
                || '(' || key || ')';
        END IF;
        state := state || entry;
    END IF;
    PERFORM pg_catalog.set_config('{_STATE}', state, false);
    RETURN true;
END $dbtc$
""".strip()

_UNLOCK_ALL = f"""
CREATE FUNCTION pg_temp.pg_advisory_unlock_all() RETURNS void LANGUAGE plpgsql AS $dbtc$
DECLARE
    mine text := pg_catalog.current_setting('{_CALLER}', true) || '|%|s';
    kept text := '';
    entry text;
BEGIN
    FOREACH entry IN ARRAY string_to_array(substr(pg_catalog.current_setting('{_STATE}', true), 2), ';') LOOP
        IF entry LIKE mine THEN
            EXECUTE 'SELECT pg_catalog.pg_advisory_unlock' || CASE split_part(entry, '|', 3) WHEN 's' THEN '_shared'
                ELSE '' END || '(' || split_part(entry, '|', 2) || ')';
        ELSE
            kept := kept || ';' || entry;
        END IF;
    END LOOP;
    PERFORM pg_catalog.set_config('{_STATE}', kept, false);
END $dbtc$
""".strip()


def _functions() -> list[str]:
    """The functions that are called in place of the server's, one of each name and signature."""
    found = [_CORE, _UNLOCK_ALL]
    for name, returns in (
        *((f"pg_advisory_{x}lock{s}", "void") for x in ("", "xact_") for s in ("", "_shared")),
        *((f"pg_try_advisory_{x}lock{s}", "boolean") for x in ("", "xact_") for s in ("", "_shared")),
        *((f"pg_advisory_unlock{s}", "boolean") for s in ("", "_shared")),
    ):
        verb = name.removeprefix("pg_").replace("advisory_", "")
        # void is NULL from a function in SQL, and not from the server's own
        language, body = ("plpgsql", "BEGIN PERFORM {}; END") if returns == "void" else ("sql", "SELECT {}")
        for parameters, arguments in (("bigint", "$1, NULL"), ("integer, integer", "$1, $2")):
            head = f"CREATE FUNCTION pg_temp.{name}({parameters}) RETURNS {returns} LANGUAGE {language} STRICT"
            code = body.format(f"pg_temp.dbtc_advisory('{verb}', {arguments})")
            found.append(f"{head} AS $dbtc$ {code} $dbtc$")
    return found


_FUNCTIONS = _functions()
