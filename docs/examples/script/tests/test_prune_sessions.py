"""The script is imported; its engine, made at import, is led into the test's transaction."""

import contextlib
import io

import prune_sessions
from sqlalchemy import func, insert, select

from dbtestcase import DatabaseTest


class PruneSessionsTest(DatabaseTest):
    metadata = prune_sessions.metadata
    engines = [prune_sessions.engine]

    @classmethod
    def setUpTestData(cls) -> None:
        for name, days in [("ada", 1), ("grace", 29), ("edsger", 31)]:
            used_at = func.now() - func.make_interval(0, 0, 0, days)
            cls.session.execute(insert(prune_sessions.logins).values(name=name, used_at=used_at))

    def names(self) -> list[str]:
        logins = prune_sessions.logins
        return [*self.session.scalars(select(logins.c.name).order_by(logins.c.name))]

    def run_script(self, *arguments: str) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as output:
            self.assertEqual(prune_sessions.main([*arguments]), 0)
        return output.getvalue()

    def test_old_logins_are_deleted(self) -> None:
        self.assertEqual(self.run_script("30"), "1 deleted\n")
        self.assertEqual(self.names(), ["ada", "grace"])

    def test_a_shorter_time_deletes_more(self) -> None:
        self.assertEqual(self.run_script("7"), "2 deleted\n")
        self.assertEqual(self.names(), ["ada"])

    def test_no_test_sees_what_another_deleted(self) -> None:
        self.assertEqual(self.names(), ["ada", "edsger", "grace"])

    def test_a_second_run_finds_nothing(self) -> None:
        self.run_script("30")
        self.assertEqual(self.run_script("30"), "0 deleted\n")
