"""The models of the shop, as they are at the head of its migrations."""

import datetime
import decimal
import uuid
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


now = sa.func.now()
timestamp = sa.DateTime(timezone=True)
money = sa.Numeric(12, 2)


class Customer(Base):
    __tablename__ = "customer"

    id: Mapped[int] = mapped_column(primary_key=True)
    full_name: Mapped[str] = mapped_column(sa.String(161))
    email: Mapped[str] = mapped_column(sa.String(254))
    phone: Mapped[str | None] = mapped_column(sa.String(30), comment="As the customer wrote it.")
    locale: Mapped[str] = mapped_column(sa.String(10), server_default="en")
    created_at: Mapped[datetime.datetime] = mapped_column(timestamp, server_default=now)
    deleted_at: Mapped[datetime.datetime | None] = mapped_column(timestamp)

    __table_args__ = (
        sa.CheckConstraint("phone ~ '^[0-9 +()-]+$'", name="ck_customer_phone"),
        sa.Index(
            "uq_customer_email_alive",
            sa.text("lower(email)"),
            unique=True,
            postgresql_where=sa.text("deleted_at IS NULL"),
        ),
    )


class Category(Base):
    __tablename__ = "category"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(80))
    slug: Mapped[str] = mapped_column(sa.String(80), unique=True, index=True)
    parent_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("category.id", name="fk_category_parent", ondelete="SET NULL")
    )


class Product(Base):
    __tablename__ = "product"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(200), index=True)
    price: Mapped[decimal.Decimal] = mapped_column(money)
    weight: Mapped[float | None] = mapped_column(sa.Float)
    keywords: Mapped[list[str]] = mapped_column(postgresql.ARRAY(sa.Text), server_default=sa.text("'{}'"))
    category_id: Mapped[int | None] = mapped_column(sa.ForeignKey("category.id", name="fk_product_category"))
    updated_at: Mapped[datetime.datetime | None] = mapped_column(timestamp)

    __table_args__ = (
        sa.CheckConstraint("price >= 0", name="ck_product_price"),
        sa.CheckConstraint("weight > 0", name="ck_product_weight"),
        sa.Index("ix_product_keywords", "keywords", postgresql_using="gin"),
    )


class Label(Base):
    __tablename__ = "label"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(sa.String(40))

    __table_args__ = (sa.UniqueConstraint("text", name="uq_label_text"),)


product_label = sa.Table(
    "product_label",
    Base.metadata,
    sa.Column("product_id", sa.ForeignKey("product.id", name="fk_product_label_product", ondelete="CASCADE")),
    sa.Column("label_id", sa.ForeignKey("label.id", name="fk_product_label_label", ondelete="CASCADE")),
    sa.PrimaryKeyConstraint("product_id", "label_id", name="pk_product_label"),
)


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
    customer_id: Mapped[int] = mapped_column(sa.ForeignKey("customer.id", name="fk_orders_customer"))
    status: Mapped[str] = mapped_column(
        sa.Enum("cart", "paid", "shipped", "refunded", name="order_status"), server_default="cart"
    )
    created_at: Mapped[datetime.datetime] = mapped_column(timestamp, server_default=now)

    __table_args__ = (
        sa.Index("ix_orders_customer", "customer_id", sa.text("created_at DESC")),
        {"comment": "What customers buy, or are about to."},
    )


class OrderLine(Base):
    __tablename__ = "order_line"

    order_id: Mapped[int] = mapped_column(sa.ForeignKey("orders.id", name="fk_order_line_order", ondelete="CASCADE"))
    position: Mapped[int] = mapped_column(sa.SmallInteger)
    product_id: Mapped[int] = mapped_column(sa.ForeignKey("product.id", name="fk_order_line_product"))
    quantity: Mapped[int]
    unit_price: Mapped[decimal.Decimal] = mapped_column(money)
    total: Mapped[decimal.Decimal | None] = mapped_column(
        sa.Numeric(14, 2), sa.Computed("quantity * unit_price", persisted=True)
    )

    __table_args__ = (
        sa.PrimaryKeyConstraint("order_id", "position", name="pk_order_line"),
        sa.CheckConstraint("quantity > 0", name="ck_order_line_quantity"),
    )


class Event(Base):
    __tablename__ = "event"

    id: Mapped[int] = mapped_column(sa.BigInteger, sa.Identity(always=True), primary_key=True)
    happened_at: Mapped[datetime.datetime] = mapped_column(timestamp, server_default=now)
    kind: Mapped[str] = mapped_column(sa.String(40))
    detail: Mapped[dict[str, Any]] = mapped_column(postgresql.JSONB, server_default=sa.text("'{}'::jsonb"))

    __table_args__ = (
        sa.Index("ix_event_detail", "detail", postgresql_using="gin"),
        {"schema": "audit", "comment": "Who did what, when."},
    )


class Login(Base):
    __tablename__ = "login"

    customer_id: Mapped[int]
    at: Mapped[datetime.datetime] = mapped_column(timestamp, server_default=now)
    address: Mapped[str | None] = mapped_column(postgresql.INET)

    __table_args__ = (
        sa.PrimaryKeyConstraint("customer_id", "at", name="pk_login"),
        {"schema": "audit", "postgresql_partition_by": "RANGE (at)"},
    )


currency = postgresql.DOMAIN("currency", sa.CHAR(3), schema="billing", check="VALUE ~ '^[A-Z]{3}$'")
invoice_number = sa.Sequence("invoice_number", schema="billing", start=10000, increment=10, metadata=Base.metadata)


class Invoice(Base):
    __tablename__ = "invoice"

    number: Mapped[int] = mapped_column(
        sa.BigInteger, invoice_number, server_default=invoice_number.next_value(), primary_key=True
    )
    order_id: Mapped[int] = mapped_column(sa.ForeignKey("orders.id", name="fk_invoice_order"))
    issued_on: Mapped[datetime.date] = mapped_column(server_default=sa.func.current_date())
    currency: Mapped[str] = mapped_column(currency, server_default="EUR")

    __table_args__ = (sa.UniqueConstraint("order_id", name="uq_invoice_order"), {"schema": "billing"})


class Payment(Base):
    __tablename__ = "payment"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=sa.text("gen_random_uuid()"))
    invoice_number: Mapped[int] = mapped_column(
        sa.ForeignKey("billing.invoice.number", name="fk_payment_invoice", deferrable=True, initially="DEFERRED")
    )
    method: Mapped[str] = mapped_column(sa.Enum("cash", "card", "transfer", name="payment_method", schema="billing"))
    amount: Mapped[decimal.Decimal] = mapped_column(money)

    __table_args__ = (sa.CheckConstraint("amount <> 0", name="ck_payment_amount"), {"schema": "billing"})


def _makes(moment: str, target: sa.MetaData | sa.Table, *statements: str) -> None:
    for statement in statements:
        sa.event.listen(target, moment, sa.DDL(statement).execute_if(dialect="postgresql"))


_makes("before_create", Base.metadata, "CREATE EXTENSION IF NOT EXISTS citext")
_makes(
    "before_create",
    Product.__table__,
    "CREATE FUNCTION touch_updated_at() RETURNS trigger LANGUAGE plpgsql AS "
    "'BEGIN NEW.updated_at := clock_timestamp(); RETURN NEW; END'",
)
_makes(
    "after_create",
    Product.__table__,
    "CREATE TRIGGER product_touched BEFORE UPDATE ON product FOR EACH ROW EXECUTE FUNCTION touch_updated_at()",
)
_makes(
    "after_create",
    Event.__table__,
    "CREATE RULE history AS ON UPDATE TO audit.event DO INSTEAD NOTHING",
    "ALTER TABLE audit.event SET (fillfactor = 90)",
)
_makes("after_create", Payment.__table__, "CREATE POLICY paid ON billing.payment FOR SELECT USING (amount > 0)")
_makes(
    "after_create",
    Base.metadata,
    "CREATE OR REPLACE VIEW order_total AS SELECT orders.id AS order_id, status, sum(quantity * line.unit_price) total "
    "FROM orders JOIN order_line line ON line.order_id = orders.id GROUP BY orders.id",
    "COMMENT ON VIEW order_total IS 'What an order comes to.'",
    "CREATE VIEW billing.unpaid WITH (security_barrier) AS SELECT * FROM billing.invoice",
    "CREATE MATERIALIZED VIEW IF NOT EXISTS sales AS "
    "SELECT product_id, sum(quantity) AS sold FROM order_line GROUP BY 1",
    "CREATE UNIQUE INDEX sales_product ON sales (product_id)",
    "CREATE OR REPLACE FUNCTION billing.gross(net numeric, rate numeric DEFAULT 0.2) RETURNS numeric "
    "IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN net * (1 + rate); END$$",
    "CREATE PROCEDURE billing.remind() LANGUAGE sql AS 'UPDATE billing.payment SET amount = amount'",
    "CREATE AGGREGATE product_of(numeric) (SFUNC = numeric_mul, STYPE = numeric, INITCOND = '1')",
    "CREATE TYPE price_range AS RANGE (SUBTYPE = numeric)",
    "CREATE STATISTICS order_customers ON customer_id, status FROM orders",
    "CREATE COLLATION plain (LC_COLLATE = 'C', LC_CTYPE = 'C')",
)


@sa.event.listens_for(Base.metadata, "after_create")
def _size(target: sa.MetaData, connection: sa.Connection, **_: Any) -> None:
    """A type that is made where it is missing, as it is often written."""
    if not connection.scalar(sa.text("SELECT count(*) FROM pg_type WHERE typname = 'size'")):
        connection.execute(sa.text("CREATE TYPE size AS (width integer, height integer)"))
