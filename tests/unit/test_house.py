"""The map of the house names what is there."""

import re
import unittest
from pathlib import Path

import dbtestcase
from tests.support.documents import DOCS

PACKAGE = Path(dbtestcase.__file__).parent


class MapTest(unittest.TestCase):
    text = (DOCS / "explanation" / "house.rst").read_text(encoding="utf-8")

    def test_every_folder_has_its_place(self) -> None:
        folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
        self.assertEqual(folders - set(re.findall(r"^``(\w+)``$", self.text, re.MULTILINE)), set())

    def test_every_module_that_is_named_exists(self) -> None:
        modules = {path.stem for path in PACKAGE.rglob("*.py")} | {path.parent.name for path in PACKAGE.rglob("*.py")}
        others = {"commit", "setUpTestData", "begin_nested", "connect", "_dbtestcase", "dbapi", "SAVEPOINT"}
        named = {name.split("/")[-1].split(".")[0] for name in re.findall(r"``([\w/.]+)``", self.text)}
        self.assertEqual(
            {name for name in named if name not in modules and name not in others and name != "page"}, set()
        )


if __name__ == "__main__":
    unittest.main()
