"""Models beside a migrated database: each kind of drift is found, and said as the operations that are missing."""

import tempfile
import unittest
from pathlib import Path
from typing import ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from dbtestcase.errors import MigrationError
from dbtestcase.migrations import MigrationRecipe
from dbtestcase.migrations.compare import compare_models
from dbtestcase.migrations.project import Project
from tests.support.alembic_projects import SHOP, AlembicProject, EmptyDatabase, empty_database


class ShopDriftTest(unittest.TestCase):
    """The shop's models match its migrations; whatever is changed in the database is then what is missing."""

    database: ClassVar[EmptyDatabase]
    project: ClassVar[Project]

    @classmethod
    def setUpClass(cls) -> None:
        cls.database = cls.enterClassContext(empty_database())
        recipe = MigrationRecipe(SHOP / "alembic.ini")
        recipe.build(cls.database.url)
        cls.project = recipe.project

    def missing(self, *statements: str, **options: object) -> list[str]:
        """What is missing after a change to the database, which is undone."""
        with empty_database(self.database) as database:
            for statement in statements:
                database.ask(statement)
            return compare_models(self.project, database.url, **options)  # type: ignore[arg-type]

    def test_nothing_is_missing_where_nothing_differs(self) -> None:
        self.assertEqual(compare_models(self.project, self.database.url), [])

    def test_nothing_is_changed_by_looking(self) -> None:
        tables = self.database.tables()
        compare_models(self.project, self.database.url)
        self.assertEqual(self.database.tables(), tables)
        self.assertTrue(self.database.is_alone())

    def test_an_asynchronous_env_py_compares_the_same(self) -> None:
        self.assertEqual(compare_models(MigrationRecipe(SHOP / "alembic_async.ini").project, self.database.url), [])

    def test_a_table_that_no_model_knows(self) -> None:
        self.assertEqual(self.missing("CREATE TABLE stray (id int PRIMARY KEY)"), ["op.drop_table('stray')"])

    def test_a_table_that_no_model_knows_in_another_schema(self) -> None:
        found = self.missing("CREATE SCHEMA attic", "CREATE TABLE attic.stray (id int)")
        self.assertEqual(found, ["op.drop_table('stray', schema='attic')"])

    def test_a_missing_table_with_its_indexes(self) -> None:
        found = self.missing("DROP TABLE product_label CASCADE")
        self.assertEqual(len(found), 1)
        self.assertIn(
            "op.create_table('product_label',\n    sa.Column('product_id', sa.Integer(), nullable=False),", found[0]
        )
        self.assertIn("op.create_index('ix_event_detail'", "\n".join(self.missing("DROP TABLE audit.event")))

    def test_columns_missing_and_left_over(self) -> None:
        self.assertEqual(
            self.missing("ALTER TABLE product DROP COLUMN weight", "ALTER TABLE product ADD COLUMN extra int"),
            [
                "op.add_column('product', sa.Column('weight', sa.Float(), nullable=True))",
                "op.create_check_constraint('ck_product_weight', 'product', 'weight > 0::double precision')",
                "op.drop_column('product', 'extra')",
            ],
        )

    def test_types_nullability_and_server_defaults(self) -> None:
        found = self.missing(
            "ALTER TABLE product ALTER COLUMN price TYPE numeric(10, 4)",
            "ALTER TABLE product ALTER COLUMN name DROP NOT NULL",
            "ALTER TABLE orders ALTER COLUMN status SET DEFAULT 'paid'",
            "ALTER TABLE customer ALTER COLUMN created_at DROP DEFAULT",
        )
        text = "\n".join(found)
        self.assertIn(
            "# was numeric(10,4) NOT NULL\nop.alter_column('product', 'price',\n"
            "    type_=sa.Numeric(precision=12, scale=2))",
            text,
        )
        self.assertIn(
            "op.alter_column('product', 'name',\n    existing_type=sa.String(length=200),\n    nullable=False)", text
        )
        self.assertIn("server_default='cart'", text)
        self.assertIn("server_default=sa.text('now()')", text)

    def test_identity_and_generated_columns(self) -> None:
        found = self.missing(
            "ALTER TABLE audit.event ALTER COLUMN id DROP IDENTITY",
            "ALTER TABLE order_line DROP COLUMN total",
            "ALTER TABLE order_line ADD total numeric(14, 2) GENERATED ALWAYS AS (quantity * unit_price + 1) STORED",
        )
        text = "\n".join(found)
        self.assertIn("op.drop_column('order_line', 'total')\nop.add_column('order_line', sa.Column('total'", text)
        self.assertIn("ALTER TABLE audit.event ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY", text)

    def test_indexes_missing_left_over_and_different(self) -> None:
        found = self.missing(
            "DROP INDEX ix_orders_customer",
            "CREATE INDEX ix_extra ON orders (created_at)",
            "DROP INDEX uq_customer_email_alive",
            "CREATE UNIQUE INDEX uq_customer_email_alive ON customer (lower(email))",
        )
        self.assertEqual(
            found,
            [
                "op.create_index('ix_orders_customer', 'orders', "
                "['customer_id', sa.literal_column('created_at DESC')], unique=False)",
                "op.drop_index('uq_customer_email_alive', table_name='customer')",
                "op.create_index('uq_customer_email_alive', 'customer', [sa.literal_column('lower(email)')], "
                "unique=True, postgresql_where=sa.text('deleted_at IS NULL'))",
                "op.drop_index('ix_extra', table_name='orders')",
            ],
        )

    def test_check_constraints_missing_left_over_and_different(self) -> None:
        found = self.missing(
            "ALTER TABLE order_line DROP CONSTRAINT ck_order_line_quantity",
            "ALTER TABLE product ADD CONSTRAINT ck_extra CHECK (price < 1000)",
            "ALTER TABLE product DROP CONSTRAINT ck_product_price",
            "ALTER TABLE product ADD CONSTRAINT ck_product_price CHECK (price > 0)",
        )
        self.assertEqual(
            found,
            [
                "op.create_check_constraint('ck_order_line_quantity', 'order_line', 'quantity > 0')",
                "op.drop_constraint('ck_product_price', 'product', type_='check')",
                "op.create_check_constraint('ck_product_price', 'product', 'price >= 0::numeric')",
                "op.drop_constraint('ck_extra', 'product', type_='check')",
            ],
        )

    def test_a_check_constraint_that_was_never_validated(self) -> None:
        found = self.missing(
            "ALTER TABLE order_line DROP CONSTRAINT ck_order_line_quantity",
            "ALTER TABLE order_line ADD CONSTRAINT ck_order_line_quantity CHECK (quantity > 0) NOT VALID",
        )
        self.assertEqual(found, ["op.execute('ALTER TABLE order_line VALIDATE CONSTRAINT ck_order_line_quantity')"])

    def test_renamed_constraints_and_indexes(self) -> None:
        found = self.missing(
            "ALTER TABLE customer RENAME CONSTRAINT ck_customer_phone TO ck_phone",
            "ALTER TABLE product_label RENAME CONSTRAINT pk_product_label TO pk_other",
            "ALTER TABLE product_label RENAME CONSTRAINT fk_product_label_label TO fk_other",
            "ALTER TABLE label RENAME CONSTRAINT uq_label_text TO uq_other",
            "ALTER INDEX ix_product_name RENAME TO ix_product_title",
        )
        self.assertEqual(
            sorted(found),
            [
                "op.execute('ALTER INDEX ix_product_title RENAME TO ix_product_name')",
                "op.execute('ALTER TABLE customer RENAME CONSTRAINT ck_phone TO ck_customer_phone')",
                "op.execute('ALTER TABLE label RENAME CONSTRAINT uq_other TO uq_label_text')",
                "op.execute('ALTER TABLE product_label RENAME CONSTRAINT fk_other TO fk_product_label_label')",
                "op.execute('ALTER TABLE product_label RENAME CONSTRAINT pk_other TO pk_product_label')",
            ],
        )

    def test_a_constraint_that_the_models_give_no_name_may_have_any(self) -> None:
        self.assertEqual(self.missing("ALTER TABLE category RENAME CONSTRAINT category_pkey TO pk_category"), [])

    def test_foreign_and_unique_keys(self) -> None:
        found = self.missing(
            "ALTER TABLE order_line DROP CONSTRAINT fk_order_line_order",
            "ALTER TABLE order_line ADD CONSTRAINT fk_order_line_order FOREIGN KEY (order_id) REFERENCES orders (id)",
            "ALTER TABLE label DROP CONSTRAINT uq_label_text",
        )
        self.assertEqual(
            found,
            [
                "op.create_unique_constraint('uq_label_text', 'label', ['text'])",
                "op.drop_constraint('fk_order_line_order', 'order_line', type_='foreignkey')",
                "op.create_foreign_key('fk_order_line_order', 'order_line', 'orders', ['order_id'], ['id'], "
                "ondelete='CASCADE')",
            ],
        )

    def test_a_value_that_an_enum_lacks(self) -> None:
        found = self.missing(
            "ALTER TABLE orders ALTER COLUMN status DROP DEFAULT",
            "DROP VIEW order_total",
            "DROP TRIGGER order_changed ON orders",
            "ALTER TYPE order_status RENAME TO old",
            "CREATE TYPE order_status AS ENUM ('cart', 'paid', 'refunded')",
            "ALTER TABLE orders ALTER COLUMN status TYPE order_status USING status::text::order_status",
            "ALTER TABLE orders ALTER COLUMN status SET DEFAULT 'cart'",
            "DROP TYPE old",
        )
        self.assertEqual(
            found[0],
            "with op.get_context().autocommit_block():\n"
            "    op.execute(\"ALTER TYPE order_status ADD VALUE 'shipped' AFTER 'paid'\")",
        )
        self.assertIn("CREATE VIEW order_total", found[1])  # which the models say

    def test_a_value_that_the_models_do_not_know(self) -> None:
        found = self.missing("ALTER TYPE billing.payment_method ADD VALUE 'cheque'")
        self.assertIn("has 'cash', 'card', 'transfer', 'cheque', the models say 'cash', 'card', 'transfer'", found[0])
        self.assertIn("ALTER TABLE billing.payment ALTER COLUMN method TYPE billing.payment_method", found[3])

    def test_sequences(self) -> None:
        found = self.missing("ALTER SEQUENCE billing.invoice_number INCREMENT 1", "CREATE SEQUENCE lost")
        self.assertRegex(found[0], r"ALTER SEQUENCE billing.invoice_number AS bigint START 10000 INCREMENT 10 ")
        self.assertEqual(found[1:], ["op.execute('DROP SEQUENCE lost')"])

    def test_an_enum_that_no_model_uses(self) -> None:
        self.assertEqual(self.missing("CREATE TYPE lost AS ENUM ('a')"), ["op.execute('DROP TYPE lost')"])

    def test_comments(self) -> None:
        found = self.missing(
            "COMMENT ON TABLE orders IS NULL",
            "COMMENT ON TABLE customer IS 'extra'",
            "COMMENT ON COLUMN customer.phone IS 'other'",
        )
        self.assertEqual(
            found,
            [
                "op.create_table_comment('orders', 'What customers buy, or are about to.')",
                "op.alter_column('customer', 'phone', comment='As the customer wrote it.')",
                "op.drop_table_comment('customer')",
            ],
        )

    def test_views_functions_triggers_and_partitions_are_the_migrations_own(self) -> None:
        found = self.missing(
            "CREATE VIEW more AS SELECT 1 AS one",
            "CREATE FUNCTION more() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "CREATE TABLE audit.login_2025 PARTITION OF audit.login FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')",
            "CREATE SCHEMA _dbtestcase",
            "CREATE TABLE _dbtestcase.touched (relation oid)",
        )
        self.assertEqual(found, [])

    def test_what_is_excluded_by_name_is_passed_over(self) -> None:
        drift = (
            "CREATE TABLE stray (id int)",
            "ALTER TABLE product ADD COLUMN extra int",
            "ALTER TABLE customer DROP CONSTRAINT ck_customer_phone",
            "ALTER TYPE billing.payment_method ADD VALUE 'cheque'",
            "DROP INDEX ix_orders_customer",
        )
        names = ["str*", "product.extra", "public.customer.ck_*", "payment_method", "ix_orders_customer"]
        self.assertEqual(self.missing(*drift, exclude=names), [])
        for name in names:
            with self.subTest(name):
                rest = [other for other in names if other != name]
                self.assertNotEqual(self.missing(*drift, exclude=rest), [])


class EnvironmentOptionsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory())).resolve()
        self.database = self.enterContext(empty_database())
        self.project = AlembicProject(self.folder)
        self.project.table("0001", None, "author")
        self.models = sa.MetaData()
        sa.Table("author", self.models, sa.Column("id", sa.Integer, primary_key=True))
        self.migrations = MigrationRecipe(self.project.ini).project
        self.migrations.upgrade(self.database.url)

    def test_the_models_may_be_given(self) -> None:
        self.assertEqual(compare_models(self.migrations, self.database.url, metadata=self.models), [])

    def test_without_models_it_says_where_to_name_them(self) -> None:
        with self.assertRaisesRegex(MigrationError, "target_metadata is None") as caught:
            compare_models(self.migrations, self.database.url)
        self.assertIn("target_metadata = Base.metadata", caught.exception.remedy)

    def test_what_env_py_passes_over_is_passed_over(self) -> None:
        self.database.ask("CREATE TABLE legacy_a (id int)")
        self.database.ask("CREATE TABLE legacy_b (id int)")
        sa.Table("not_ours", self.models, sa.Column("id", sa.Integer))
        self.project.replace(
            "target_metadata=target_metadata\n",
            "target_metadata=target_metadata,\n"
            "            include_name=lambda name, kind, parents: name != 'legacy_a',\n"
            "            include_object=lambda item, name, *rest: name not in ('legacy_b', 'not_ours')\n",
        )
        self.assertEqual(compare_models(self.migrations, self.database.url, metadata=self.models), [])

    def test_a_table_that_is_mapped_to_a_view_is_not_missing(self) -> None:
        self.database.ask("CREATE VIEW author_name AS SELECT id FROM author")
        sa.Table("author_name", self.models, sa.Column("id", sa.Integer))
        self.assertEqual(compare_models(self.migrations, self.database.url, metadata=self.models), [])

    def test_what_belongs_to_an_extension_is_passed_over(self) -> None:
        available = self.database.ask("SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_stat_statements'")
        if available == [(0,)]:
            self.skipTest("the server has no extension with relations of its own")
        self.database.ask("CREATE EXTENSION pg_stat_statements")
        self.assertEqual(compare_models(self.migrations, self.database.url, metadata=self.models), [])

    def test_what_of_the_models_cannot_be_made_is_named_and_the_rest_compared(self) -> None:
        self.database.ask("ALTER TABLE author ADD forgotten int")
        sa.Table(
            "post",
            self.models,
            sa.Column("id", sa.Integer, server_default=sa.text("next_post()")),
            sa.Column("place", postgresql.INET),
            sa.Index("ix_post_place", "place", postgresql_using="gist"),
            sa.CheckConstraint("id > 0", name="ck_post_id"),
        )
        self.database.ask("CREATE TABLE post (id int, place inet)")
        refused = [
            "# column public.post.id of the models cannot be made: function next_post() does not exist",
            "# index public.post.ix_post_place of the models cannot be made: "
            'data type inet has no default operator class for access method "gist"',
        ]
        found = compare_models(self.migrations, self.database.url, metadata=self.models)
        self.assertEqual(found, [*refused, "op.drop_column('author', 'forgotten')"])
        for number, name in enumerate(("post.id", "ix_post_place")):
            with self.subTest(name):
                found = compare_models(
                    self.migrations, self.database.url, metadata=self.models, exclude=[name, "forgotten"]
                )
                self.assertEqual(found, [refused[1 - number]])
        self.assertEqual(self.database.tables(), ["author", "post"])

    def test_a_function_that_a_revision_makes_serves_a_model(self) -> None:
        self.database.ask("CREATE FUNCTION next_post() RETURNS int LANGUAGE sql AS 'SELECT 7'")
        self.database.ask("CREATE TABLE post (id int DEFAULT next_post())")
        sa.Table("post", self.models, sa.Column("id", sa.Integer, server_default=sa.text("next_post()")))
        self.assertEqual(compare_models(self.migrations, self.database.url, metadata=self.models), [])

    def test_include_object_is_asked_as_alembic_asks_it(self) -> None:
        """With its kinds, the model's own object, the reflected one beside it, foreign keys with what they refer to."""
        sa.Table(
            "book",
            self.models,
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("author_id", sa.ForeignKey("author.id")),
            sa.Column("extra", sa.Integer),
            sa.UniqueConstraint("author_id"),
        )
        self.database.ask(
            "CREATE TABLE book (id serial PRIMARY KEY, author_id int CONSTRAINT other REFERENCES author, old int,"
            " other_id int CONSTRAINT fk_left REFERENCES author, CONSTRAINT uq_other UNIQUE (author_id))"
        )
        self.project.replace(
            "config = context.config\n",
            "config = context.config\n"
            "def include_object(object, name, type_, reflected, compare_to):\n"
            "    assert name.startswith('') and object.info is not None\n"  # no name is None
            "    if type_ == 'foreign_key_constraint':\n"
            "        return list(object.elements)[0].column.table.name != 'author'\n"
            "    if type_ == 'table':\n"
            "        assert (compare_to is not None) == (name in ('author', 'book')), name\n"
            "    return not (type_ == 'column' and reflected and compare_to is None)\n",
        )
        self.project.replace("target_metadata=target_metadata\n", "include_object=include_object\n")
        found = compare_models(self.migrations, self.database.url, metadata=self.models)
        self.assertEqual(found, ["op.add_column('book', sa.Column('extra', sa.Integer(), nullable=True))"])

    def test_tables_that_share_an_enum(self) -> None:
        state = sa.Enum("new", "done", name="state")
        for name in ("one", "two"):
            sa.Table(name, self.models, sa.Column("id", sa.Integer, primary_key=True), sa.Column("state", state))
        found = compare_models(self.migrations, self.database.url, metadata=self.models)
        self.assertEqual([line[:10] for line in found], ["op.execute", "op.create_", "op.create_"])
        self.database.ask("CREATE TYPE state AS ENUM ('new', 'done', 'gone')")
        self.database.ask("CREATE TABLE one (id serial PRIMARY KEY, state state)")
        found = compare_models(self.migrations, self.database.url, metadata=self.models)
        self.assertIn("op.execute('DROP TYPE state_old')", found)
        self.assertTrue(found[-1].startswith("op.create_table('two',"), found)

    def test_naming_conventions_name_constraints(self) -> None:
        models = sa.MetaData(
            naming_convention={"pk": "pk_%(table_name)s", "ck": "ck_%(table_name)s_%(constraint_name)s"}
        )
        sa.Table("author", models, sa.Column("id", sa.Integer, primary_key=True))
        found = compare_models(self.migrations, self.database.url, metadata=models)
        self.assertEqual(found, ["op.execute('ALTER TABLE author RENAME CONSTRAINT author_pkey TO pk_author')"])

    def test_arrays_of_enums_and_enums_in_decorated_types(self) -> None:
        class Decorated(sa.TypeDecorator[str]):
            impl = sa.Enum("a", "b", name="letter")
            cache_ok = True

        sa.Table(
            "post",
            self.models,
            sa.Column("letters", postgresql.ARRAY(sa.Enum("x", "y", name="sign"))),
            sa.Column("one", Decorated),
        )
        self.database.ask("CREATE TYPE letter AS ENUM ('a', 'b')")
        self.database.ask("CREATE TYPE sign AS ENUM ('x', 'y')")
        self.database.ask("CREATE TABLE post (letters sign[], one letter)")
        self.assertEqual(compare_models(self.migrations, self.database.url, metadata=self.models), [])
        self.database.ask("ALTER TYPE sign ADD VALUE 'z'")
        self.assertIn(
            "ALTER TABLE post ALTER COLUMN letters TYPE sign[]",
            "\n".join(compare_models(self.migrations, self.database.url, metadata=self.models)),
        )

    def test_tables_that_refer_to_each_other(self) -> None:
        sa.Table("a", self.models, sa.Column("id", sa.Integer, primary_key=True), sa.Column("b", sa.ForeignKey("b.id")))
        sa.Table("b", self.models, sa.Column("id", sa.Integer, primary_key=True), sa.Column("a", sa.ForeignKey("a.id")))
        self.database.ask("CREATE TABLE a (id serial PRIMARY KEY, b int)")
        self.database.ask("CREATE TABLE b (id serial PRIMARY KEY, a int REFERENCES a (id))")
        self.database.ask("ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b (id)")
        self.assertEqual(compare_models(self.migrations, self.database.url, metadata=self.models), [])

    def test_the_models_are_not_changed_by_the_comparison(self) -> None:
        post = sa.Table(
            "post",
            self.models,
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("author", sa.ForeignKey("author.id")),
        )
        compare_models(self.migrations, self.database.url, metadata=self.models)
        with empty_database() as other:
            engine = sa.create_engine(other.url)
            self.models.create_all(engine)
            self.assertEqual(len(sa.inspect(engine).get_foreign_keys("post")), 1)
            engine.dispose()
        self.assertEqual(len(post.foreign_keys), 1)


class OtherDialectTest(unittest.TestCase):
    """Elsewhere than on PostgreSQL, what `alembic check` compares."""

    def test_sqlite(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory())).resolve()
        project = AlembicProject(folder)
        project.table("0001", None, "author")
        url = sa.make_url(f"sqlite:///{folder}/test.db")
        migrations = MigrationRecipe(project.ini).project
        migrations.upgrade(url)
        models = sa.MetaData()
        sa.Table("author", models, sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String(20)))
        found = compare_models(migrations, url, metadata=models)
        self.assertEqual(found, ["op.add_column('author', sa.Column('name', sa.String(length=20), nullable=True))"])
        self.assertEqual(compare_models(migrations, url, metadata=models, exclude=["author.name"]), [])
