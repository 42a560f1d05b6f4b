"""Two databases in production, one in the tests: both engines of the application lead to it."""

from collections.abc import Mapping

from shop import create_app
from shop.models import AuditEntry, Customer, Line, Order, db
from sqlalchemy import Engine
from werkzeug.test import TestResponse

from dbtestcase import DatabaseTest

app = create_app()


def engines_by_bind() -> Mapping[str | None, Engine]:
    with app.app_context():
        return db.engines


class ShopTest(DatabaseTest):
    metadata = [db.metadata, db.metadatas["audit"]]
    engines = engines_by_bind
    ada: Customer

    @classmethod
    def setUpTestData(cls) -> None:
        cls.ada = Customer(name="Ada")
        cls.session.add(cls.ada)

    def setUp(self) -> None:
        self.client = app.test_client()

    def order(self, article: str = "tea", quantity: int = 1) -> TestResponse:
        lines = [{"article": article, "quantity": quantity}]
        return self.client.post("/orders", json={"customer_id": self.ada.id, "lines": lines})


class PlaceOrderTest(ShopTest):
    def test_an_order_is_placed_and_written_to_the_audit_trail(self) -> None:
        self.assertEqual(self.order().status_code, 201)
        self.assertRowCount(Order, 1)
        self.assertRowCount(Line, 1, Line.article == "tea")
        self.assertRowCount(AuditEntry, 1, AuditEntry.what == "Ada orders 1 articles")

    def test_the_next_request_sees_what_the_one_before_committed(self) -> None:
        placed = self.order().get_json()
        self.assertEqual(self.client.get(f"/orders/{placed['id']}").json, placed)

    def test_an_order_that_the_database_refuses_leaves_nothing(self) -> None:
        self.assertEqual(self.order(quantity=0).status_code, 422)
        self.assertRowCount(Order, 0)
        self.assertRowCount(AuditEntry, 0)

    def test_an_unknown_customer_is_not_found(self) -> None:
        answer = self.client.post("/orders", json={"customer_id": self.ada.id + 1, "lines": []})
        self.assertEqual(answer.status_code, 404)


class ListOrdersTest(ShopTest):
    @classmethod
    def setUpTestData(cls) -> None:
        super().setUpTestData()
        for customer in (cls.ada, Customer(name="Grace"), Customer(name="Edsger")):
            cls.session.add(Order(customer=customer, lines=[Line(article="tea", quantity=1)]))

    def test_the_report_asks_for_everything_at_once(self) -> None:
        with self.assertNoRepeatedQueries():
            self.assertEqual(len(self.client.get("/report").get_json()), 3)

    def test_the_list_asks_again_for_every_order(self) -> None:
        """The N+1 of ``list_orders``, found, with the line of the application that makes it."""
        with self.assertRaises(AssertionError) as caught:
            with self.assertNoRepeatedQueries():
                self.client.get("/orders")
        self.assertIn("views.py", str(caught.exception))
