"""Drift of many kinds, made at random on the shop: it is found, and what is proposed mends it.

The tests are cases of this library: each change is undone by the sandbox.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy.dialects import postgresql

from dbtestcase import MigratedDatabaseTest
from dbtestcase.migrations import schema_state, schema_state_postgresql  # noqa: F401  registers itself
from dbtestcase.migrations.compare import compare_models
from tests.support.alembic_projects import SHOP
from tests.support.drift import KINDS, Catalog
from tests.support.samples import LONG, a_share

ROUNDS = 12 if LONG else 1
SEED = random.randrange(10**6) if LONG else 1  # the same six in every run; the long mode rolls the dice


class DriftTest(MigratedDatabaseTest):
    migrations = str(SHOP / "alembic.ini")

    def missing(self) -> list[str]:
        life = self._dbtestcase
        return compare_models(life.project, life.migration_target())

    def run_revision(self, lines: list[str]) -> None:
        """Run the lines of an ``upgrade()`` as a revision would."""
        context = MigrationContext.configure(self.connection)
        context.autocommit_block = lambda: _nothing()  # type: ignore[method-assign, assignment]
        names = {"op": Operations(context), "sa": sa, "postgresql": postgresql}
        for line in lines:
            exec(line, names)

    def look(self) -> schema_state.SchemaState:
        """The schema, but for what only the migrations say."""
        taken = schema_state.take(self.connection, ignored=["alembic_version"])
        own = ("login_", "label_use", "order_changed", "gross(", "touch_updated_at(")
        return {
            item: " ".join(definition.split()).lower()
            for item, definition in taken.items()
            if item.kind != "schema"
            and not (item.kind == "sequence" and item.part)
            and not any(name in str(item) for name in own)
        }

    def test_nothing_is_found_where_nothing_is_changed(self) -> None:
        self.assertEqual(self.missing(), [])

    def test_every_kind_is_found_and_mended(self) -> None:
        self.assertGreaterEqual(len(KINDS), 40)
        before = self.look()
        for number in range(ROUNDS):
            for name in random.Random(SEED + number).sample(sorted(KINDS), len(KINDS) if LONG else 6):
                change = KINDS[name]
                with self.subTest(name, seed=SEED + number):
                    dice = random.Random(f"{SEED + number} {name}")
                    self.mended(before, change(Catalog(self.connection, dice)))

    def test_a_table_that_others_refer_to_is_renamed_or_moved(self) -> None:
        """Its foreign keys go before it goes, and come after it was made anew; a CASCADE is for what is not a key."""
        before = self.look()
        referred = (
            ("ALTER TABLE category RENAME TO drifted", 1, 0),
            ("CREATE SCHEMA drifted; ALTER TABLE category SET SCHEMA drifted", 1, 0),
            ("ALTER TABLE billing.invoice RENAME TO drifted", 1, 1),  # it has a view
            ("CREATE SCHEMA drifted; ALTER TABLE billing.invoice SET SCHEMA drifted", 1, 0),  # it has a domain
            ("ALTER TABLE orders RENAME TO drifted", 2, 1),  # it has a view
            ("ALTER TABLE product RENAME TO drifted; ALTER TABLE category RENAME TO too", 2, 0),
            (
                'CREATE SCHEMA "A b"; ALTER TABLE label SET SCHEMA "A b"; ALTER TABLE "A b".label RENAME TO "table"',
                1,
                0,
            ),
            ("ALTER TABLE customer RENAME COLUMN id TO renamed", 1, 0),
        )
        for change, keys, cascades in a_share(referred, 3):
            with self.subTest(change):
                found = self.mended(before, change.split("; "))
                self.assertEqual([line for line in found if line.startswith("# ")], [])
                dropped = [line for line in found if line.startswith("op.drop_constraint('fk_")]
                self.assertEqual(
                    (len(dropped), sum(" CASCADE" in line for line in found if "DROP" in line)), (keys, cascades)
                )
                self.assertEqual(found[: len(dropped)], dropped)
                made = [line.partition("(")[0] for line in found if line.startswith(("op.create_t", "op.create_for"))]
                self.assertEqual(made[-keys:], ["op.create_foreign_key"] * keys, found)

    def mended(self, before: schema_state.SchemaState, change: list[str]) -> list[str]:
        """What is found after a change, which mends it; nothing of both is left."""
        savepoint = self.connection.begin_nested()
        try:
            for statement in change:
                self.connection.exec_driver_sql(statement.replace("%", "%%"))
            found = self.missing()
            self.assertTrue(found, "nothing was found")
            self.run_revision(found)
            self.assertEqual(self.missing(), [], f"not mended by {found}")
            left = [str(each) for each in schema_state.differences(before, self.look())]
            # what stands beside the tables stays in a schema that was renamed: it may be the migrations' own
            left = [each for each in left if "drifted_pkey" not in each and " drifted." not in each]
            self.assertEqual(left, [], f"by {found}")
            return found
        finally:
            savepoint.rollback()


@contextmanager
def _nothing() -> Iterator[None]:
    yield
