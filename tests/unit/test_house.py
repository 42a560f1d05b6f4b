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
        paths = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.html"), *DOCS.parent.glob("tests/*/**/*.py")]
        modules = {name for path in paths for name in (path.stem, path.parent.name)}
        named = {
            name.rstrip("/").split("/")[-1].split(".")[0] for name in re.findall(r"``([a-z_][\w/.]+)``", self.text)
        }
        self.assertEqual(named - modules, {"setUpTestData", "_dbtestcase"})


if __name__ == "__main__":
    unittest.main()
