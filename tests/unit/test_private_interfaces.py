"""What is used of other libraries beyond their public interfaces is missed at import, with an error that names it."""

import subprocess
import sys
import unittest

from dbtestcase.errors import ConfigurationError
from dbtestcase.reporting import require_internals
from tests.support.runners import inner_environment
from tests.support.samples import a_share

WITHOUT = {
    "sqlalchemy": (
        "from sqlalchemy import Table as owner; del owner._sorted_constraints; import dbtestcase.drivers",
        r"SQLAlchemy [\d.]+\w* has no Table\._sorted_constraints.* pip install 'sqlalchemy>=",
    ),
    "unittest": (
        "from unittest import TestCase as owner; del owner._callCleanup; "
        "import dbtestcase.reporting.unittest_internals",
        r"unittest of Python [\d.]+ has no TestCase\._callCleanup.* use a version of Python",
    ),
    "alembic": (
        "from alembic.script import ScriptDirectory as owner; del owner._upgrade_revs; "
        "import dbtestcase.migrations.internals",
        r"Alembic [\d.]+\w* has no ScriptDirectory\._upgrade_revs.* pip install 'alembic>=",
    ),
    "psycopg": (
        "from psycopg import BaseConnection as owner; del owner._start_query; import dbtestcase.drivers.psycopg.hooks",
        r"psycopg [\d.]+\w* has no Connection\._start_query.* pip install 'psycopg",
    ),
}


class PrivateInterfacesTest(unittest.TestCase):
    def test_a_version_that_lacks_what_is_used_is_named_at_import(self) -> None:
        for library, (program, said) in a_share(WITHOUT.items(), 2):
            with self.subTest(library):
                told = "print(type(error).__name__, *str(error).split())"
                caught = f"try: exec({program!r})\nexcept Exception as error: {told}"
                done = subprocess.run(
                    [sys.executable, "-W", "error", "-c", caught],
                    capture_output=True,
                    text=True,
                    env=inner_environment(),
                    timeout=300,
                    check=True,
                )
                self.assertRegex(done.stdout, f"ConfigurationError {said}")

    def test_what_is_there_says_nothing(self) -> None:
        require_internals("unittest", [(unittest.TestCase, ["run"]), (unittest.TestCase("run"), ["_cleanups"])], "")

    def test_the_class_of_an_instance_is_named(self) -> None:
        with self.assertRaisesRegex(ConfigurationError, "unittest 1 has no TestCase._income"):
            require_internals("unittest 1", [(unittest.TestCase("run"), ["_income"])], "")
