"""What is told of a run: statements, failures, waits for locks, slow starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import report
from .call_sites import CallSite, awaiting_frames, call_site_of, find_call_site, is_application
from .collecting import collecting_less, end_at_once
from .imports import lazily, require_internals, version_of
from .limits import limit_named_by
from .progress import doing, say, warn_at
from .said import says
from .urls import for_driver, for_psycopg, pasteable, shown, without_secrets

if TYPE_CHECKING:
    from .failures import FailureEvidence, SQLLog, add_evidence, evidence_once, together
    from .queries import Query, Recording, harness_statements, recording, site_of_statement
    from .unittest_internals import (
        add_class_cleanup,
        cleanups_of,
        forget_class_cleanups,
        loop_runner_of,
        module_cleanups,
        name_of,
        name_test,
        when_never_awaited,
    )

__all__ = [
    "CallSite",
    "FailureEvidence",
    "Query",
    "Recording",
    "SQLLog",
    "add_class_cleanup",
    "add_evidence",
    "awaiting_frames",
    "call_site_of",
    "cleanups_of",
    "collecting_less",
    "doing",
    "end_at_once",
    "evidence_once",
    "find_call_site",
    "for_driver",
    "for_psycopg",
    "forget_class_cleanups",
    "harness_statements",
    "is_application",
    "lazily",
    "limit_named_by",
    "loop_runner_of",
    "module_cleanups",
    "name_of",
    "name_test",
    "pasteable",
    "recording",
    "report",
    "require_internals",
    "say",
    "says",
    "shown",
    "site_of_statement",
    "together",
    "version_of",
    "warn_at",
    "when_never_awaited",
    "without_secrets",
]

# Loaded when first asked for: a server that is started needs none of it.
__getattr__ = lazily(
    __name__,
    failures="FailureEvidence SQLLog add_evidence evidence_once together",
    queries="Query Recording harness_statements recording site_of_statement",
    unittest_internals="add_class_cleanup cleanups_of forget_class_cleanups loop_runner_of module_cleanups "
    "name_of name_test when_never_awaited",
)
