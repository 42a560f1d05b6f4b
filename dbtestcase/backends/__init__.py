"""Databases: made, leased, cloned, cleaned; by kind."""

from __future__ import annotations

from .databases import Database, Lending, prune, register, test_database

__all__ = ["Database", "Lending", "prune", "register", "test_database"]
