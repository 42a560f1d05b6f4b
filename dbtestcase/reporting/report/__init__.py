"""The report of a run: recorded by each process, joined by the last one, shown as a page or as JSON.

::

    record   what each process writes while it runs: a line of JSON a test, readable also where the process was killed
    joining  the parts of all processes made one document
    writing  from the first class of a process to the last process of a run, which writes what was asked for
    compare  two documents: what got slower, which statements are newly repeated
    page     the document as one page that needs nothing else
"""

from __future__ import annotations

from .command import add_report
from .compare import Budget, Worse, parse_budgets, worse
from .joining import SCHEMA_VERSION, Document, join, parts_of, read_document
from .record import Recorder, parts_folder, recorder, start, stop
from .writing import reporting, summary, write_outputs, write_report

__all__ = [
    "SCHEMA_VERSION",
    "Budget",
    "Document",
    "Recorder",
    "Worse",
    "add_report",
    "join",
    "parse_budgets",
    "parts_folder",
    "parts_of",
    "read_document",
    "recorder",
    "reporting",
    "start",
    "stop",
    "summary",
    "worse",
    "write_outputs",
    "write_report",
]
