"""Threads in one transaction take turns; where they must really meet, use the committing class."""

import threading

from jobs import worker
from jobs.models import Base, Job

from dbtestcase import DatabaseTest, TruncatingDatabaseTest


def square(number: int) -> int:
    return number * number


class WorkerTest(DatabaseTest):
    metadata = Base.metadata
    engines = [worker.engine]

    def test_every_job_is_done_once(self) -> None:
        worker.submit(*range(20))
        worker.work(square)
        self.assertRowCount(Job, 20, Job.result == Job.number * Job.number, Job.attempts == 1)

    def test_a_job_that_fails_does_not_stop_the_others(self) -> None:
        worker.submit(1, 0, 2)
        worker.work(lambda number: 10 // number)
        self.assertRowCount(Job, 2, Job.error.is_(None))
        self.assertRowCount(Job, 1, Job.error.contains("by zero"))

    def test_an_empty_queue_ends_at_once(self) -> None:
        worker.work(square)
        self.assertRowCount(Job, 0)


class ConcurrentWorkerTest(TruncatingDatabaseTest):
    metadata = Base.metadata
    engines = [worker.engine]

    def test_two_workers_hold_two_jobs_at_the_same_time(self) -> None:
        """Only real connections can show it: the barrier opens when both threads are inside their transaction."""
        both = threading.Barrier(2, timeout=10)

        def wait(number: int) -> int:
            both.wait()
            return number

        worker.submit(1, 2)
        worker.work(wait, threads=2)
        self.assertRowCount(Job, 2, Job.result.is_not(None), Job.attempts == 1)
