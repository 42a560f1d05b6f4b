"""Names of a PostgreSQL schema as SQL text, quoted where they must be, and SQL as the Python of a revision."""

from __future__ import annotations

import re

from sqlalchemy.dialects import postgresql

from .schema_state import Item

# What SQLAlchemy would take for a parameter, in a string that Alembic hands to it.
_PARAMETER = re.compile(r"(?<![:\w\\]):(?=\w+(?!:)\b)")

_preparer = postgresql.dialect().identifier_preparer  # type: ignore[no-untyped-call]


def quoted(name: str) -> str:
    """The name, in quotes where it is a reserved word or has characters that need them."""
    return _preparer.quote(name)


def qualified(item: Item, name: str | None = None) -> str:
    """The item's name (or that of its neighbour ``name``) with its schema, unless that is ``public``."""
    own = item.name if name is None else name
    text = own if own.endswith(")") else quoted(own)  # a routine comes with its arguments, as the server wrote it
    return text if item.kind == "schema" or item.schema in ("", "public") else f"{quoted(item.schema)}.{text}"


def execute(statement: str) -> str:
    """``op.execute(…)`` as Python, on several lines where the statement has several."""
    statement = _PARAMETER.sub(r"\\:", statement.strip().removesuffix(";"))
    if "\n" not in statement or '"""' in statement:
        return f"op.execute({statement!r})"
    raw = "r" if "\\" in statement else ""
    return f'op.execute(\n    {raw}"""\n{statement}\n    """\n)'
