"""The project whose templates belong together is found by its marks."""

import tempfile
import unittest
from pathlib import Path

from dbtestcase.server.cache import project_root


class ProjectRootTest(unittest.TestCase):
    def test_it_is_the_nearest_folder_with_a_projects_marks(self) -> None:
        root = Path(self.enterContext(tempfile.TemporaryDirectory()))
        below = root / "src" / "tests"
        below.mkdir(parents=True)
        (root / "pyproject.toml").touch()
        self.assertEqual(project_root(below), root)
        (root / "src" / "alembic.ini").touch()
        self.assertEqual(project_root(below), root / "src")
