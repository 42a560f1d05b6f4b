"""The views use db.session, which Flask-SQLAlchemy removes after each request."""

from typing import Any

from flask import Blueprint, abort, request
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import joinedload, selectinload

from .models import AuditEntry, Customer, Line, Order, db

Json = dict[str, Any]
views = Blueprint("views", __name__)


def _as_json(order: Order) -> Json:
    return {
        "id": order.id,
        "customer": order.customer.name,
        "lines": [{"article": line.article, "quantity": line.quantity} for line in order.lines],
    }


@views.post("/orders")
def place_order() -> tuple[Json, int]:
    order = Order(customer=db.get_or_404(Customer, request.get_json()["customer_id"]))
    order.lines = [Line(**line) for line in request.get_json()["lines"]]
    db.session.add_all([order, AuditEntry(what=f"{order.customer.name} orders {len(order.lines)} articles")])
    try:
        db.session.commit()
    except IntegrityError:
        db.session.rollback()
        abort(422)
    return _as_json(order), 201


@views.get("/orders/<int:order_id>")
def show_order(order_id: int) -> Json:
    return _as_json(db.get_or_404(Order, order_id))


@views.get("/orders")
def list_orders() -> list[Json]:
    orders = db.session.scalars(select(Order).order_by(Order.id))
    return [_as_json(order) for order in orders]


@views.get("/report")
def report() -> list[Json]:
    orders = db.session.scalars(
        select(Order).options(joinedload(Order.customer), selectinload(Order.lines)).order_by(Order.id)
    )
    return [_as_json(order) for order in orders]
