"""For tests that collect garbage after each of many steps."""

import gc
from typing import Any

__all__ = ["ManyCollections"]


class ManyCollections:
    """They look at what the class makes, not at all modules, and not at what tests before it have left."""

    @classmethod
    def setUpClass(cls: Any) -> None:
        super().setUpClass()  # type: ignore[misc]
        gc.collect()
        gc.freeze()
