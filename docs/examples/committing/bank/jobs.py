"""A queue in a table: workers pass over the jobs that another worker has locked."""

from collections.abc import Callable

from sqlalchemy import select
from sqlalchemy.orm import Session

from .db import engine
from .models import Job


def work_one(worker: str, do: Callable[[str], object]) -> int | None:
    """Do the oldest job that nobody is doing; its id, or ``None`` where there is none."""
    with Session(engine) as session, session.begin():
        waiting = select(Job).where(Job.done_by.is_(None)).order_by(Job.id).limit(1)
        job = session.scalar(waiting.with_for_update(skip_locked=True))
        if job is None:
            return None
        do(job.what)
        job.done_by = worker
        return job.id
