"""Kinds of drift between models and migrations: each a change made at random to a migrated PostgreSQL database."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, TypeAlias

from sqlalchemy import Connection, text

__all__ = ["KINDS", "Catalog", "Kind"]


class Catalog:
    """What there is to change, and the dice."""

    def __init__(self, connection: Connection, dice: random.Random) -> None:
        self._connection = connection
        self.dice = dice

    def one(self, question: str) -> Any:
        """One of the answers to a question to the catalogs."""
        rows = self._connection.execute(text(question.replace(":", "\\:"))).all()
        assert rows, question
        return self.dice.choice(sorted(rows, key=str))

    def column(self, condition: str = "true") -> Any:
        """A column: its table, name and type, and its default as text."""
        return self.one(
            f"""SELECT r.oid::regclass::text AS table, quote_ident(attname) AS name,
                    format_type(atttypid, atttypmod) AS type, pg_get_expr(adbin, adrelid) AS default
                FROM pg_class r JOIN pg_attribute a ON attrelid = r.oid AND attnum > 0 AND NOT attisdropped
                    LEFT JOIN pg_attrdef ON adrelid = r.oid AND adnum = attnum
                WHERE {_OURS} AND NOT relispartition AND {condition}"""
        )

    def index(self, condition: str = "true") -> Any:
        """An index that no constraint has: its name, its table, its definition."""
        return self.one(
            f"""SELECT i.indexrelid::regclass::text AS name, r.oid::regclass::text AS table,
                    pg_get_indexdef(i.indexrelid) AS definition, x.relname AS bare, n.nspname AS schema
                FROM pg_index i JOIN pg_class r ON r.oid = i.indrelid JOIN pg_class x ON x.oid = i.indexrelid
                    JOIN pg_namespace n ON n.oid = x.relnamespace
                WHERE {_OURS} AND {condition}
                    AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid)"""
        )

    def constraint(self, kind: str, condition: str = "true") -> Any:
        """A constraint of a table: its table, name and definition."""
        return self.one(
            f"""SELECT r.oid::regclass::text AS table, quote_ident(conname) AS name,
                    pg_get_constraintdef(k.oid) AS definition
                FROM pg_constraint k JOIN pg_class r ON r.oid = conrelid
                WHERE {_OURS} AND NOT relispartition AND contype = '{kind}' AND {condition}"""
        )

    def table(self, condition: str = "true") -> str:
        """The name of a table, with its schema where that is not the default one."""
        name: str = self.one(
            f"SELECT r.oid::regclass::text AS name FROM pg_class r WHERE {_OURS} AND NOT relispartition AND {condition}"
        ).name
        return name

    def changed_index(self, old: str, new: str, condition: str) -> list[str]:
        """An index made anew with another definition."""
        index = self.index(condition)
        assert old in index.definition, index.definition
        return [f"DROP INDEX {index.name}", index.definition.replace(old, new)]


_OURS = (
    "r.relkind IN ('r', 'p') AND r.relname NOT LIKE 'alembic%' "
    "AND r.relnamespace::regnamespace::text NOT IN ('pg_catalog', 'information_schema') "
    "AND r.relnamespace::regnamespace::text NOT LIKE 'pg_toast%'"
)
_PLAIN = "attgenerated = '' AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = r.oid AND attnum = ANY (indkey))"
_UNREAD = (
    f"{_PLAIN} AND relname NOT IN ('order_line', 'orders', 'invoice', 'payment', 'product_label') AND relkind = 'r'"
)
_ALONE = """NOT EXISTS (
    SELECT FROM pg_depend WHERE refclassid = 'pg_class'::regclass AND refobjid = r.oid AND refobjsubid = attnum)"""
_SERIAL = "pg_get_serial_sequence(r.oid::regclass::text, attname) IS NOT NULL AND attidentity = ''"
_ORDERS = "x.relname = 'ix_orders_customer'"
_TREE = "x.relam = 403 AND NOT indisunique"
_ON_PRODUCT = " AND r.relname = 'product'"
_UQ = "conname ~ '^uq'"
_NOT_PARTITIONED = "relkind = 'r'"
_VIEW_OPTIONS = ["RESET (security_barrier)", "SET (security_barrier = false)", "SET (check_option = local)"]
_MOMENTS = ["AFTER UPDATE", "BEFORE INSERT OR UPDATE", "BEFORE UPDATE OF name"]
_WIDER = "ALTER ATTRIBUTE width TYPE bigint"
_CURRENCY = "SET DEFAULT 'CHF'"
_QUOTED = "'it''s drifted'"

#: The statements of a change.
Kind: TypeAlias = Callable[[Catalog], list[str]]


def _alter(column: Any, change: str) -> list[str]:
    return [f"ALTER TABLE {column.table} ALTER COLUMN {column.name} {change}"]


def _view(columns: str) -> list[str]:
    return ["DROP VIEW order_total", f"CREATE VIEW order_total AS SELECT {columns} FROM orders GROUP BY status"]


def _enum(values: str) -> Kind:
    def change(catalog: Catalog) -> list[str]:
        return [
            "DROP VIEW IF EXISTS order_total CASCADE",
            "DROP TRIGGER IF EXISTS order_changed ON orders",
            "ALTER TABLE orders ALTER COLUMN status DROP DEFAULT",
            "ALTER TYPE order_status RENAME TO old_status",
            f"CREATE TYPE order_status AS ENUM ({values})",
            "ALTER TABLE orders ALTER COLUMN status TYPE order_status USING status::text::order_status",
            "ALTER TABLE orders ALTER COLUMN status SET DEFAULT 'cart'",
            "DROP TYPE old_status",
        ]

    return change


def _again(kind: str, change: Callable[[str], str]) -> Kind:
    def make(catalog: Catalog) -> list[str]:
        found = catalog.constraint(kind)
        drop = f"ALTER TABLE {found.table} DROP CONSTRAINT {found.name} CASCADE"
        return [drop, f"ALTER TABLE {found.table} ADD CONSTRAINT {found.name} {change(found.definition)}"]

    return make


def _dropped(kind: str) -> Kind:
    def make(catalog: Catalog) -> list[str]:
        found = catalog.constraint(kind)
        return [f"ALTER TABLE {found.table} DROP CONSTRAINT {found.name} CASCADE"]

    return make


def _renamed(kind: str, condition: str = "conname LIKE '__\\_%'") -> Kind:
    def make(catalog: Catalog) -> list[str]:
        found = catalog.constraint(kind, condition)
        return [f"ALTER TABLE {found.table} RENAME CONSTRAINT {found.name} TO drifted_{catalog.dice.randrange(1000)}"]

    return make


def _pk_order(catalog: Catalog) -> list[str]:
    found = catalog.constraint("p", "cardinality(conkey) = 2")
    columns = found.definition.removeprefix("PRIMARY KEY (").removesuffix(")").split(", ")
    return [
        f"ALTER TABLE {found.table} DROP CONSTRAINT {found.name}",
        f"ALTER TABLE {found.table} ADD CONSTRAINT {found.name} PRIMARY KEY ({', '.join(reversed(columns))})",
    ]


KINDS: dict[str, Kind] = {
    "column missing": lambda c: [
        f"ALTER TABLE {(col := c.column(_UNREAD + ' AND NOT attnotnull')).table} DROP COLUMN {col.name}"
    ],
    "column left over": lambda c: [
        f"ALTER TABLE {c.table()} ADD COLUMN extra {c.dice.choice(['int', 'text[]', 'jsonb'])}"
    ],
    "column renamed": lambda c: [f"ALTER TABLE {(col := c.column(_UNREAD)).table} RENAME COLUMN {col.name} TO renamed"],
    "column type": lambda c: _alter(c.column(f"{_UNREAD} AND atttypid = 'varchar'::regtype"), "TYPE text"),
    "column length": lambda c: _alter(
        c.column("atttypid = 'varchar'::regtype"), f"TYPE varchar({c.dice.randrange(255, 999)})"
    ),
    "column precision": lambda c: _alter(
        c.column("atttypid = 'numeric'::regtype AND attgenerated = '' AND relname NOT IN ('order_line', 'payment')"),
        "TYPE numeric(9, 1)",
    ),
    "column that a policy reads": lambda c: [
        "DROP POLICY paid ON billing.payment",
        "ALTER TABLE billing.payment ALTER amount TYPE numeric(14, 2)",
        "CREATE POLICY paid ON billing.payment FOR SELECT USING (amount > 0)",
    ],
    "column of a generated one": lambda c: [
        "DROP VIEW IF EXISTS order_total CASCADE",
        "DROP MATERIALIZED VIEW sales",
        "ALTER TABLE order_line DROP COLUMN total",
        "ALTER TABLE order_line ALTER quantity TYPE bigint",
        "ALTER TABLE order_line ADD total numeric(14, 2) GENERATED ALWAYS AS (quantity * unit_price) STORED",
    ],
    "column without a time zone": lambda c: _alter(
        c.column(f"{_UNREAD} AND atttypid = 'timestamptz'::regtype"), "TYPE timestamp"
    ),
    "column collation": lambda c: _alter(
        (col := c.column("atttypid IN ('varchar'::regtype, 'text'::regtype)")), f'TYPE {col.type} COLLATE "C"'
    ),
    "column array": lambda c: _alter(
        (col := c.column(f"{_UNREAD} AND {_ALONE} AND attndims = 0")), f"TYPE {col.type}[] USING ARRAY[{col.name}]"
    ),
    "column no array": lambda c: [
        "DROP INDEX ix_product_keywords",
        *_alter((col := c.column("attndims > 0")), "DROP DEFAULT"),
        *_alter(col, f"TYPE {c.dice.choice(['text', 'varchar(80)'])} USING array_to_string({col.name}, ',')"),
    ],
    "column domain": lambda c: [
        "DROP VIEW billing.unpaid",
        *_alter(c.column("atttypid::regtype::text = 'billing.currency'"), "TYPE char(3)"),
    ],
    "column nullable": lambda c: _alter(c.column("attnotnull AND attidentity = '' AND " + _PLAIN), "DROP NOT NULL"),
    "column not nullable": lambda c: _alter(c.column("NOT attnotnull AND " + _PLAIN), "SET NOT NULL"),
    "default missing": lambda c: _alter(c.column("atthasdef AND attgenerated = ''"), "DROP DEFAULT"),
    "default changed": lambda c: _alter(
        c.column("atthasdef AND atttypid IN ('varchar'::regtype)"), "SET DEFAULT 'drifted'"
    ),
    "default moment": lambda c: _alter(
        c.column("pg_get_expr(adbin, adrelid) = 'now()'"), "SET DEFAULT now() - interval '1 day'"
    ),
    "default left over": lambda c: _alter(
        c.column("NOT atthasdef AND atttypid = 'varchar'::regtype"), "SET DEFAULT 'drifted'"
    ),
    "serial without its sequence": lambda c: [
        f"ALTER TABLE {(col := c.column(_SERIAL)).table} ALTER COLUMN {col.name} DROP DEFAULT",
        f"DROP SEQUENCE {col.default.split(chr(39))[1]}",
    ],
    "identity missing": lambda c: _alter(c.column("attidentity <> ''"), "DROP IDENTITY"),
    "identity by default": lambda c: _alter(c.column("attidentity = 'a'"), "SET GENERATED BY DEFAULT"),
    "identity options": lambda c: _alter(c.column("attidentity <> ''"), f"SET INCREMENT {c.dice.randrange(2, 9)}"),
    "generated expression": lambda c: [
        "DROP VIEW IF EXISTS order_total CASCADE",
        "ALTER TABLE order_line DROP COLUMN total CASCADE",
        "ALTER TABLE order_line ADD total numeric(14, 2) GENERATED ALWAYS AS (quantity * unit_price * 2) STORED",
    ],
    "generated no more": lambda c: _alter(c.column("attgenerated = 's'"), "DROP EXPRESSION"),
    "enum value missing": _enum("'cart', 'shipped', 'refunded'"),
    "enum value left over": lambda c: ["ALTER TYPE billing.payment_method ADD VALUE 'cheque'"],
    "enum order": _enum("'paid', 'cart', 'shipped', 'refunded'"),
    "enum left over": lambda c: ["CREATE TYPE drifted AS ENUM ('a', 'b')"],
    "index missing": lambda c: [f"DROP INDEX {c.index().name}"],
    "index left over": lambda c: [
        f"CREATE INDEX drifted ON {(col := c.column(_PLAIN + ' AND atttypid <> 114')).table} ({col.name})"
    ],
    "index columns": lambda c: c.changed_index("(customer_id, created_at DESC)", "(created_at DESC)", _ORDERS),
    "index order of columns": lambda c: c.changed_index(
        "(customer_id, created_at DESC)", "(created_at DESC, customer_id)", _ORDERS
    ),
    "index direction": lambda c: c.changed_index(" DESC", "", _ORDERS),
    "index unique": lambda c: c.changed_index("CREATE INDEX", "CREATE UNIQUE INDEX", _TREE),
    "index not unique": lambda c: c.changed_index("CREATE UNIQUE INDEX", "CREATE INDEX", "indisunique"),
    "index for all rows": lambda c: c.changed_index(" WHERE (deleted_at IS NULL)", "", "indpred IS NOT NULL"),
    "index for some rows": lambda c: [
        f"DROP INDEX {(i := c.index(_TREE + ' AND indpred IS NULL')).name}",
        f"{i.definition} WHERE 1 = 1",
    ],
    "index method": lambda c: c.changed_index("USING btree", "USING hash", f"{_TREE} AND indnatts = 1"),
    "index with more": lambda c: [
        f"DROP INDEX {(i := c.index(_TREE + _ON_PRODUCT)).name}",
        f"{i.definition} INCLUDE (price)",
    ],
    "index renamed": lambda c: [f"ALTER INDEX {c.index().name} RENAME TO drifted"],
    "primary key missing": _dropped("p"),
    "primary key order": _pk_order,
    "primary key renamed": _renamed("p"),
    "foreign key missing": _dropped("f"),
    "foreign key action": _again(
        "f", lambda d: d.split(" ON DELETE")[0].split(" DEFERRABLE")[0] + " ON UPDATE CASCADE"
    ),
    "foreign key deferrable": _again("f", lambda d: d.split(" DEFERRABLE")[0] + " DEFERRABLE"),
    "foreign key renamed": _renamed("f"),
    "foreign key left over": lambda c: [
        "ALTER TABLE audit.login ADD CONSTRAINT drifted FOREIGN KEY (customer_id) REFERENCES customer (id)"
    ],
    "unique constraint missing": _dropped("u"),
    "unique constraint left over": lambda c: ["ALTER TABLE customer ADD CONSTRAINT drifted UNIQUE (full_name, email)"],
    "unique constraint renamed": _renamed("u"),
    "unique index instead of a constraint": lambda c: [
        f"ALTER TABLE {(k := c.constraint('u', _UQ)).table} DROP CONSTRAINT {k.name}",
        f"CREATE UNIQUE INDEX {k.name} ON {k.table} {k.definition.removeprefix('UNIQUE ')}",
    ],
    "check constraint missing": _dropped("c"),
    "check constraint changed": _again("c", lambda d: d.replace("CHECK (", "CHECK (1 = 1 AND ", 1)),
    "check constraint not validated": _again("c", lambda d: d + " NOT VALID"),
    "check constraint left over": lambda c: [f"ALTER TABLE {c.table()} ADD CONSTRAINT drifted CHECK (1 < 2)"],
    "check constraint renamed": _renamed("c"),
    "exclusion constraint left over": lambda c: [
        "ALTER TABLE audit.event ADD CONSTRAINT drifted EXCLUDE USING btree (kind WITH =)"
    ],
    "comment missing": lambda c: ["COMMENT ON TABLE orders IS NULL"],
    "comment changed": lambda c: ["COMMENT ON COLUMN customer.phone IS 'it''s drifted: 100%'"],
    "comment left over": lambda c: [f"COMMENT ON COLUMN {(col := c.column('true')).table}.{col.name} IS 'drifted'"],
    "sequence missing": lambda c: ["DROP SEQUENCE billing.invoice_number CASCADE"],
    "sequence options": lambda c: [f"ALTER SEQUENCE billing.invoice_number INCREMENT {c.dice.randrange(11, 99)} CYCLE"],
    "sequence left over": lambda c: ["CREATE SEQUENCE drifted"],
    "view missing": lambda c: [f"DROP VIEW {c.dice.choice(['order_total', 'billing.unpaid'])}"],
    "view changed": lambda c: [
        "CREATE OR REPLACE VIEW billing.unpaid WITH (security_barrier) AS SELECT * FROM billing.invoice "
        f"WHERE number > {c.dice.randrange(99)}"
    ],
    "view columns": lambda c: _view(c.dice.choice(["status", "status, count(*)", "now()"])),
    "view that another one reads": lambda c: [
        *_view("status"),
        "CREATE VIEW label_use_too AS SELECT * FROM order_total",
    ],
    "view options": lambda c: [f"ALTER VIEW billing.unpaid {c.dice.choice(_VIEW_OPTIONS)}"],
    "materialized view missing": lambda c: ["DROP MATERIALIZED VIEW sales"],
    "materialized view changed": lambda c: [
        "DROP MATERIALIZED VIEW sales",
        "CREATE MATERIALIZED VIEW sales AS SELECT product_id, 1 AS sold FROM order_line",
        *c.dice.choice([[], ["CREATE INDEX sales_product ON sales (sold)"]]),
    ],
    "index of a materialized view missing": lambda c: ["DROP INDEX sales_product"],
    "function missing": lambda c: [
        c.dice.choice(["DROP FUNCTION touch_updated_at CASCADE", "DROP FUNCTION billing.gross"])
    ],
    "function changed": lambda c: [
        "CREATE OR REPLACE FUNCTION billing.gross(net numeric, rate numeric DEFAULT 0.2) RETURNS numeric "
        f"IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN net * (1 + rate) + {c.dice.randrange(9)}; END'"
    ],
    "function options": lambda c: [
        f"ALTER FUNCTION billing.gross {c.dice.choice(['VOLATILE', 'STRICT', 'SECURITY DEFINER', 'COST 7'])}"
    ],
    "function arguments": lambda c: [
        "DROP FUNCTION billing.gross",
        f"CREATE FUNCTION billing.gross({c.dice.choice(['net real', 'net numeric'])}) RETURNS numeric "
        "LANGUAGE sql AS 'SELECT 1.0'",
    ],
    "function result": lambda c: [
        "DROP FUNCTION billing.gross",
        "CREATE FUNCTION billing.gross(net numeric, rate numeric DEFAULT 0.2) RETURNS int "
        "IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN net * (1 + rate); END$$",
        *c.dice.choice([[], ["CREATE VIEW label_use_too AS SELECT billing.gross(1)"]]),
    ],
    "procedure missing": lambda c: ["DROP PROCEDURE billing.remind"],
    "procedure changed": lambda c: [
        "CREATE OR REPLACE PROCEDURE billing.remind() LANGUAGE sql AS 'DELETE FROM billing.payment'"
    ],
    "aggregate missing": lambda c: ["DROP AGGREGATE product_of(numeric)"],
    "aggregate changed": lambda c: [
        "DROP AGGREGATE product_of(numeric)",
        "CREATE AGGREGATE product_of(numeric) (SFUNC = numeric_mul, STYPE = numeric, INITCOND = '2')",
    ],
    "trigger missing": lambda c: ["DROP TRIGGER product_touched ON product"],
    "trigger changed": lambda c: [
        "DROP TRIGGER product_touched ON product",
        f"CREATE TRIGGER product_touched {c.dice.choice(_MOMENTS)} ON product FOR EACH ROW "
        "EXECUTE FUNCTION touch_updated_at()",
    ],
    "trigger state": lambda c: [
        f"ALTER TABLE product {c.dice.choice(['DISABLE', 'ENABLE ALWAYS', 'ENABLE REPLICA'])} TRIGGER product_touched"
    ],
    "rule missing": lambda c: ["DROP RULE history ON audit.event"],
    "rule changed": lambda c: [
        "CREATE OR REPLACE RULE history AS ON UPDATE TO audit.event WHERE old.id > 7 DO INSTEAD NOTHING"
    ],
    "policy missing": lambda c: ["DROP POLICY paid ON billing.payment"],
    "policy changed": lambda c: [f"ALTER POLICY paid ON billing.payment USING (amount > {c.dice.randrange(1, 99)})"],
    "storage parameter missing": lambda c: ["ALTER TABLE audit.event RESET (fillfactor)"],
    "storage parameter changed": lambda c: [f"ALTER TABLE audit.event SET (fillfactor = {c.dice.randrange(20, 80)})"],
    "extension missing": lambda c: ["DROP EXTENSION citext"],
    "type missing": lambda c: ["DROP TYPE size"],
    "type attributes": lambda c: [
        f"ALTER TYPE size {c.dice.choice(['ADD ATTRIBUTE depth int', 'DROP ATTRIBUTE height', _WIDER])}"
    ],
    "range missing": lambda c: ["DROP TYPE price_range"],
    "domain rules": lambda c: [
        f"ALTER DOMAIN billing.currency {c.dice.choice(['SET NOT NULL', 'DROP CONSTRAINT currency_check', _CURRENCY])}"
    ],
    "domain type": lambda c: [
        "ALTER TABLE billing.invoice ALTER currency DROP DEFAULT",
        "DROP VIEW billing.unpaid",
        "ALTER TABLE billing.invoice ALTER currency TYPE text",
        "DROP DOMAIN billing.currency",
        "CREATE DOMAIN billing.currency AS varchar(9) CHECK (VALUE ~ '^[A-Z]{3}$')",
        "ALTER TABLE billing.invoice ALTER currency TYPE billing.currency",
    ],
    "statistics missing": lambda c: ["DROP STATISTICS order_customers"],
    "statistics changed": lambda c: [
        "DROP STATISTICS order_customers",
        "CREATE STATISTICS order_customers (ndistinct) ON customer_id, status FROM orders",
    ],
    "collation missing": lambda c: ["DROP COLLATION plain"],
    "comment of a view": lambda c: [f"COMMENT ON VIEW order_total IS {c.dice.choice(['NULL', _QUOTED])}"],
    "table missing": lambda c: [f"DROP TABLE {c.table()} CASCADE"],
    "table left over": lambda c: [
        f"CREATE TABLE drifted (id {c.dice.choice(['serial', 'int'])} PRIMARY KEY, category_id int REFERENCES category)"
    ],
    "table renamed": lambda c: [f"ALTER TABLE {c.table(_NOT_PARTITIONED)} RENAME TO drifted"],
    "table elsewhere": lambda c: [
        "CREATE SCHEMA drifted",
        f"ALTER TABLE {c.table(_NOT_PARTITIONED)} SET SCHEMA drifted",
    ],
    "schema renamed": lambda c: [f"ALTER SCHEMA {c.dice.choice(['audit', 'billing'])} RENAME TO drifted"],
    "schema missing": lambda c: [f"DROP SCHEMA {c.dice.choice(['audit', 'billing'])} CASCADE"],
}
