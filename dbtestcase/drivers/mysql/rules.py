"""The rules of a sandbox on MySQL and MariaDB, where many statements commit by themselves."""

from __future__ import annotations

import decimal
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar

from ...errors import SandboxConflict, SandboxEscape
from ...sandbox import (
    COMMITTING,
    MYSQL,
    Client,
    Fail,
    Flow,
    Kind,
    Lexer,
    Rules,
    SchemaFacts,
    SessionObjects,
    Stack,
    Statement,
    TemporaryNames,
    Topic,
    Wire,
    common_objects,
    register_objects,
    register_rules,
)
from . import statements as words


class MySQLRules(Rules):
    """MySQL 8 and MariaDB 10.5, and later."""

    name = "mysql"
    begin = "BEGIN"
    end = "ROLLBACK"
    has_settings = True
    settings_roll_back = False
    any_case = True
    savepoints_replace = True
    default_level = "repeatable read"
    snapshot_by_reading = True
    no_savepoint = ("OperationalError", "SAVEPOINT {} does not exist")
    nothing = "DO 0"
    undo_session = "DO RELEASE_ALL_LOCKS()"
    volatile_functions = (
        "SELECT LOWER(ROUTINE_NAME), 'function' FROM information_schema.ROUTINES"
        " WHERE ROUTINE_SCHEMA = DATABASE() AND ROUTINE_TYPE = 'FUNCTION'"
    )
    # an UPDATE that finds a row and changes nothing fires the row's triggers all the same
    trigger_counts = (
        "SELECT COUNT(*), COUNT(*), 0 FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = DATABASE()"
    )
    relations = (
        "SELECT IF(TABLE_TYPE = 'VIEW', 'view', 'table'), TABLE_NAME, '' FROM information_schema.TABLES"
        " WHERE TABLE_SCHEMA = DATABASE()"
        " UNION ALL SELECT 'function', ROUTINE_NAME, '' FROM information_schema.ROUTINES"
        " WHERE ROUTINE_SCHEMA = DATABASE()"
        " UNION ALL SELECT 'trigger', EVENT_OBJECT_TABLE, '' FROM information_schema.TRIGGERS"
        " WHERE EVENT_OBJECT_SCHEMA = DATABASE()"
        " UNION ALL SELECT 'cascade', REFERENCED_TABLE_NAME, TABLE_NAME"
        " FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = DATABASE()"
        " AND (DELETE_RULE IN ('CASCADE', 'SET NULL') OR UPDATE_RULE IN ('CASCADE', 'SET NULL'))"
        " UNION ALL SELECT 'check', TABLE_NAME, REFERENCED_TABLE_NAME"
        " FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = DATABASE()"
        " UNION ALL SELECT 'check', REFERENCED_TABLE_NAME, TABLE_NAME"
        " FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = DATABASE()"
    )

    def refuse(self, statement: Statement) -> SandboxEscape | None:
        if statement.kind is Kind.TRANSACTION:
            return super().refuse(statement)
        part = words.committing_part(statement.text)
        if not part:
            return None
        return SandboxEscape(
            f"The statement {part!r} would commit the transaction that the test runs in, or outlive it; it was not "
            "sent.",
            cause="MySQL and MariaDB commit by themselves around everything that is not a plain change of rows"
            if part.split()[0].lower() not in ("set", "use")
            else "it changes the whole server, or the session that all connections of the sandbox share",
            remedy="make tables in metadata, migrations or load_base_data(), which run before the tests, or "
            + COMMITTING,
        )

    def replace(self, statement: Statement) -> str | None:
        return None

    def takes_locks(self, statement: Statement) -> bool:
        return "get_lock" in statement.calls or (
            statement.kind is Kind.WRITE and ("get_lock" in (text := statement.text.lower()) or "call" in text)
        )

    def read_settings(self, names: Iterable[str]) -> str:
        return "SELECT " + ", ".join(name if name.startswith("@") else f"@@session.`{name}`" for name in names)

    def write_settings(self, values: Mapping[str, object]) -> str:
        return "SET " + ", ".join(
            f"{name if name.startswith('@') else f'@@session.`{name}`'} = {_literal(value)}"
            for name, value in values.items()
        )


def _literal(value: object) -> str:
    """A value that the server gave, as it takes it back; numbers must not be strings there."""
    if value is None:
        return "NULL"
    if isinstance(value, (int, float, decimal.Decimal)):
        return str(value)
    data = value if isinstance(value, bytes) else str(value).encode()
    return f"_utf8mb4 x'{data.hex()}'" if data else "''"


def _objects(rules: Rules, wire: Wire, facts: SchemaFacts, stack: Stack, fail: Fail) -> list[SessionObjects]:
    drop = "DROP TEMPORARY TABLE IF EXISTS `{}`"
    return [
        *common_objects(rules, wire, facts, stack, fail),
        NamedLocks(MYSQL),
        TemporaryNames(drop, MYSQL, rolls_back=False),
    ]


register_rules("mysql", MySQLRules)
register_rules("mariadb", MySQLRules)
register_objects("mysql", _objects)


_CALL = re.compile(r"\b(get_lock|release_lock|is_free_lock|is_used_lock|release_all_locks)\s*\(", re.IGNORECASE)


class NamedLocks(SessionObjects):
    """Which connection holds which lock of ``GET_LOCK()``; one session would give it to all who ask."""

    topics: ClassVar[Topic] = Topic.ADVISORY

    def __init__(self, lexer: Lexer) -> None:
        self._lexer = lexer
        self._held: dict[str, Client] = {}
        self._over: list[str] = []
        self._spoken_of: list[str] = []

    def check(self, client: Client, statement: Statement) -> Flow:
        if Topic.ADVISORY not in statement.topics:
            return
        while self._over:
            name = words.literal(self._over.pop())
            while (yield f"SELECT RELEASE_LOCK({name})")[0][0] == 1:
                pass
        self._spoken_of = []
        others = {name: holder for name, holder in self._held.items() if holder is not client}
        for argument in self._arguments(statement.text):
            if not argument:  # of RELEASE_ALL_LOCKS()
                wanted = list(others)
            else:
                try:
                    rows = yield f"SELECT LOWER({argument})"  # MySQL does not mind the case, MariaDB does
                except Exception:  # it depends on the statement's rows: any lock may be meant
                    wanted = list(others)
                else:
                    self._spoken_of.append(str(rows[0][0]))
                    wanted = [self._spoken_of[-1]]
            for name in wanted:
                if name in others:
                    raise SandboxConflict(
                        f"{client} asks for the lock {name!r}, which {others[name]} holds: the server would not know "
                        "them apart.",
                        cause="GET_LOCK() belongs to a session of the server, and all connections share one here",
                        remedy="give the lock back before the other connection asks for it, or " + COMMITTING,
                    )

    def after(self, client: Client, statement: Statement) -> Flow:
        if Topic.ADVISORY in statement.topics:
            for name in dict.fromkeys([*self._spoken_of, *(n for n, holder in self._held.items() if holder is client)]):
                rows = yield f"SELECT IS_USED_LOCK({words.literal(name)}) = CONNECTION_ID()"
                if rows[0][0] == 1:
                    self._held[name] = client
                else:
                    self._held.pop(name, None)

    def _arguments(self, text: str) -> Iterator[str]:
        """The first argument of each call."""
        masked = self._lexer.mask(text)
        for match in _CALL.finditer(masked):
            depth, at = 0, match.end()
            while at < len(masked) and not (depth == 0 and masked[at] in ",)"):
                depth += (masked[at] == "(") - (masked[at] == ")")
                at += 1
            yield text[match.end() : at].strip()

    def closed(self, client: Client) -> None:
        self._over += [name for name, holder in self._held.items() if holder is client]
        self._held = {name: holder for name, holder in self._held.items() if holder is not client}

    def forget(self, scope: int) -> Flow:
        self._held.clear()
        self._over.clear()
        return
        yield
