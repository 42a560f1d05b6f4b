"""Databases for tests: made from a template, leased to one process, cleaned, dropped; a folder for each dialect."""

from __future__ import annotations

from . import cleaning
from .databases import prune, test_database, try_url
from .existing import ExistingUse
from .initial_schema import build_initial_schema, connected, load_base_data, run_initial_schema
from .inputs import add_to, files_below, note_folder
from .interface import Database
from .names import library_version
from .postgresql.keep_rows import Kept, copy_rows, fetcher
from .recipes import Recipe
from .registry import backend_for, register
from .schema import MetadataRecipe
from .server_urls import checked_url, names_a_server
from .sources import digest_of

__all__ = [
    "Database",
    "ExistingUse",
    "Kept",
    "MetadataRecipe",
    "Recipe",
    "add_to",
    "backend_for",
    "build_initial_schema",
    "checked_url",
    "cleaning",
    "connected",
    "copy_rows",
    "digest_of",
    "fetcher",
    "files_below",
    "library_version",
    "load_base_data",
    "names_a_server",
    "note_folder",
    "prune",
    "register",
    "run_initial_schema",
    "test_database",
    "try_url",
]
