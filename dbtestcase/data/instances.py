"""The stored state of model instances, kept apart from any session, and fresh instances made from it.

A :class:`Snapshot` is taken once: it follows the relationships that are loaded, and reads every row again as the
database has it (rounded, defaulted, changed by triggers).  A :class:`Copies` makes instances for one session from it,
without a statement: the same instance for the same row, only when asked, with what it is related to.

``Session.merge(load=False)`` does nearly this.  It refuses objects with changes and unsaved ones, follows only
relationships that cascade merges, shares mutable values between all its copies, loses attributes that are not mapped,
recurses along chains, and overwrites what the session has already loaded and the test has changed.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import InstanceState, Mapper, Session, selectinload, undefer
from sqlalchemy.orm.attributes import set_attribute, set_committed_value
from sqlalchemy.orm.collections import collection_adapter

_CHUNK = 500  # keys in one SELECT
_SHARED = (str, int, float, complex, bytes, type(None), Decimal, datetime, date, time, timedelta, UUID, Enum)


def state_of(value: object) -> InstanceState[Any] | None:
    """The state of a mapped instance, ``None`` for anything else."""
    state = getattr(value, "_sa_instance_state", None)
    return state if isinstance(state, InstanceState) else None


class Record:
    """What is kept of one instance.

    :ivar key: its identity key, ``None`` for an instance that was never stored.
    :ivar attached: whether a copy belongs in the session: false for unsaved and for deleted instances.
    :ivar values: the column attributes that are loaded.
    :ivar expired: the column attributes that a copy has to load when they are asked for.
    :ivar related: for each loaded relationship the record, ``None``, or the list of records.
    :ivar extras: what ``__dict__`` holds beside the mapped attributes.
    """

    __slots__ = ("attached", "expired", "extras", "key", "mapper", "originals", "related", "values")

    def __init__(self, mapper: Mapper[Any], key: Any) -> None:
        self.mapper = mapper
        self.key = key
        self.attached = key is not None
        self.values: dict[str, Any] = {}
        self.expired: list[str] = []
        self.related: dict[str, Record | list[Record] | None] = {}
        self.extras: dict[str, Any] = {}
        self.originals: list[InstanceState[Any]] = []


class Snapshot:
    """The stored state of some instances and of what they are related to, as the session sees the rows."""

    def __init__(self, session: Session) -> None:
        self._session = session
        session.flush()
        self._records: dict[Any, Record] = {}  # by identity key; of an unsaved instance by its state
        self._unread: list[Record] = []

    def add(self, state: InstanceState[Any]) -> Record:
        """Take in one instance and everything that can be reached from it; :meth:`read` must follow."""
        first = self._record(state)
        pending = [state]
        while pending:
            following = pending.pop()
            for name in self._loaded_relationships(following):
                for other in _members(following, name):
                    reached = state_of(other)
                    if reached is not None and not self._knows(reached):
                        self._record(reached)
                        pending.append(reached)
        return first

    def read(self) -> None:
        """Read the rows of everything that was added: a statement for each mapper and relationship, not each row."""
        with _Reader(self._session) as reader:
            stored: dict[Record, Any] = {}
            while self._unread:
                fresh, self._unread = self._unread, []
                stored.update(self._load(reader, [record for record in fresh if record.attached]))
                for record in fresh:
                    self._keep(record, stored.get(record), reader)
            reader.expunge_all()
        for record in self._records.values():
            record.originals = []

    def _record(self, state: InstanceState[Any]) -> Record:
        record = self._records.get(state.key or state)
        if record is None:
            record = self._records[state.key or state] = Record(state.mapper, state.key)
            record.attached = state.key is not None and not (state.deleted or state.was_deleted)
            self._unread.append(record)
        if state not in record.originals:
            record.originals.append(state)
        return record

    def _knows(self, state: InstanceState[Any]) -> bool:
        record = self._records.get(state.key or state)
        return record is not None and state in record.originals

    @staticmethod
    def _loaded_relationships(state: InstanceState[Any]) -> Iterator[str]:
        for relationship in state.mapper.relationships:
            if relationship.key in state.dict and relationship.lazy not in ("dynamic", "write_only"):
                yield relationship.key

    def _load(self, reader: Session, records: list[Record]) -> dict[Record, Any]:
        groups: dict[Mapper[Any], list[Record]] = defaultdict(list)
        for record in records:
            groups[record.mapper].append(record)
        strong: list[Any] = []  # the identity map alone would not keep them
        for mapper, members in groups.items():
            originals = [original for record in members for original in record.originals]
            options: list[Any] = [
                undefer(column.class_attribute)
                for column in mapper.column_attrs
                if column.deferred and any(column.key in original.dict for original in originals)
            ]
            options += [
                selectinload(relationship.class_attribute)
                for relationship in mapper.relationships
                if any(relationship.key in self._loaded_relationships(original) for original in originals)
            ]
            for start in range(0, len(members), _CHUNK):
                keys = [record.key[1] for record in members[start : start + _CHUNK]]
                statement = select(mapper).where(_identity_in(mapper, keys)).options(*options)
                strong += reader.scalars(statement).unique().all()
        found = {record: reader.identity_map.get(record.key) for record in records}
        return {record: instance for record, instance in found.items() if instance is not None}

    def _keep(self, record: Record, instance: Any, reader: Session) -> None:
        for original in record.originals:
            record.extras.update(_extras(original))
        if instance is not None:
            state = state_of(instance)
            assert state is not None
            for original in record.originals:
                for name in self._loaded_relationships(original):
                    if name not in state.dict:
                        reader.refresh(instance, [name])
        else:
            # Unsaved, deleted, or hidden from queries by a listener of the application's: as it is in memory.
            state = record.originals[0]
            record.attached = record.attached and state.persistent
        for column in record.mapper.column_attrs:
            if column.key in state.dict and _copyable(state.dict[column.key]):
                record.values[column.key] = state.dict[column.key]
            elif record.attached and not column.deferred:
                record.expired.append(column.key)
        for name in self._loaded_relationships(state):
            related = [self._record(reached) for reached in map(state_of, _members(state, name)) if reached is not None]
            if record.mapper.relationships[name].uselist:
                record.related[name] = _in_original_order(related, record, name, self._records)
            else:
                record.related[name] = related[0] if related else None


class Copies:
    """Instances made from snapshots for one session; held until the session's user is done with them."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._made: dict[Record, Any] = {}

    @property
    def attached(self) -> list[Any]:
        """The copies of stored instances."""
        return [instance for record, instance in self._made.items() if record.attached]

    def get(self, record: Record) -> Any:
        """The instance for a record: what the session already has for that row, else a new one."""
        if record not in self._made:
            new = list(self._make(record))
            for member, instance in new:
                self._fill(member, instance)
            for member, instance in new:
                self._finish(member, instance)
        return self._made[record]

    def _make(self, first: Record) -> Iterator[tuple[Record, Any]]:
        pending = [first]
        while pending:
            record = pending.pop()
            if record in self._made:
                continue
            instance = self.session.identity_map.get(record.key) if record.attached else None
            if instance is not None:
                self._made[record] = instance
                continue  # the test has loaded, and perhaps changed it: it stays as it is
            instance = self._made[record] = record.mapper.class_manager.new_instance()
            if record.key is not None:
                state = state_of(instance)
                assert state is not None
                state.key = record.key
                state.identity_token = record.key[2]
            if record.attached:
                self.session.add(instance)
            yield record, instance
            for related in record.related.values():
                pending.extend(related if isinstance(related, list) else [related] if related else [])

    def _fill(self, record: Record, instance: Any) -> None:
        for name, value in record.values.items():
            set_committed_value(instance, name, value if isinstance(value, _SHARED) else copy.deepcopy(value))
        if record.expired:
            self.session.expire(instance, record.expired)

    def _finish(self, record: Record, instance: Any) -> None:
        for name, related in record.related.items():
            if record.key is None:
                _relate_unsaved(instance, name, related, self._made)
            elif isinstance(related, list):
                set_committed_value(instance, name, [self._made[member] for member in related])
            else:
                set_committed_value(instance, name, self._made[related] if related is not None else None)
        state = state_of(instance)
        assert state is not None
        if record.key is not None:
            # As the ORM says when it has loaded a row: mutable types and reconstructors wait for it.
            state.manager.dispatch.load(state, SimpleNamespace(session=self.session))
        for name, value in record.extras.items():
            instance.__dict__[name] = _copied(value)


class _Reader(Session):
    """Reads through another session's connections, so that it sees what that one has flushed."""

    def __init__(self, source: Session) -> None:
        super().__init__(autoflush=False, expire_on_commit=False, join_transaction_mode="rollback_only")
        self._source = source

    def get_bind(self, mapper: Any = None, **arguments: Any) -> Any:
        known = {name: arguments[name] for name in ("clause", "bind") if arguments.get(name) is not None}
        return self._source.connection(bind_arguments={"mapper": mapper, **known} if mapper is not None else known)


def _relate_unsaved(instance: Any, name: str, related: Record | list[Record] | None, made: dict[Record, Any]) -> None:
    """With events: the flush that stores the instance reads its foreign keys from the attributes' history."""
    if isinstance(related, list):
        adapter = collection_adapter(getattr(instance, name))
        for member in related:
            if not any(made[member] is present for present in adapter):  # a backref may have put it there
                adapter.append_with_event(made[member])
    else:
        set_attribute(instance, name, made[related] if related is not None else None)


def _identity_in(mapper: Mapper[Any], keys: list[tuple[Any, ...]]) -> Any:
    if len(mapper.primary_key) == 1:
        return mapper.primary_key[0].in_([key[0] for key in keys])
    columns = mapper.primary_key
    return or_(*(and_(*(column == part for column, part in zip(columns, key, strict=True))) for key in keys))


def _members(state: InstanceState[Any], name: str) -> Iterable[Any]:
    value = state.dict.get(name)
    if value is None:
        return ()
    return list(collection_adapter(value)) if state.mapper.relationships[name].uselist else (value,)


def _in_original_order(related: list[Record], record: Record, name: str, records: dict[Any, Record]) -> list[Record]:
    """Without an ORDER BY the database's order says nothing: the order in which the test filled the list does."""
    relationship = record.mapper.relationships[name]
    original = next((state for state in record.originals if name in state.dict), None)
    if relationship.order_by or original is None:
        return related
    places: dict[Record, int] = {}
    for member in _members(original, name):
        state = state_of(member)
        if state is not None and (known := records.get(state.key or state)) is not None:
            places.setdefault(known, len(places))
    return sorted(related, key=lambda member: places.get(member, len(places)))


def _extras(state: InstanceState[Any]) -> Iterator[tuple[str, Any]]:
    mapped = state.mapper.all_orm_descriptors
    for name, value in state.dict.items():
        if name not in mapped and not name.startswith(("_sa_", "_AssociationProxy")) and state_of(value) is None:
            yield name, _copied(value)


def _copyable(value: Any) -> bool:
    if isinstance(value, _SHARED):
        return True
    try:
        copy.deepcopy(value)
    except (TypeError, copy.Error):
        return False
    return True


def _copied(value: Any) -> Any:
    """A deep copy; what cannot be copied, such as a lock or a client, is shared."""
    return copy.deepcopy(value) if _copyable(value) else value
