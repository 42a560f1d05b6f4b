"""Row locks of several connections on one wire: nobody gets a locked row without being told."""

import tempfile
import unittest

from tests.support.runners import Outcome, run_suite, write_suite

JOBS = """
    import threading
    from sqlalchemy import create_engine, select
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker
    from dbtestcase import DatabaseTest

    engine = create_engine("postgresql+psycopg://nowhere/jobs")
    Session = sessionmaker(engine)

    class Base(DeclarativeBase): pass

    class Job(Base):
        __tablename__ = "jobs"
        id: Mapped[int] = mapped_column(primary_key=True)
        done: Mapped[bool] = mapped_column(default=False)

    def take(session):
        free = select(Job).where(~Job.done).order_by(Job.id).limit(1)
        return session.scalar(free.with_for_update(skip_locked=True))

    class JobsTest(DatabaseTest):
        metadata = Base.metadata
        engines = [engine]

        def setUp(self):
            with Session.begin() as session:
                session.add_all([Job(), Job()])
"""


class RowLocksTest(unittest.TestCase):
    def run_test(self, body: str) -> Outcome:
        folder = self.enterContext(tempfile.TemporaryDirectory())
        write_suite(folder, {"jobs.py": JOBS, "test_jobs.py": body})
        return run_suite(folder, "unittest", warnings="error::UserWarning")

    def test_threads_that_lock_rows_take_turns(self) -> None:
        self.run_test(
            """
            from jobs import *

            class TakeTest(JobsTest):
                def test(self):
                    taken = []
                    first_has_its_row = threading.Event()

                    def first():
                        with Session() as session:
                            job = take(session)
                            first_has_its_row.set()
                            waiting.wait(60)
                            taken.append(job.id)
                            job.done = True
                            session.commit()

                    def second():
                        first_has_its_row.wait(60)
                        waiting.set()
                        with Session() as session:
                            taken.append(take(session).id)

                    waiting = threading.Event()
                    threads = [threading.Thread(target=first), threading.Thread(target=second)]
                    for thread in threads: thread.start()
                    for thread in threads: thread.join()
                    self.assertEqual(len(set(taken)), 2, taken)
            """
        ).expect(passed=1)

    def test_a_locked_row_that_another_connection_would_get_is_refused(self) -> None:
        outcome = self.run_test(
            """
            from jobs import *

            class TakeTest(JobsTest):
                def test(self):
                    with Session() as one, Session() as other:
                        take(one)
                        take(other)
            """
        ).expect(passed=0, errors=1)
        self.assertRegex(outcome.output, r"SandboxConflict: .* takes rows without waiting .* while .* has locked rows")

    def test_a_lock_ends_with_its_transaction(self) -> None:
        self.run_test(
            """
            from jobs import *

            class TakeTest(JobsTest):
                def test(self):
                    for _ in range(2):
                        with Session() as session:
                            self.assertEqual(take(session).id, min(session.scalars(select(Job.id))))
            """
        ).expect(passed=1)
