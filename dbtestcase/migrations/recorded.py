"""What models make beside their tables, where the database cannot undo it: the statements are heard and not executed.

On MySQL, MariaDB and SQLite the listeners of ``before_create`` and ``after_create`` are called with a connection that
answers questions and only writes down what would change something.  What they would make is looked for in the migrated
database: views, triggers, routines and events by their names, and by their texts where the database keeps those.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, MetaData, Table, event, text

from ..sandbox import FILL, MYSQL, SQLITE, Lexer
from .listeners import Listeners, made_by
from .models import Models
from .naming import execute
from .schema_state import Item

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext

_KINDS = ("view", "trigger", "function", "procedure", "event")
_ASKS = re.compile(
    r"\s*(?:SELECT|SHOW|DESCRIBE|DESC|EXPLAIN|PRAGMA|WITH|SAVEPOINT|RELEASE|ROLLBACK\s+TO)\b", re.IGNORECASE
)
_HEAD = re.compile(r"^create(?: or replace)?(?: temp| temporary)?(?: (?:definer|algorithm|sql security) .*?)?(?= \w)")

_MARIADB = """
    SELECT 'view', table_name, NULL FROM information_schema.views WHERE table_schema = DATABASE()
    UNION ALL SELECT 'trigger', trigger_name, CONCAT(action_timing, ' ', event_manipulation, ' on ', event_object_table,
        ' for each row ', action_statement) FROM information_schema.triggers WHERE trigger_schema = DATABASE()
    UNION ALL SELECT LOWER(routine_type), routine_name, routine_definition
        FROM information_schema.routines WHERE routine_schema = DATABASE()
    UNION ALL SELECT 'event', event_name, event_definition
        FROM information_schema.events WHERE event_schema = DATABASE()
"""
_SQLITE = "SELECT type, name, sql FROM sqlite_master WHERE type IN ('view', 'trigger')"


def missing_beside_tables(
    context: MigrationContext, models: Sequence[MetaData], excluded: Callable[[Item], bool]
) -> list[str]:
    """What the listeners would make that the migrations lack or define otherwise, as lines of a revision."""
    connection = context.connection
    assert connection is not None
    sqlite = connection.dialect.name == "sqlite"
    lexer = SQLITE if sqlite else MYSQL
    known = Models(models, "", connection.dialect)
    tables = [table for table in known.tables.values() if not excluded(Item("table", "", table.name))]
    listeners = Listeners(connection, models, tables)
    if not listeners:
        return []
    lines: list[str] = []
    with _heard(connection) as heard:
        for name, call in _calls(listeners, tables):
            try:
                call()
            except Exception as error:
                if not excluded(Item("listener", "", name)):
                    lines.append(f"# listener {name} of the models cannot be called: {error}".partition("\n")[0])
    migrated = {
        (kind, name): definition for kind, name, definition in connection.execute(text(_SQLITE if sqlite else _MARIADB))
    }
    for statement in dict.fromkeys(heard):
        for made in made_by(statement, lexer):
            if made.kind in _KINDS and not excluded(Item(made.kind, made.schema, made.name)):
                definition = migrated.get((made.kind, made.name))
                if (made.kind, made.name) not in migrated:
                    lines.append(execute(statement))
                elif definition is not None and not _same(lexer, statement, definition):
                    lines += [execute(f"DROP {made.kind.upper()} {made.name}"), execute(statement)]
    return lines


def _calls(listeners: Listeners, tables: Sequence[Table]) -> Iterator[tuple[str, Callable[[], object]]]:
    yield from listeners.of_models("before_create")
    for table in tables:
        yield from listeners.calls(table, "before_create")
        yield from listeners.calls(table, "after_create")
    yield from listeners.of_models("after_create")


@contextmanager
def _heard(connection: Connection) -> Iterator[list[str]]:
    """Write down what would change something, and let questions pass."""
    heard: list[str] = []

    def hear(cursor: object, statement: str, *arguments: Any) -> bool | None:
        execution = arguments[-1]
        if getattr(execution, "root_connection", None) is not connection or _ASKS.match(statement):
            return None
        heard.append(statement)
        return True

    names = ("do_execute", "do_execute_no_params", "do_executemany")
    for name in names:
        event.listen(connection.engine, name, hear)
    try:
        yield heard
    finally:
        for name in names:
            event.remove(connection.engine, name, hear)


def _same(lexer: Lexer, statement: str, definition: str) -> bool:
    """Whether a statement makes what the database has; blanks, comments, case and quotes of names are no difference."""
    return _words(lexer, statement).endswith(_words(lexer, definition))


def _words(lexer: Lexer, statement: str) -> str:
    words = []
    statement = statement.strip().rstrip(";")
    masked = lexer.mask(statement)
    for match in re.finditer(rf"'{FILL}*'|[\"`\[]{FILL}+[\"`\]]|\w+|[^\s\w]", masked):
        word = statement[match.start() : match.end()]
        words.append(word if word[:1] == "'" else word.strip('"`[]').lower())
    return _HEAD.sub("create", " ".join(words)).replace(" if not exists", "")
