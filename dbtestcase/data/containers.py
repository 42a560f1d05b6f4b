"""Containers of model instances: taken apart once, put together afresh for each test.

Lists, tuples, sets, dicts, deques and their kinds, dataclasses, attrs classes, namespaces, rows of a result; one inside
another, one under two names, one within itself.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import deque, namedtuple
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Row
from sqlalchemy.orm import Session
from sqlalchemy.orm.collections import CollectionAdapter

from .instances import Copies, Record, Snapshot, state_of

Frozen = Any  # a Record, a _Container, a _Collection, or a _Leaf


class _Leaf:
    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


class _Collection:
    """A relationship's own collection, stored beside the instance it belongs to."""

    __slots__ = ("name", "owner")

    def __init__(self, owner: Record, name: str) -> None:
        self.owner = owner
        self.name = name


class _Container:
    __slots__ = ("kind", "parts", "shell")

    def __init__(self, kind: type[_Kind], shell: Any) -> None:
        self.kind = kind
        self.shell = shell
        self.parts: list[Any] = []


class _Kind:
    """How containers of one kind are taken apart and put together."""

    mutable = True

    @staticmethod
    def split(value: Any) -> list[Any]:
        return list(value)

    @staticmethod
    def empty(shell: Any) -> Any:
        made = copy.copy(shell)
        made.clear()
        return made

    @staticmethod
    def join(made: Any, parts: list[Any]) -> Any:
        made.extend(parts)
        return made


class _Set(_Kind):
    @staticmethod
    def join(made: Any, parts: list[Any]) -> Any:
        made.update(parts)
        return made


class _Dict(_Kind):
    @staticmethod
    def split(value: Any) -> list[Any]:
        return [part for item in value.items() for part in item]

    @staticmethod
    def join(made: Any, parts: list[Any]) -> Any:
        for key, value in zip(parts[::2], parts[1::2], strict=True):
            made[key] = value
        return made


class _Tuple(_Kind):
    mutable = False

    @staticmethod
    def join(made: Any, parts: list[Any]) -> Any:
        return type(made)._make(parts) if hasattr(made, "_make") else type(made)(parts)


class _Row(_Tuple):
    """A row of a result belongs to that result: a named tuple with its fields instead."""

    @staticmethod
    def join(made: Any, parts: list[Any]) -> Any:
        return namedtuple("Row", made._fields, rename=True)(*parts)


class _Fields(_Kind):
    @staticmethod
    def names(value: Any) -> list[str]:
        if dataclasses.is_dataclass(value):
            declared = [field.name for field in dataclasses.fields(value)]
        else:
            declared = [field.name for field in getattr(value, "__attrs_attrs__", ())]
        return [name for name in dict.fromkeys([*declared, *getattr(value, "__dict__", ())]) if hasattr(value, name)]

    @staticmethod
    def split(value: Any) -> list[Any]:
        return [getattr(value, name) for name in _Fields.names(value)]

    @staticmethod
    def empty(shell: Any) -> Any:
        return copy.copy(shell)

    @staticmethod
    def join(made: Any, parts: list[Any]) -> Any:
        for name, part in zip(_Fields.names(made), parts, strict=True):
            object.__setattr__(made, name, part)  # also where the class is frozen
        return made


_KINDS: list[tuple[type, type[_Kind]]] = [
    (list, _Kind),
    (deque, _Kind),
    (set, _Set),
    (frozenset, _Tuple),
    (dict, _Dict),
    (tuple, _Tuple),
    (Row, _Row),
    (SimpleNamespace, _Fields),
]


def _kind_of(value: object) -> type[_Kind] | None:
    for container, kind in _KINDS:
        if isinstance(value, container):
            return kind
    if isinstance(value, type):
        return None
    return _Fields if dataclasses.is_dataclass(value) or hasattr(type(value), "__attrs_attrs__") else None


class Freezing:
    """Takes values apart, and notes the instances that they hold, whose rows the session sees."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._snapshot: Snapshot | None = None
        self._seen: dict[int, tuple[object, Frozen]] = {}  # with the object: its id must stay its own

    def freeze_if_it_holds_instances(self, value: object) -> Frozen | None:
        """What :meth:`Thawing.thaw` takes, ``None`` for a value without any instance; :meth:`finish` must follow."""
        return self._freeze(value) if _holds_instances(value, set()) else None

    def finish(self) -> None:
        """Read the rows of all instances that were noted."""
        if self._snapshot is not None:
            self._snapshot.read()

    @property
    def _instances(self) -> Snapshot:
        if self._snapshot is None:  # a class without class data is not flushed for it
            self._snapshot = Snapshot(self._session)
        return self._snapshot

    def _freeze(self, value: Any) -> Frozen:
        if id(value) in self._seen:
            return self._seen[id(value)][1]
        if (state := state_of(value)) is not None:
            return self._instances.add(state)
        adapter = getattr(value, "_sa_adapter", None)
        if isinstance(adapter, CollectionAdapter) and (owner := state_of(adapter.owner_state.obj())) is not None:
            return _Collection(self._instances.add(owner), adapter.attr.key)
        kind = _kind_of(value)
        if kind is None:
            return _Leaf(value)
        container = _Container(kind, value if not kind.mutable else kind.empty(value))
        self._seen[id(value)] = (value, container)
        container.parts = [self._freeze(part) for part in kind.split(value)]
        return container


class Thawing:
    """What one test was given: the same value for the same thing, however often it is asked for."""

    def __init__(self, session: Session) -> None:
        self._copies = Copies(session)
        self._made: dict[_Container, Any] = {}
        self.given: list[str] = []
        """Under which names the test has something; for whoever forgets it again."""

    @property
    def instances(self) -> list[Any]:
        """The copies that belong to the session."""
        return self._copies.attached

    def thaw(self, frozen: Frozen) -> Any:
        """A value as it was when it was taken apart, with this test's instances."""
        if isinstance(frozen, Record):
            return self._copies.get(frozen)
        if isinstance(frozen, _Leaf):
            return frozen.value
        if isinstance(frozen, _Collection):
            return getattr(self._copies.get(frozen.owner), frozen.name)
        if frozen not in self._made:
            if frozen.kind.mutable:  # before its parts: one of them may be the container itself
                made = self._made[frozen] = frozen.kind.empty(frozen.shell)
                frozen.kind.join(made, [self.thaw(part) for part in frozen.parts])
            else:
                self._made[frozen] = frozen.kind.join(frozen.shell, [self.thaw(part) for part in frozen.parts])
        return self._made[frozen]


def _holds_instances(value: Any, seen: set[int]) -> bool:
    if state_of(value) is not None or isinstance(getattr(value, "_sa_adapter", None), CollectionAdapter):
        return True
    kind = _kind_of(value)
    if kind is None or id(value) in seen:
        return False
    seen.add(id(value))
    return any(_holds_instances(part, seen) for part in kind.split(value))
