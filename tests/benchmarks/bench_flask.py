"""A Flask application like a real one: python -m tests.benchmarks.bench_flask

40 endpoints behind ten layers of decorators, Flask-SQLAlchemy, tests that each send some 60 statements through the test
client; by psycopg and by psycopg2; beside the same suite on an outer transaction made by hand, where Flask-SQLAlchemy's
sessions join one connection.  Time of the client's process on the processor: many short runs in pairs, now the one
first and now the other, since a single run of either varies by a tenth.
"""

from __future__ import annotations

import statistics
import tempfile
from functools import partial
from pathlib import Path

from tests.benchmarks.measure import finish, print_table, printed_seconds, shared_server, verdict
from tests.support.runners import write_suite

TESTS, PAIRS = 40, 15

PROGRAMS = {
    "shop.py": """
        import functools
        from flask import Flask, jsonify, request
        from flask_sqlalchemy import SQLAlchemy
        from sqlalchemy import func, select

        db = SQLAlchemy()

        class Customer(db.Model):
            id = db.Column(db.Integer, primary_key=True)
            name = db.Column(db.String(80), nullable=False)
            email = db.Column(db.String(120), unique=True)
            orders = db.relationship("Order", back_populates="customer")

        class Order(db.Model):
            id = db.Column(db.Integer, primary_key=True)
            customer_id = db.Column(db.ForeignKey("customer.id"), nullable=False)
            state = db.Column(db.String(20), default="new")
            customer = db.relationship("Customer", back_populates="orders")
            lines = db.relationship("Line", back_populates="order")

        class Line(db.Model):
            id = db.Column(db.Integer, primary_key=True)
            order_id = db.Column(db.ForeignKey("order.id"), nullable=False)
            article = db.Column(db.String(40))
            pieces = db.Column(db.Integer)
            order = db.relationship("Order", back_populates="lines")

        def layered(view):
            def layer(inner):
                @functools.wraps(inner)
                def outer(*args, **kwargs):
                    return inner(*args, **kwargs)
                return outer
            for _ in range(10):
                view = layer(view)
            return view

        def make_app(url, **options):
            app = Flask("shop")
            app.config.update(SQLALCHEMY_DATABASE_URI=url, TESTING=True, **options)
            db.init_app(app)
            for number in range(10):
                add_views(app, f"/v{number}")
            return app

        def add_views(app, prefix):
            @app.post(f"{prefix}/customers", endpoint=f"{prefix}-create".replace("/", ""))
            @layered
            def create():
                customer = Customer(name=request.json["name"], email=request.json["email"])
                db.session.add(customer)
                db.session.commit()
                return jsonify(id=customer.id), 201

            @app.get(f"{prefix}/customers/<int:number>", endpoint=f"{prefix}-read".replace("/", ""))
            @layered
            def read(number):
                customer = db.get_or_404(Customer, number)
                return jsonify(name=customer.name, orders=[[line.article for line in o.lines] for o in customer.orders])

            @app.post(f"{prefix}/customers/<int:number>/orders", endpoint=f"{prefix}-order".replace("/", ""))
            @layered
            def order(number):
                customer = db.get_or_404(Customer, number)
                made = Order(customer=customer, lines=[Line(article=f"a{n}", pieces=n) for n in range(3)])
                db.session.add(made)
                db.session.commit()
                made.state = "paid"
                db.session.commit()
                return jsonify(id=made.id, lines=len(made.lines)), 201

            @app.get(f"{prefix}/report", endpoint=f"{prefix}-report".replace("/", ""))
            @layered
            def report():
                states = db.session.execute(select(Order.state, func.count()).group_by(Order.state)).all()
                pieces = db.session.scalar(select(func.sum(Line.pieces)))
                return jsonify(states=[list(each) for each in states], pieces=pieces)
        """,
    "suite.py": """
        import sys, time, unittest

        def check(self):
            client = self.app.test_client()
            prefix = f"/v{self.number % 10}"
            for n in range(5):
                email = f"{n}@example.org"
                made = client.post(f"{prefix}/customers", json={"name": "Ada", "email": email})
                self.assertEqual(made.status_code, 201)
                url = f"{prefix}/customers/{made.json['id']}"
                self.assertEqual(client.post(f"{url}/orders").json["lines"], 3)
                self.assertEqual(client.get(url).json["orders"], [["a0", "a1", "a2"]])
            self.assertEqual(client.get(f"{prefix}/report").json, {"states": [["paid", 5]], "pieces": 15})

        def run(base, count):
            made = type("ShopTest", (base,), {f"test_{n:03}": numbered(n) for n in range(count)})
            suites = [unittest.TestSuite([made("test_000")]), unittest.defaultTestLoader.loadTestsFromTestCase(made)]
            for suite in suites:
                result = unittest.TestResult()
                started = time.process_time()
                suite.run(result)
                seconds = time.process_time() - started
                assert result.wasSuccessful(), (result.errors + result.failures)[0][1]
            print(seconds)

        def numbered(number):
            def test(self):
                self.number = number
                check(self)
            return test
        """,
    "ours.py": """
        import sys
        from dbtestcase import DatabaseTest
        from shop import db, make_app
        from suite import run

        app = make_app(f"postgresql+{sys.argv[1]}://nowhere/shop")

        class Base(DatabaseTest):
            metadata = db.metadata
            with app.app_context():
                engines = [db.engine]
            app = app

        run(Base, int(sys.argv[2]))
        """,
    "by_hand.py": """
        import os, sys, unittest
        from sqlalchemy import create_engine
        from sqlalchemy.orm import scoped_session, sessionmaker
        from shop import db, make_app
        from suite import run

        url = os.environ["SCRATCH"].replace("+psycopg:", f"+{sys.argv[1]}:")
        app = make_app(url)
        with app.app_context():
            db.create_all()
            engine = db.engine

        class Base(unittest.TestCase):
            app = app
            def setUp(self):
                self.connection = engine.connect()
                self.transaction = self.connection.begin()
                options = {"bind": self.connection, "join_transaction_mode": "create_savepoint"}
                self.session, db.session = db.session, scoped_session(sessionmaker(**options))
            def tearDown(self):
                db.session.remove()
                db.session = self.session
                self.transaction.rollback()
                self.connection.close()

        run(Base, int(sys.argv[2]))
        """,
}


def main() -> None:
    kept = []
    with shared_server() as (server, environment), tempfile.TemporaryDirectory() as name:
        folder = write_suite(Path(name), PROGRAMS)
        measure = partial(printed_seconds, folder=folder, env=environment)
        for driver in ("psycopg", "psycopg2"):
            found: list[tuple[float, float]] = []
            for number in range(PAIRS):  # each warms up by itself
                programs = ("ours.py", "by_hand.py") if number % 2 else ("by_hand.py", "ours.py")
                pair = {program: measure([program, driver, str(TESTS)]) / TESTS for program in programs}
                found.append((pair["ours.py"], pair["by_hand.py"]))
            ours, by_hand = (statistics.median(each) for each in zip(*found, strict=True))
            print_table(
                f"a test of a Flask application, {driver}; PostgreSQL {server.version}; median of {PAIRS}",
                [("DatabaseTest", ours, ""), ("outer transaction by hand", by_hand, "")],
                "ms",
            )
            lower, ratio, upper = statistics.quantiles((a / b for a, b in found), n=4)
            kept.append(verdict(f"{driver}, share of the transaction by hand", ratio, 1.03))
            print(f"          half of the pairs lie between {lower:.3f} and {upper:.3f}")
    finish(kept)


if __name__ == "__main__":
    main()
