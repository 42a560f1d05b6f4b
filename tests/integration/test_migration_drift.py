"""Drift of many kinds, made at random on the shop: it is found, and what is proposed mends it.

The tests are cases of this library: each change is undone by the sandbox.
"""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy.dialects import postgresql

from dbtestcase import MigratedDatabaseTest
from dbtestcase.migrations import snapshot, snapshot_postgresql  # noqa: F401  registers itself
from dbtestcase.migrations.compare import compare
from tests.support.alembic_projects import SHOP
from tests.support.drift import KINDS, Catalog

LONG = bool(os.environ.get("LONG_TESTS"))
ROUNDS = 12 if LONG else 1
SEED = random.randrange(10**6)


class DriftTest(MigratedDatabaseTest):
    migrations = str(SHOP / "alembic.ini")

    def missing(self) -> list[str]:
        life = self._dbtestcase
        return compare(life.project, life.migration_target())

    def run_revision(self, lines: list[str]) -> None:
        """Run the lines of an ``upgrade()`` as a revision would."""
        context = MigrationContext.configure(self.connection)
        context.autocommit_block = lambda: _nothing()  # type: ignore[method-assign, assignment]
        names = {"op": Operations(context), "sa": sa, "postgresql": postgresql}
        for line in lines:
            exec(line, names)

    def look(self) -> snapshot.Snapshot:
        """The schema, but for what only the migrations say."""
        taken = snapshot.take(self.connection, ignored=["alembic_version"])
        kinds = ("view", "trigger", "function", "rule", "schema")
        return {
            item: definition
            for item, definition in taken.items()
            if item.kind not in kinds and not (item.kind == "sequence" and item.part) and "login_" not in item.name
        }

    def test_nothing_is_found_where_nothing_is_changed(self) -> None:
        self.assertEqual(self.missing(), [])

    def test_every_kind_is_found_and_mended(self) -> None:
        self.assertGreaterEqual(len(KINDS), 40)
        before = self.look()
        for number in range(ROUNDS):
            for name in random.Random(SEED + number).sample(sorted(KINDS), len(KINDS) if LONG else 10):
                change = KINDS[name]
                with self.subTest(name, seed=SEED + number):
                    savepoint = self.connection.begin_nested()
                    try:
                        dice = random.Random(f"{SEED + number} {name}")
                        for statement in change(Catalog(self.connection, dice)):
                            self.connection.exec_driver_sql(statement.replace("%", "%%"))
                        found = self.missing()
                        self.assertTrue(found, "nothing was found")
                        self.run_revision(found)
                        self.assertEqual(self.missing(), [], f"not mended by {found}")
                        left = [str(each) for each in snapshot.differences(before, self.look())]
                        self.assertEqual([each for each in left if "drifted_pkey" not in each], [], f"by {found}")
                    finally:
                        savepoint.rollback()


@contextmanager
def _nothing() -> Iterator[None]:
    yield
