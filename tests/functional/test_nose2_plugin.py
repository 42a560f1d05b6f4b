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


LAYERS = """
    import forgetful
    from dbtestcase import DatabaseTest
    from sqlalchemy import Column, Integer, MetaData, Table, create_engine, func, select

    metadata = MetaData()
    rows = Table("rows", metadata, Column("id", Integer, primary_key=True))
    engine = create_engine("sqlite:///own.db")
    events = []

    def write():
        with engine.begin() as connection:
            connection.execute(rows.insert())

    def count():
        with engine.connect() as connection:
            return connection.scalar(select(func.count()).select_from(rows))

    class Layer:
        @classmethod
        def setUp(cls):
            {in_set_up}

        @classmethod
        def testSetUp(cls, test):
            metadata.create_all(engine) if {own} else None
            write()

        @classmethod
        def testTearDown(cls, test):
            events.append(count())
            {in_tear_down}

        @classmethod
        def tearDown(cls):
            print("rows at the ends of tests:", events)

    class {name}Test(DatabaseTest):
        layer = Layer
        url = "sqlite://"
        metadata = metadata
        engines = [engine]

        def test_1(self):
            write()
            self.assertRowCount(rows, 2)

        def test_2(self):
            write()
            self.assertRowCount(rows, 2)

    """


FORGETFUL = """
    def connection(engine, rows):
        connection = engine.connect()
        connection.execute(rows.insert())
        return connection
    """
LAYERED = """
    [unittest]
    plugins = nose2.plugins.layers
        dbtestcase.nose2_plugin

    [dbtestcase]
    always-on = True
    """


class LayersTest(unittest.TestCase):
    def nose2(self, configuration: str = LAYERED, **values: object) -> Outcome:
        folder = self.enterContext(tempfile.TemporaryDirectory())
        parts = {"name": "One", "in_set_up": "pass", "in_tear_down": "pass", "own": False} | values
        files = {"unittest.cfg": configuration, "test_one.py": LAYERS.format(**parts), "forgetful.py": FORGETFUL}
        return run_suite(write_suite(folder, files), "nose2", env={"DBTESTCASE_SUMMARY": ""})

    def test_what_a_layer_does_around_a_test_belongs_to_it(self) -> None:
        output = self.nose2().expect(passed=2).output
        self.assertIn("rows at the ends of tests: [2, 2]", output)

    def test_without_the_plugin_the_first_test_says_what_to_turn_on(self) -> None:
        output = self.nose2("[unittest]\nplugins = nose2.plugins.layers\n", own=True).expect(passed=0, errors=2).output
        self.assertRegex(
            output, r"OneTest was to begin with test_one.OneTest.test_1 after test_one.engine had been used"
        )
        self.assertRegex(output, r"in write, called by .*test_one.py:\d+ in testSetUp")
        self.assertIn("`plugins = dbtestcase.nose2_plugin`", output)

    def test_the_set_up_of_a_layer_is_too_early(self) -> None:
        output = self.nose2(in_set_up="metadata.create_all(engine)").output
        self.assertRegex(output, r"FAILED \(.*errors=1")
        self.assertRegex(output, r"OneTest was to begin after test_one.engine had been used .*in setUp\.")
        self.assertIn("make the rows in testSetUp() of the layer", output)

    def test_a_leak_of_the_layer_is_an_error_of_its_test(self) -> None:
        output = self.nose2(in_tear_down="events.append(forgetful.connection(engine, rows))").output
        self.assertRegex(output, r"ERROR: test_1 \(test_one.OneTest.test_1\)")
        self.assertRegex(output, r"ERROR: test_2 \(test_one.OneTest.test_2\)")
        self.assertRegex(output, "LeakError: .*unfinished writes by test_one.OneTest.test_1")


class SummaryTest(unittest.TestCase):
    def nose2(self, files: dict[str, str], *arguments: str, runner: str = "nose2") -> Outcome:
        folder = self.enterContext(tempfile.TemporaryDirectory())
        return run_suite(write_suite(folder, files), runner, *arguments)

    def test_the_tests_and_the_slowest_of_them_are_named(self) -> None:
        files = {"unittest.cfg": CONFIGURATION, "test_one.py": SUITE.format(name="One")}
        output = self.nose2(files).expect(passed=3).output
        self.assertRegex(output, r"dbtestcase: 3 tests in .*\n +3 statements in 0\.\d+ s")
        slowest = re.findall(r"(\S+) \(([\d.]+) ms\)", output)
        took = {name: float(milliseconds) for name, milliseconds in slowest}
        self.assertEqual(set(took), {"test_one.OneTest.test_slow", "test_one.OneTest.test_fast"})
        self.assertEqual([*took.values()], sorted(took.values(), reverse=True))
        self.assertGreaterEqual(took["test_one.OneTest.test_slow"], 50)

    def test_what_worker_processes_did_is_in_it(self) -> None:
        files = {
            "unittest.cfg": CONFIGURATION,
            "test_one.py": SUITE.format(name="One"),
            "test_two.py": SUITE.format(name="Two"),
        }
        output = self.nose2(files, runner="nose2-mp").expect(passed=6).output
        self.assertRegex(output, r"dbtestcase: 6 tests in .*\n +6 statements in ")
        found = re.findall(r"(test_one\.One|test_two\.Two)Test\.test_\w+ \(", output)  # three of the four
        self.assertEqual(set(found), {"test_one.One", "test_two.Two"})

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
