"""What ``alembic check`` finds: where there is no comparison of our own, and what env.py adds to or takes from it."""

from __future__ import annotations

import functools
import re
import textwrap
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from alembic.autogenerate import produce_migrations, render_op_text
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import DropTableOp, MigrateOperation, MigrationScript
from alembic.runtime.migration import MigrationContext
from sqlalchemy import MetaData

from .environment import given_options
from .internals import compares_with_more_than_alembic
from .recorded import missing_beside_tables
from .schema_state import Item


def missing_operations(
    context: MigrationContext,
    models: Sequence[MetaData],
    excluded: Callable[[Item], bool],
    version_tables: Collection[str],
) -> list[str]:
    """What ``alembic revision --autogenerate`` would write, with types and server defaults compared."""
    given = given_options(context)
    for name in ("compare_type", "compare_server_default"):
        if name not in given:
            context.opts[name] = True
    context._user_compare_type = context.opts["compare_type"]
    context._user_compare_server_default = context.opts.get("compare_server_default", False)
    found: list[str] = []
    for operation in _after_env_py(context, _produced(context, models)):
        ours = isinstance(operation, DropTableOp) and operation.table_name in version_tables
        if not ours and not excluded(_item(operation)):
            found += written(context, operation)
    if context.dialect.name in ("sqlite", "mysql", "mariadb"):
        found += missing_beside_tables(context, models, excluded)
    return found


def removed_by_env_py(context: MigrationContext, models: Sequence[MetaData]) -> Callable[[Item], bool]:
    """What env.py's ``process_revision_directives`` takes from what Alembic finds, as a function of items."""
    if not context.opts.get("process_revision_directives"):
        return lambda item: False
    script = _produced(context, models)
    before = {_place(_item(operation)) for operation in _operations(script)}
    after = {_place(_item(operation)) for operation in _after_env_py(context, script)}
    removed = before - after
    return lambda item: _place(item, context) in removed


def foreign_operations(
    context: MigrationContext, models: Sequence[MetaData], excluded: Callable[[Item], bool]
) -> list[str]:
    """What comparisons that env.py or a plug-in has added to Alembic find (views, functions, …)."""
    if not compares_with_more_than_alembic():
        return []
    found: list[str] = []
    for operation in _after_env_py(context, _produced(context, models)):
        if not _is_alembics(operation) and not excluded(_item(operation)):
            found += written(context, operation)
    return found


def _produced(context: MigrationContext, models: Sequence[MetaData]) -> MigrationScript:
    return produce_migrations(context, list(models))  # type: ignore[arg-type]


def _after_env_py(context: MigrationContext, script: MigrationScript) -> list[MigrateOperation]:
    """The operations that env.py's ``process_revision_directives`` leaves, as in ``alembic check``."""
    hook = context.opts.get("process_revision_directives")
    scripts = [script]
    if hook is not None:
        heads = tuple(context.get_current_heads())
        hook(context, heads[0] if len(heads) == 1 else heads, scripts)
    return [operation for each in scripts for operation in _operations(each)]


def _operations(script: MigrationScript) -> list[MigrateOperation]:
    return [operation for each in script.upgrade_ops_list for operation in _flat(each.ops)]


def _flat(operations: Iterable[MigrateOperation]) -> Iterable[MigrateOperation]:
    for operation in operations:
        inner = getattr(operation, "ops", None)
        if inner is None:
            yield operation
        else:
            yield from _flat(inner)


def _item(operation: MigrateOperation) -> Item:
    column = getattr(operation, "column", None)
    parts: list[Any] = [getattr(operation, name, None) for name in ("constraint_name", "index_name", "column_name")]
    part = next((part for part in parts if part), getattr(column, "name", ""))
    schema = getattr(operation, "schema", None) or getattr(operation, "source_schema", None) or ""
    table = getattr(operation, "table_name", None) or getattr(operation, "source_table", None) or ""
    return Item("", schema, str(table), str(part))


def _place(item: Item, context: MigrationContext | None = None) -> tuple[str, str, str]:
    own = _default_schema(context.dialect) if context is not None else ""
    return ("" if item.schema == own else item.schema, item.name, item.part)


@functools.cache
def _default_schema(dialect: Any) -> str:
    return str(getattr(dialect, "default_schema_name", None) or "public")


_ENUM = re.compile(r"""postgresql\.ENUM\((?:[^()'"]|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")*\)""")


def written(context: MigrationContext, operation: MigrateOperation) -> list[str]:
    """The operation as ``alembic revision --autogenerate`` would write it."""
    text = render_op_text(AutogenContext(context, MetaData(), autogenerate=False), operation).strip()
    # SQLAlchemy 2.0 does not write it; without it a table would make the type, which has an operation of its own
    text = _ENUM.sub(
        lambda found: found[0] if "create_type" in found[0] else f"{found[0][:-1]}, create_type=False)", text
    )
    if not _is_alembics(operation):  # it may be several statements
        first, _, rest = text.partition("\n")
        return ["\n".join(filter(None, (first, textwrap.dedent(rest))))] if text else []
    first, *inner = text.splitlines() or [""]
    return ["\n".join([first, *(line if line == ")" else f"    {line.strip()}" for line in inner)])] if text else []


def _is_alembics(operation: MigrateOperation) -> bool:
    return type(operation).__module__.startswith("alembic.")
