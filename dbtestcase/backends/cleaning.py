"""What a test touched in a database, and how it is put back.

For classes that commit for real: a :class:`Cleaner` knows which rows, sequences and other things a test changed without
looking at every table, and puts only those back.  It works on a connection of its own and needs no TestCase::

    install(url)                      # once, in the template: bookkeeping and copies of the reference rows
    with cleaner_for(url, database) as cleaner:
        ...                           # a test commits whatever it likes
        report = cleaner.clean()      # all is as it was

What differs from server to server is in a module for each, found by the URL's dialect.
"""

from __future__ import annotations

from sqlalchemy import URL

from .cleaners import Cleaner, Reclonable
from .cleaning_report import Look, Opened, Report, Session, Standing
from .registry import cleaning_for

__all__ = [
    "Cleaner",
    "Look",
    "Opened",
    "Reclonable",
    "Report",
    "Session",
    "Standing",
    "cleaner_for",
    "install",
    "uninstall",
]


def install(url: URL) -> None:
    """Make the bookkeeping in the database at ``url``, or its template, whose rows of now are those to put back."""
    cleaning_for(url).install(url)


def uninstall(url: URL) -> None:
    """Remove what :func:`install` made, from a database that goes on being used for something else."""
    cleaning_for(url).uninstall(url)


def cleaner_for(url: URL, database: Reclonable | None = None) -> Cleaner:
    """A cleaner for the database; ``database`` can put it back whole, where a test has changed the schema itself."""
    return cleaning_for(url).connect(url, database)
