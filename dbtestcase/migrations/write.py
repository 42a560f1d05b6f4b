"""Alembic operations written as Python."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from alembic.autogenerate import render_op_text
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import MigrateOperation
from sqlalchemy import MetaData

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext

__all__ = ["written"]

_ENUM = re.compile(r"""postgresql\.ENUM\((?:[^()'"]|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")*\)""")


def written(context: MigrationContext, operation: MigrateOperation) -> list[str]:
    """The operation as ``alembic revision --autogenerate`` would write it."""
    text = render_op_text(AutogenContext(context, MetaData(), autogenerate=False), operation).strip()
    # SQLAlchemy 2.0 does not write it; without it a table would make the type, which has an operation of its own
    text = _ENUM.sub(
        lambda found: found[0] if "create_type" in found[0] else f"{found[0][:-1]}, create_type=False)", text
    )
    first, *inner = text.splitlines() or [""]
    return ["\n".join([first, *(line if line == ")" else f"    {line.strip()}" for line in inner)])] if text else []
