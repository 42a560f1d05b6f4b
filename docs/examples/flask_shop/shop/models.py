"""The tables: orders and their lines in the main database, the audit trail in its own."""

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import CheckConstraint, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column, relationship

db = SQLAlchemy()


class Customer(db.Model):
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


class Order(db.Model):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id"))
    customer: Mapped[Customer] = relationship()
    lines: Mapped[list["Line"]] = relationship(order_by="Line.id")


class Line(db.Model):
    __table_args__ = (CheckConstraint("quantity > 0", name="something_is_ordered"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))
    article: Mapped[str]
    quantity: Mapped[int]


class AuditEntry(db.Model):
    __bind_key__ = "audit"

    id: Mapped[int] = mapped_column(primary_key=True)
    what: Mapped[str]
