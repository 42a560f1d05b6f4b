"""What is told of a run: statements, failures, waits for locks, slow starts."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from . import report
from .call_sites import CallSite, call_site_of, find_call_site, is_application
from .limits import limit_named_by
from .progress import doing, say
from .urls import pasteable, shown, without_secrets
from .warned import warn_at

if TYPE_CHECKING:
    from .failures import FailureEvidence, SQLLog, add_evidence, evidence_once
    from .lock_waits import LockWatch
    from .queries import Query, Recording, harness_statements, recording

__all__ = [
    "CallSite",
    "FailureEvidence",
    "LockWatch",
    "Query",
    "Recording",
    "SQLLog",
    "add_evidence",
    "call_site_of",
    "doing",
    "evidence_once",
    "find_call_site",
    "harness_statements",
    "is_application",
    "limit_named_by",
    "pasteable",
    "recording",
    "report",
    "say",
    "shown",
    "warn_at",
    "without_secrets",
]

# Loaded when first asked for: a server that is started needs none of it.
_LAZY = {
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
