"""What is set when the class has begun, and nobody reads it any more: it would be ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigurationError
from .bases import Bases
from .configuration import fits
from .spelling import is_loaded

_MISSING = object()
Said = dict[str, tuple[object, object]]


def settings_of(bases: Bases) -> Said:
    """What the class has said when it begins, for :func:`refuse_changed`."""
    described = bases.described(bases.settings)  # a descriptor may give another value each time
    values = [(name, getattr(bases.cls, name)) for name in bases.settings if name not in described]
    return {name: (value, _content(value)) for name, value in values}


def refuse_changed(bases: Bases, said: Said) -> None:
    """Refuse what ``setUpClass()``, after ours, ``setUpTestData()`` or a fixture has set on the class.

    :raises ConfigurationError: the first such setting that is found.
    """
    for name, (before, content) in said.items():
        value = getattr(bases.cls, name, _MISSING)
        if _is_same(_content(value), content) or not fits(name, value):
            continue
        if value is before or not is_loaded(name, bases.users):  # else it is the user's own
            raise ConfigurationError(
                f"{bases.cls.__module__}.{bases.cls.__qualname__}.{name} was changed when the class had begun: it "
                "would be ignored.",
                cause="setUpTestData(), lines of setUpClass() after super().setUpClass(), or a fixture of pytest, "
                "which comes after setUpClass()",
                remedy=f"write {name} = … in the body of the class, or before super().setUpClass(); an engine that is "
                "made later is returned by a function in `engines`, or handed to self.enlist(engine)",
            )


def find_set(bases: Bases, test: Any) -> list[ConfigurationError]:
    """The settings that a test, or its ``setUp()``, has set on itself: an error for each."""
    own = vars(test)
    return [
        ConfigurationError(
            f"{test.id()} has set self.{name}, when its class had begun: it would be ignored.",
            cause=f"`{name}` belongs to the class, which is made ready before setUp()",
            remedy=f"write {name} = … in the body of the class; an engine that is made later is handed to "
            "self.enlist(engine)",
        )
        for name in sorted(bases.settings & own.keys())
        if fits(name, own[name]) and not is_loaded(name, bases.users)
    ]


def _content(value: object) -> object:
    if isinstance(value, Mapping):
        return tuple(value.values())
    return tuple(value) if isinstance(value, list | set) else value


def _is_same(one: object, other: object) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return one is other or (isinstance(one, str | bool) and one == other)
