"""What an ordinary run of the tests tries of a long list whose items go through the same code: each run another share.

``LONG_TESTS=1`` tries all.  A failure names its item, by its ``subTest``.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from typing import TypeVar

__all__ = ["LONG", "a_share"]

LONG = os.environ.get("LONG_TESTS") == "1"

_T = TypeVar("_T")
_dice = random.SystemRandom()  # no plugin that sets seeds gives every run the same share


def a_share(things: Iterable[_T], of: int) -> list[_T]:
    """Every so manieth of them, from one of the first on."""
    found = list(things)
    return found if LONG else found[_dice.randrange(min(of, len(found))) :: of]
