"""What a whole run copies of a project's templates, and what it does when they vanish under it."""

import unittest
from pathlib import Path

from tests.support.disposable import scratch, seed
from tests.support.runners import run_suite, write_suite

SUITE = """
    import os, shutil
    import sqlalchemy as sa
    from dbtestcase import DatabaseTest, TruncatingDatabaseTest

    def metadata(number):
        made = sa.MetaData()
        sa.Table(f"item{number}", made, sa.Column("id", sa.Integer, primary_key=True))
        return made

    class Tests:
        def test(self):
            (table,) = self.metadata.sorted_tables
            self.assertEqual(self.session.execute(sa.select(table)).all(), [])
            self.session.execute(sa.insert(table).values(id=1))
            self.session.commit()
            data = sa.make_url(self.database_url).query["host"] + "/data/base"
            folders = [os.listdir(f"{data}/{name}") for name in os.listdir(data)]
            print("not copied:", sum("PG_VERSION" not in names for names in folders))
            if "EMPTY_THE_CACHE" in os.environ:
                shutil.rmtree(os.environ["DBTESTCASE_CACHE"], ignore_errors=True)

    class ATest(Tests, DatabaseTest): metadata = metadata(1)
    class BTest(Tests, TruncatingDatabaseTest): metadata = metadata(2)
    class CTest(Tests, DatabaseTest): metadata = metadata(3)
"""


class TemplatesOfARunTest(unittest.TestCase):
    def run_suite(self, passed: int, *arguments: str, **env: str) -> list[int]:
        """How many templates were not copied, as each test has seen it."""
        outcome = run_suite(self.folder, "unittest", *arguments, env=self.env | env)
        outcome.expect(passed=passed)
        return [int(line.split()[-1]) for line in outcome.output.splitlines() if line.startswith("not copied")]

    def test_it_copies_what_was_used_last_and_what_it_needs(self) -> None:
        self.folder = Path(self.enterContext(scratch()))
        write_suite(self.folder, {"test_it.py": SUITE, "setup.cfg": ""})
        seed(self.folder / "cache")
        self.env = {"DBTESTCASE_CACHE": str(self.folder / "cache")}
        self.run_suite(3)  # makes them
        (first,) = self.run_suite(1, "-k", "BTest")
        self.assertGreater(first, 0)
        self.assertEqual(self.run_suite(1, "-k", "BTest"), [first + 1], "nothing but its own now")
        # a cache that is emptied in the middle costs time alone
        self.run_suite(3, EMPTY_THE_CACHE="1")


if __name__ == "__main__":
    unittest.main()
