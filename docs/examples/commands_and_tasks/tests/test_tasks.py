from shop import Base, Order, engine
from shop.tasks import Unknown, app, send, send_patiently

from dbtestcase import DatabaseTest


class TaskTest(DatabaseTest):
    metadata = Base.metadata
    engines = [engine]
    tea: Order

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        app.conf.update(task_always_eager=True, task_eager_propagates=True)

    @classmethod
    def setUpTestData(cls) -> None:
        cls.tea = Order(article="tea")
        cls.session.add(cls.tea)

    def test_a_task(self) -> None:
        send.delay(self.tea.id)
        self.assertRowCount(Order, 1, Order.is_sent)

    def test_a_task_that_fails(self) -> None:
        with self.assertRaises(Unknown):
            send.delay(-1)
        self.assertRowCount(Order, 0, Order.is_sent)

    def test_a_task_that_is_tried_again(self) -> None:
        send_patiently.delay(self.tea.id)
        self.assertRowCount(Order, 1, Order.is_sent)
