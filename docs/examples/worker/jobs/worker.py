"""Threads take jobs from the table until none is left, each with connections of its own."""

import os
import threading
from collections.abc import Callable

from sqlalchemy import create_engine, select
from sqlalchemy.orm import sessionmaker

from .models import Job

engine = create_engine(os.environ.get("JOBS_DATABASE_URL", "postgresql+psycopg://localhost/jobs"))
Session = sessionmaker(engine)


def submit(*numbers: int) -> None:
    """Put jobs into the queue."""
    with Session.begin() as session:
        session.add_all(Job(number=number) for number in numbers)


def work_one(function: Callable[[int], int]) -> bool:
    """Take one job, and write its result or its error; whether there was one."""
    with Session() as session:
        job = session.scalar(
            select(Job)
            .where(Job.result.is_(None), Job.error.is_(None))
            .order_by(Job.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        if job is None:
            return False
        job.attempts += 1
        try:
            job.result = function(job.number)
        except Exception as error:
            job.error = str(error)
        session.commit()
        return True


def work(function: Callable[[int], int], threads: int = 4) -> None:
    """Work off the queue with ``threads`` threads."""

    def loop() -> None:
        while work_one(function):
            pass

    workers = [threading.Thread(target=loop, name=f"worker-{number}") for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
