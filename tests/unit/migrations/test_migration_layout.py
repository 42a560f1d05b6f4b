"""Where a project's scripts lie, and the fingerprint over them: read without importing Alembic."""

import os
import shutil
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from alembic.config import Config

from dbtestcase.errors import ConfigurationError, MissingExtra
from dbtestcase.migrations import MigrationRecipe
from dbtestcase.migrations.layout import find_layout, prepended
from tests.support.alembic_projects import AlembicProject


class ProjectTestCase(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory())).resolve()
        self.project = AlembicProject(self.folder)
        self.project.table("0001", None, "author")

    def fingerprint(self, **options: object) -> str:
        return MigrationRecipe(self.project.ini, **options).fingerprint()  # type: ignore[arg-type]


class FindTest(ProjectTestCase):
    def test_a_relative_path_is_looked_for_above_the_test_module_up_to_the_project(self) -> None:
        (self.folder / "setup.cfg").touch()
        module = self.folder / "tests" / "unit" / "test_blog.py"
        module.parent.mkdir(parents=True)
        module.touch()
        self.assertEqual(find_layout("alembic.ini", relative_to=module).ini, self.project.ini)

    def test_the_search_does_not_leave_the_project(self) -> None:
        inner = self.folder / "inner"
        inner.mkdir()
        (inner / "pyproject.toml").touch()
        with self.assertRaises(ConfigurationError):
            find_layout("alembic.ini", relative_to=inner)

    def test_a_relative_script_location_belongs_to_the_ini_not_to_the_current_folder(self) -> None:
        self.project.replace("%(here)s/migrations", "migrations", self.project.ini)
        layout = find_layout(self.project.ini)
        self.assertEqual(layout.script_location, self.folder / "migrations")
        self.assertEqual(layout.prepend_sys_path, (str(self.folder),))

    def test_an_ini_among_its_scripts_need_not_say_where_they_are(self) -> None:
        ini = self.folder / "migrations" / "alembic.ini"
        ini.write_text("[alembic]\n")
        layout = find_layout("migrations/alembic.ini", relative_to=self.folder)
        self.assertEqual((layout.ini, layout.script_location), (ini, self.folder / "migrations"))

    def test_several_version_locations_are_read(self) -> None:
        with self.project.ini.open("a") as ini:
            ini.write("")
        self.project.replace(
            "path_separator = os", "path_separator = os\nversion_locations = %(here)s/a:b", self.project.ini
        )
        (self.folder / "b").mkdir()
        layout = find_layout(self.project.ini)
        self.assertEqual(layout.version_locations, (self.folder / "a", self.folder / "b"))

    def test_the_old_way_to_separate_version_locations_by_spaces_is_understood(self) -> None:
        self.project.replace("path_separator = os", "version_locations = %(here)s/a %(here)s/b", self.project.ini)
        self.assertEqual(find_layout(self.project.ini).version_locations, (self.folder / "a", self.folder / "b"))

    def test_the_comment_that_older_versions_of_alembic_wrote_beside_the_separator_is_none_of_it(self) -> None:
        self.project.replace(
            "path_separator = os",
            "version_path_separator = os  # Use os.pathsep. Default configuration used for new projects.\n"
            "version_locations = %(here)s/a:%(here)s/b",
            self.project.ini,
        )
        self.assertEqual(find_layout(self.project.ini).version_locations, (self.folder / "a", self.folder / "b"))

    def test_scripts_inside_a_package_are_found_without_importing_it(self) -> None:
        package = self.folder / "shoppackage"
        shutil.move(self.folder / "migrations", package / "migrations")
        (package / "__init__.py").write_text("raise RuntimeError('imported')")
        self.project.replace("%(here)s/migrations", "shoppackage:migrations", self.project.ini)
        self.assertEqual(find_layout(self.project.ini).script_location, package / "migrations")

    def test_pyproject_toml_may_hold_the_configuration(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory())).resolve()
        AlembicProject(folder, "pyproject")
        self.assertEqual(find_layout(folder / "pyproject.toml").script_location, folder / "migrations")
        self.assertEqual(find_layout(folder / "alembic.ini").script_location, folder / "migrations")

    def test_a_config_object_counts_with_what_was_set_on_it(self) -> None:
        config = Config(str(self.project.ini))
        config.set_main_option("version_locations", str(self.folder / "other"))
        self.assertEqual(find_layout(config).version_locations, (self.folder / "other",))

    def test_a_missing_ini_is_an_error_that_says_where_it_was_looked_for(self) -> None:
        with self.assertRaises(ConfigurationError) as caught:
            find_layout("nowhere.ini", relative_to=self.folder)
        self.assertIn("There is no 'nowhere.ini' to migrate with", str(caught.exception))
        self.assertIn(str(self.folder), caught.exception.what)
        self.assertIn("alembic init", caught.exception.remedy)

    def test_a_missing_script_folder_is_named(self) -> None:
        self.project.replace("%(here)s/migrations", "%(here)s/elsewhere", self.project.ini)
        with self.assertRaises(ConfigurationError) as caught:
            find_layout(self.project.ini)
        self.assertIn(str(self.folder / "elsewhere"), caught.exception.what)

    def test_an_ini_of_something_else_is_told_apart(self) -> None:
        self.project.ini.write_text("[pytest]\naddopts = -v\n")
        with self.assertRaises(ConfigurationError) as caught:
            find_layout(self.project.ini)
        self.assertIn("has no 'script_location'", caught.exception.what)

    def test_a_missing_alembic_names_the_extra(self) -> None:
        with (
            mock.patch.dict(sys.modules),
            mock.patch("dbtestcase.migrations.layout.importlib.util.find_spec", return_value=None),
        ):
            for name in [name for name in sys.modules if name.partition(".")[0] == "alembic"]:
                del sys.modules[name]
            with self.assertRaises(MissingExtra) as caught:
                find_layout(self.project.ini)
        self.assertIn("pip install 'dbtestcase[migrations]'", caught.exception.remedy)

    def test_sys_path_is_as_it_was_whatever_happened_to_it(self) -> None:
        before = list(sys.path)
        with self.assertRaises(ZeroDivisionError), prepended(("/nowhere/one",)):
            self.assertEqual(sys.path[0], "/nowhere/one")
            sys.path.append("/nowhere/two")
            raise ZeroDivisionError
        self.assertEqual(sys.path, before)


class FingerprintTest(ProjectTestCase):
    def test_it_is_the_same_again(self) -> None:
        self.assertEqual(self.fingerprint(), self.fingerprint())

    def test_it_does_not_depend_on_where_the_project_lies(self) -> None:
        moved = Path(self.enterContext(tempfile.TemporaryDirectory())) / "moved"
        before = self.fingerprint()
        shutil.copytree(self.folder, moved)
        self.assertEqual(MigrationRecipe(moved / "alembic.ini").fingerprint(), before)

    def test_whatever_decides_what_is_migrated_changes_it(self) -> None:
        seen = {"unchanged": self.fingerprint()}
        self.project.table("0002", "0001", "post")
        seen["an added revision"] = self.fingerprint()
        self.project.table("0002", "0001", "posting")
        seen["a changed revision"] = self.fingerprint()
        (self.folder / "migrations" / "versions" / "0002_step.py").rename(
            self.folder / "migrations" / "versions" / "0002_other.py"
        )
        seen["a renamed revision"] = self.fingerprint()
        self.project.env_py.write_text(self.project.env_py.read_text() + "# changed\n")
        seen["env.py"] = self.fingerprint()
        self.project.ini.write_text(self.project.ini.read_text() + "[more]\n")
        seen["the ini"] = self.fingerprint()
        (self.folder / "migrations" / "sql").mkdir()
        (self.folder / "migrations" / "sql" / "view.sql").write_text("SELECT 1")
        seen["a file beside the scripts"] = self.fingerprint()
        seen["an argument"] = self.fingerprint(x_arguments=["tenant=acme"])
        seen["the base data"] = self.fingerprint(base_data=lambda session: session.add(1))
        seen["other base data"] = self.fingerprint(base_data=lambda session: session.add(2))
        self.assertEqual(len(set(seen.values())), len(seen), seen)

    def test_revisions_in_every_version_location_count(self) -> None:
        self.project.replace(
            "path_separator = os",
            "path_separator = os\nversion_locations = %(here)s/one:%(here)s/two",
            self.project.ini,
        )
        before = self.fingerprint()
        self.project.table("0001", None, "author", folder="two/deep")
        self.assertNotEqual(self.fingerprint(), before)

    def test_what_does_not_matter_does_not_change_it(self) -> None:
        before = self.fingerprint()
        (self.folder / "migrations" / "script.py.mako").write_text("changed")
        cache = self.folder / "migrations" / "versions" / "__pycache__"
        cache.mkdir(exist_ok=True)
        (cache / "0001_step.cpython-311.pyc").write_bytes(os.urandom(8))
        self.assertEqual(self.fingerprint(), before)

    def test_options_set_on_a_config_object_change_it(self) -> None:
        config = Config(str(self.project.ini))
        before = MigrationRecipe(config).fingerprint()
        config.set_main_option("tenant", "acme")
        self.assertNotEqual(MigrationRecipe(config).fingerprint(), before)

    def test_another_version_of_alembic_changes_it(self) -> None:
        before = self.fingerprint()
        with mock.patch("alembic.__version__", "0.0.1"):
            self.assertNotEqual(self.fingerprint(), before)


class ImportTest(ProjectTestCase):
    def test_a_fingerprint_imports_neither_alembic_nor_a_revision(self) -> None:
        import subprocess

        (self.folder / "migrations" / "versions" / "0001_step.py").write_text("raise RuntimeError('imported')")
        source = (
            "import sys; from dbtestcase.migrations import MigrationRecipe; "
            f"MigrationRecipe({str(self.project.ini)!r}).fingerprint(); "
            "print([name for name in sys.modules if name.startswith('alembic')])"
        )
        done = subprocess.run([sys.executable, "-W", "error", "-c", source], capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout.strip(), "[]", done.stderr)
