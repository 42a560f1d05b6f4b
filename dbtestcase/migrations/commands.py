"""Alembic's commands, called by an application or a test while a class runs: their env.py is led to the test database.

``alembic.command.upgrade(config, "head")`` runs env.py by itself.  Whatever engine that makes is led there, as in the
library's own runs, and its logging is kept from the process; everything else is as in production.  Alembic is looked
after when it is imported, not before: importing it takes longer than all the rest of a run.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..drivers import when_imported

if TYPE_CHECKING:
    from .redirect import Target

_MODULE = "alembic.script.base"
_targets: list[Callable[[], Target]] = []
_led: object = None
"""The module that asks."""


@contextlib.contextmanager
def commands_led(target: Callable[[], Target]) -> Iterator[None]:
    """Lead what Alembic's commands connect to while the block lasts; ``target`` says where to, when one runs."""
    if sys.modules.get(_MODULE) is not _led:  # somebody has had it imported anew
        when_imported(_MODULE, _lead)
    _targets.append(target)
    try:
        yield
    finally:
        _targets.remove(target)


def _lead(module: Any) -> None:
    """Let ``ScriptDirectory.run_env`` ask where to."""
    global _led
    _led = module
    original = module.ScriptDirectory.run_env
    if hasattr(original, "__wrapped__"):
        return

    def run_env(script: Any) -> None:
        if not _targets or getattr(script, "leads_by_itself", False):
            original(script)
            return
        from .internals import version_folders
        from .loggers import loggers_kept
        from .redirect import lead
        from .several_databases import each_database

        folders = [Path(script.dir).absolute(), *map(Path, version_folders(script))]
        with lead(_targets[-1]()), loggers_kept(folders):
            each_database(lambda: original(script))

    run_env.__wrapped__ = original  # type: ignore[attr-defined]
    module.ScriptDirectory.run_env = run_env


when_imported(_MODULE, _lead)
