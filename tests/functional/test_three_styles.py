"""The same forty tests as a class, as functions and as async functions: the same results, and nothing left behind."""

import shutil
import tempfile
import unittest
from collections.abc import Collection
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree

import psycopg

from dbtestcase.server import Server, disposable_server
from dbtestcase.settings import read_settings
from tests.support.forty_tests import CONFTEST, FORGETFUL, NAMES, async_functions, functions, unittest_class
from tests.support.requirements import require_module
from tests.support.runners import ROOT, run_suite, write_suite
from tests.support.samples import a_share

MODULES = {"test_class": unittest_class(), "test_functions": functions(), "test_async": async_functions()}
WRONG = {name: "AssertionError" for name in NAMES if "_fails_" in name}
WRONG |= {name: "LeakError" for name in NAMES if "_leaks_" in name}


class ThreeStylesTest(unittest.TestCase):
    server: ClassVar[Server]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.server = cls.enterClassContext(disposable_server(read_settings()))

    def setUp(self) -> None:
        require_module("anyio")
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory())) / "suite"
        shutil.copytree(ROOT / "docs" / "examples" / "blog" / "blog", self.folder / "blog")
        write_suite(self.folder, {"conftest.py": CONFTEST, "forgetful.py": FORGETFUL})

    def results(self, runner: str, modules: Collection[str] = MODULES) -> dict[str, dict[str, str]]:
        """What went wrong in each module, by the names of the tests; the server is as it was before."""
        write_suite(self.folder, {f"{name}.py": MODULES[name] for name in modules})
        url = self.server.url
        environment = {"DBTESTCASE_URL": url.set(database="app").render_as_string(hide_password=False)}
        report = self.folder / "report.xml"
        plugins = ("-p", "anyio.pytest_plugin", "-s", f"--junitxml={report}")
        self.output = run_suite(self.folder, runner, *plugins, env=environment).output
        with psycopg.connect(url.set(drivername="postgresql").render_as_string()) as judge:
            names = judge.execute("SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate")
            self.assertEqual([name for (name,) in names], ["postgres"])
        found: dict[str, dict[str, str]] = {name: {} for name in modules}
        ran: dict[str, set[str]] = {name: set() for name in modules}
        for case in ElementTree.parse(report).iter("testcase"):
            module, name = case.attrib["classname"].partition(".")[0], case.attrib["name"].partition("[")[0]
            ran[module].add(name)
            for problem in (*case.findall("failure"), *case.findall("error")):
                kinds = [kind for kind in ("LeakError", "AssertionError") if kind in (problem.text or "")]
                found[module][name] = kinds[0] if kinds else str(problem.text)
        for module in modules:
            self.assertEqual(ran[module], set(NAMES), self.output)
        return found

    def test_in_one_process(self) -> None:
        self.assertEqual(self.results("pytest"), dict.fromkeys(MODULES, WRONG))
        self.assertEqual(self.output.count("class data are made"), len(MODULES))

    def test_under_xdist(self) -> None:
        require_module("xdist", "pytest-xdist")
        modules = a_share(MODULES, 2)
        self.assertEqual(self.results("xdist", modules), dict.fromkeys(modules, WRONG))


if __name__ == "__main__":
    unittest.main()
