"""The rules of a sandbox on MySQL and MariaDB, where many statements commit by themselves."""

from __future__ import annotations

import decimal
from collections.abc import Iterable, Mapping

from ...errors import SandboxEscape
from ...sandbox import (
    COMMITTING,
    MYSQL,
    Fail,
    Kind,
    Rules,
    SchemaFacts,
    SessionObjects,
    Stack,
    Statement,
    TemporaryNames,
    Wire,
    common_objects,
    register_objects,
    register_rules,
)
from . import statements as words
from .named_locks import NamedLocks


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
