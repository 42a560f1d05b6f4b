"""An expected failure is one of the application's: what this library refuses, or loses, says nothing of that."""

from __future__ import annotations

from ..errors import ConfigurationError, DatabaseError, LeakError, SandboxError, ServerError
from ..sandbox import COMMITTING
from .hints import chain

_NOT_OF_THE_APPLICATION = (ConfigurationError, SandboxError, ServerError, DatabaseError)


def why_not_expected(label: str, error: BaseException, lost: str) -> LeakError | None:
    """The error for a test that is expected to fail, and failed because of this library; else ``None``.

    :param error: what it failed with.
    :param lost: how the connection of the sandbox was lost; empty where it was not.
    """
    refusal = next(filter(_is_ours, chain(error)), None)
    if refusal is None and not lost:
        return None
    said = getattr(refusal, "what", refusal)
    leak = LeakError(
        f"{label} is expected to fail, but not like this: "
        + (f"{type(refusal).__name__}: {said}" if refusal is not None else f"its connection was lost: {lost}"),
        cause="expectedFailure or xfail on a test that has met the limits of its sandbox, not the failure it is about",
        remedy=getattr(refusal, "remedy", "") or COMMITTING,
    )
    leak.__cause__ = error
    return leak


def _is_ours(error: BaseException) -> bool:
    return isinstance(error, _NOT_OF_THE_APPLICATION) or any(
        note.endswith(COMMITTING) for note in getattr(error, "__notes__", ())
    )
