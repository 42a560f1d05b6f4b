"""A session of the test's own over a part of it that is rolled back: as it was before, with the same instances."""

from __future__ import annotations

from sqlalchemy.orm import Session, make_transient, make_transient_to_detached, object_session
from sqlalchemy.orm.attributes import instance_state

__all__ = ["restore", "settle"]


def settle(session: Session) -> list[object]:
    """Commit what the session holds, to outlive a rollback of what comes next; its instances, for :func:`restore`."""
    expires, session.expire_on_commit = session.expire_on_commit, False
    try:
        session.commit()
    finally:
        session.expire_on_commit = expires
    return list(session.identity_map.values())


def restore(session: Session, instances: list[object]) -> None:
    """After the rollback: the session holds what it held, and reads it again; what has come since is let go."""
    session.rollback()
    held = {id(instance) for instance in instances}
    for instance in list(session.identity_map.values()):
        if id(instance) not in held:
            session.expunge(instance)
    for instance in instances:
        if object_session(instance) is not None:
            continue
        if instance_state(instance).was_deleted:  # and committed, which was rolled back
            make_transient(instance)
            make_transient_to_detached(instance)
        session.add(instance)
    session.expire_all()
