"""The nose2 plugin: a summary at the end, also of worker processes; and nothing where no database was used."""

import re
import tempfile
import unittest

from tests.support.runners import Outcome, run_suite, write_suite

CONFIGURATION = """
    [unittest]
    plugins = dbtestcase.nose2_plugin

    [dbtestcase]
    always-on = True
    """
SUITE = """
    from dbtestcase import DatabaseTest
    from sqlalchemy import Column, Integer, MetaData, Table, text

    metadata = MetaData()
    rows = Table("rows", metadata, Column("id", Integer, primary_key=True))

    class {name}Test(DatabaseTest):
        metadata = metadata

        def test_slow(self):
            self.session.execute(text("SELECT pg_sleep(0.05)"))

        def test_fast(self):
            self.session.execute(rows.insert())
            self.session.execute(rows.select())

        def test_none(self):
            pass
    """


class SummaryTest(unittest.TestCase):
    def nose2(self, files: dict[str, str], *arguments: str, runner: str = "nose2") -> Outcome:
        folder = self.enterContext(tempfile.TemporaryDirectory())
        return run_suite(write_suite(folder, files), runner, *arguments)

    def test_the_tests_and_the_slowest_of_them_are_named(self) -> None:
        files = {"unittest.cfg": CONFIGURATION, "test_one.py": SUITE.format(name="One")}
        output = self.nose2(files).expect(passed=3).output
        self.assertRegex(output, r"dbtestcase: 3 tests in .*\n +3 statements in 0\.\d+ s")
        slowest = re.findall(r"(\S+) \(([\d.]+) ms\)", output)
        self.assertEqual([name for name, _ in slowest], ["test_one.OneTest.test_slow", "test_one.OneTest.test_fast"])
        self.assertGreaterEqual(float(slowest[0][1]), 50)

    def test_what_worker_processes_did_is_in_it(self) -> None:
        files = {
            "unittest.cfg": CONFIGURATION,
            "test_one.py": SUITE.format(name="One"),
            "test_two.py": SUITE.format(name="Two"),
        }
        output = self.nose2(files, runner="nose2-mp").expect(passed=6).output
        self.assertRegex(output, r"dbtestcase: 6 tests in .*\n +6 statements in ")
        self.assertEqual(len(re.findall(r"test_(?:one\.One|two\.Two)Test\.test_slow \(", output)), 2)

    def test_it_is_turned_on_by_an_option_too(self) -> None:
        arguments = ("--plugin", "dbtestcase.nose2_plugin", "--database-summary")
        output = self.nose2({"test_one.py": SUITE.format(name="One")}, *arguments).expect(passed=3).output
        self.assertRegex(output, r"dbtestcase: 3 tests in .*\n +3 statements in ")

    def test_a_suite_without_a_database_has_no_line(self) -> None:
        files = {
            "unittest.cfg": CONFIGURATION,
            "test_plain.py": "import unittest\nclass T(unittest.TestCase):\n    def test(self): pass\n",
        }
        self.assertNotIn("dbtestcase", self.nose2(files).expect(passed=1).output)
