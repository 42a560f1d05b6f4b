"""What is to be done to a module is done when it is imported, whenever that is."""

import sys
import tempfile
import textwrap
import unittest
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dbtestcase.drivers.late_imports import replace_once, when_imported
from tests.support.runners import run_python


class WhenImportedTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.enterContext(_on_path(self.folder))
        self.told: list[Any] = []

    def test_it_is_told_at_once_later_and_once(self) -> None:
        for number in range(3):
            (self.folder / f"late_{number}.py").write_text("value = 1")
        (self.folder / "late_2.py").write_text("import late_1; value = late_1.value")
        __import__("late_0")
        for name in ("late_0", "late_1", "late_2"):
            when_imported(name, self.tell)
        when_imported("late_1", self.tell)
        self.assertEqual(self.told, [("late_0", 1)])
        __import__("late_2")  # imports another one while it is executed
        __import__("late_1")
        self.assertEqual(self.told, [("late_0", 1), ("late_1", 1), ("late_2", 1)])

    def test_a_package_is_told_of_when_it_is_complete(self) -> None:
        (self.folder / "late_package").mkdir()
        (self.folder / "late_package" / "__init__.py").write_text("from late_package.inner import value")
        (self.folder / "late_package" / "inner.py").write_text("value = 2")
        when_imported("late_package", self.tell)
        __import__("late_package")
        self.assertEqual(self.told, [("late_package", 2)])

    def test_modules_of_an_archive(self) -> None:
        with zipfile.ZipFile(self.folder / "all.zip", "w") as archive:
            archive.writestr("late_other.py", "value = 3")
            archive.writestr("late_zipped.py", "import late_other; value = 4")
        with _on_path(self.folder / "all.zip"):
            when_imported("late_zipped", self.tell)
            __import__("late_zipped")
        self.assertEqual(self.told, [("late_zipped", 4)])

    def test_a_module_that_is_missing_or_fails_stays_so(self) -> None:
        when_imported("late_missing", self.tell)
        with self.assertRaises(ModuleNotFoundError):
            __import__("late_missing")
        (self.folder / "late_broken.py").write_text("1 / 0")
        when_imported("late_broken", self.tell)
        with self.assertRaises(ZeroDivisionError):
            __import__("late_broken")
        (self.folder / "late_broken.py").write_text("value = 'mended'")
        __import__("late_broken")
        self.assertEqual(self.told, [("late_broken", "mended")])

    def tell(self, module: Any) -> None:
        self.told.append((module.__name__, module.value))


class _on_path:
    def __init__(self, place: Path) -> None:
        self.place = str(place)

    def __enter__(self) -> None:
        sys.path.insert(0, self.place)
        self.known = set(sys.modules)

    def __exit__(self, *exc_info: object) -> None:
        sys.path.remove(self.place)
        for name in set(sys.modules) - self.known:
            if name.startswith("late_"):
                del sys.modules[name]


class ReplacedFunctionsTest(unittest.TestCase):
    def test_who_asks_again_comes_first_again(self) -> None:
        """A function that was led before it was guarded is led before the guard sees it."""
        calls: list[str] = []
        owner = SimpleNamespace(connect=lambda: calls.append("driver"))

        def replace(name: str) -> None:
            def make(original: Any) -> Any:
                return lambda: (calls.append(name), original())

            replace_once(owner, "connect", make, f"_{name}")

        for name in ("lead", "lead", "guard", "lead", "lead"):
            replace(name)
        owner.connect()
        self.assertEqual(calls, ["lead", "guard", "lead", "driver"])


class DriversTest(unittest.TestCase):
    def test_a_driver_that_is_imported_after_the_class_has_begun_is_guarded(self) -> None:
        code = """
            from dbtestcase.drivers import guard
            class Refused(Exception): pass
            def refuse(what, target, how): return Refused(what, target.database)
            def expect(call):
                try: call()
                except Refused as error: print(*error.args)
            guard(lambda targets: True, refuse)
            import asyncio
            import psycopg2
            expect(lambda: psycopg2.connect("host=nowhere.invalid dbname=real"))
            import asyncpg
            expect(lambda: asyncio.run(asyncpg.connect(host="nowhere.invalid", user="a", database="real")))
            import pg8000.dbapi
            expect(lambda: pg8000.dbapi.connect(user="a", host="nowhere.invalid", database="real"))
            import pymysql
            expect(lambda: pymysql.connect(host="nowhere.invalid", database="real"))
        """
        done = run_python(["-c", textwrap.dedent(code)], cwd=".")
        self.assertEqual(
            done.stdout.splitlines(),
            [f"{driver}.connect() real" for driver in ("psycopg2", "asyncpg", "pg8000", "pymysql")],
            done.stderr,
        )


if __name__ == "__main__":
    unittest.main()
