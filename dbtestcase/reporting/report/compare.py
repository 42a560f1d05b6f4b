"""Two documents beside each other: what got slower, what is newly repeated; and budgets for it.  No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ...errors import ConfigurationError
from .joining import Document

_NOISE = 0.005  # seconds: less than this is the machine's doing


@dataclass(frozen=True)
class Budget:
    """How much worse a run may be than the one before.

    :ivar repeated: a statement that one line sends so often within a test, and did not before, is too much.
    :ivar slower: a test whose statements take so many times what they took is too slow.
    """

    repeated: int | None = None
    slower: float | None = None


class Worse(NamedTuple):
    """One thing that got worse: a test, and in what."""

    test: str
    what: str


def parse_budgets(text: str) -> Budget:
    """``repeated=20,slower=1.5``; anything else is refused."""
    found: dict[str, float] = {}
    for piece in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, value = piece.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = 0.0
        if name not in ("repeated", "slower") or number <= 0 or (name == "slower" and number < 1):
            raise ConfigurationError(
                f"--fail-on cannot be {piece!r}.",
                cause="a misspelling, or no number",
                remedy="write repeated=20 (times in a test) or slower=1.5 (times the earlier run), or both",
            )
        found[name] = number
    repeated = found.get("repeated")
    return Budget(None if repeated is None else int(repeated), found.get("slower"))


def worse(now: Document, earlier: Document, budget: Budget) -> list[Worse]:
    """What is worse than a budget allows, in the order of the tests; of a new one only repeated statements count."""
    before = {test["id"]: test for test in earlier["tests"]}
    found = []
    for test in now["tests"]:
        old = before.get(test["id"])
        if budget.repeated is not None:
            counts = (
                {(each["sql"], each["line"].rpartition(":")[0]): each["count"] for each in old["repeated"]}
                if old
                else {}
            )
            for each in test["repeated"]:
                # the line's number moves with every edit above it: the statement and its file are what stays
                was = counts.get((each["sql"], each["line"].rpartition(":")[0]), 0)
                if each["count"] >= budget.repeated and each["count"] > was:
                    found.append(
                        Worse(test["id"], f"{each['count']} times (was {was}) from {each['line']}: {each['sql'][:120]}")
                    )
        if budget.slower is not None and old is not None:
            was, is_now = old["database"], test["database"]
            if is_now > was * budget.slower and is_now - was > _NOISE:
                found.append(
                    Worse(test["id"], f"its statements took {is_now * 1000:.1f} ms, before {was * 1000:.1f} ms")
                )
    return found
