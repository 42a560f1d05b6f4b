"""Alembic: upgrade, fingerprint, compare, walk.  The only package that imports alembic, and only when it migrates."""

from __future__ import annotations

from dbtestcase.migrations.commands import commands_led
from dbtestcase.migrations.recipe import MigrationRecipe

__all__ = ["MigrationRecipe", "commands_led"]
