"""An application's command line: each call makes an engine of the URL in its settings."""

from __future__ import annotations

from typing import Any

from sqlalchemy import create_engine

from tests.support.border import by_core

__all__ = ["VARIABLE", "call"]

VARIABLE = "SHOP_DATABASE_URL"


def call(*, catch_exceptions: bool = True) -> Any:
    """Call it in this process, as a test does; gives click's result."""
    import click
    from click.testing import CliRunner

    @click.command()
    @click.option("--database", envvar=VARIABLE, required=True)
    def add(database: str) -> None:
        engine = create_engine(database)
        by_core(engine)
        engine.dispose()

    return CliRunner().invoke(add, [], catch_exceptions=catch_exceptions)
