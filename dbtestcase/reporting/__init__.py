"""What is told of a run: statements, failures, waits for locks, slow starts."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from . import report
from .call_sites import CallSite, call_site_of, find_call_site, is_application
from .internals import require_internals
from .limits import limit_named_by
from .progress import doing, say
from .urls import pasteable, shown, without_secrets
from .warned import warn_at

if TYPE_CHECKING:
    from .failures import FailureEvidence, SQLLog, add_evidence, evidence_once
    from .lock_waits import LockWatch
    from .queries import Query, Recording, harness_statements, recording
    from .unittest_internals import (
        cleanups_of,
        forget_class_cleanups,
        loop_runner_of,
        name_of,
        name_test,
        own_class_cleanups,
        runs_in_a_runner,
    )

__all__ = [
    "CallSite",
    "FailureEvidence",
    "LockWatch",
    "Query",
    "Recording",
    "SQLLog",
    "add_evidence",
    "call_site_of",
    "cleanups_of",
    "doing",
    "evidence_once",
    "find_call_site",
    "forget_class_cleanups",
    "harness_statements",
    "is_application",
    "limit_named_by",
    "loop_runner_of",
    "name_of",
    "name_test",
    "own_class_cleanups",
    "pasteable",
    "recording",
    "report",
    "require_internals",
    "runs_in_a_runner",
    "say",
    "shown",
    "warn_at",
    "without_secrets",
]

# Loaded when first asked for: a server that is started needs none of it.
_LAZY = {
    "cleanups_of": "dbtestcase.reporting.unittest_internals",
    "forget_class_cleanups": "dbtestcase.reporting.unittest_internals",
    "loop_runner_of": "dbtestcase.reporting.unittest_internals",
    "name_of": "dbtestcase.reporting.unittest_internals",
    "name_test": "dbtestcase.reporting.unittest_internals",
    "own_class_cleanups": "dbtestcase.reporting.unittest_internals",
    "runs_in_a_runner": "dbtestcase.reporting.unittest_internals",
    "FailureEvidence": "dbtestcase.reporting.failures",
    "SQLLog": "dbtestcase.reporting.failures",
    "add_evidence": "dbtestcase.reporting.failures",
    "evidence_once": "dbtestcase.reporting.failures",
    "LockWatch": "dbtestcase.reporting.lock_waits",
    "Query": "dbtestcase.reporting.queries",
    "Recording": "dbtestcase.reporting.queries",
    "harness_statements": "dbtestcase.reporting.queries",
    "recording": "dbtestcase.reporting.queries",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
