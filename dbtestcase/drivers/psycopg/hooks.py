"""The private doors of psycopg that the sandbox opens: checked where they are imported.

Through the generators of its connections and cursors psycopg does everything, in its sync and its async classes alike.
"""

from __future__ import annotations

import inspect
from collections.abc import Generator
from typing import Any

import psycopg

from ...reporting import require_internals

Gen = Generator[Any, Any, Any]
"""What psycopg's connections and cursors do everything with: it yields what to wait for, and is sent what came."""

HOOKS: dict[str, tuple[str, ...]] = {
    "Connection": (
        "_start_query",
        "_exec_command",
        "_commit_gen",
        "_rollback_gen",
        "_set_autocommit_gen",
        "_check_intrans_gen",
        "_tpc_begin_gen",
        "_check_connection_ok",
        "_connect_gen",
        "_should_cancel",
    ),
    "Cursor": (
        "_start_query",
        "_execute_gen",
        "_executemany_gen_pipeline",
        "_executemany_gen_no_pipeline",
        "_stream_send_gen",
        "_start_copy_gen",
        "_reset",
    ),
    "ServerCursor": ("_declare_gen", "_close_gen", "_fetch_gen"),
    "Pipeline": ("_sync_gen", "_fetch_gen", "_enter_gen", "_exit_gen"),
    "Transaction": ("_enter_gen", "_commit_gen", "_rollback_gen", "_push_savepoint", "_pop_savepoint"),
}
"""The private methods that are overridden or called, by class."""


def check_hooks(module: Any = psycopg) -> None:
    """Make sure that this psycopg has the methods that the sandbox needs."""
    require_internals(
        f"psycopg {module.__version__}",
        [(getattr(module, name, type(name, (), {})), methods) for name, methods in HOOKS.items()],
        "pip install 'psycopg[binary]>=3.2,<3.4'",
    )


def as_written(cls: type, *names: str) -> list[Any]:
    """Methods as psycopg has written them, whoever has wrapped them since."""
    return [inspect.unwrap(getattr(cls, name)) for name in names]


check_hooks()
sync_only: Any = psycopg.Pipeline._sync_gen
"""A Sync among commands of the sandbox's own, which ends nothing of the application's."""
