from click.testing import CliRunner
from shop import Base, Order, engine
from shop.commands import app, send_all
from shop.tasks import app as celery
from typer.testing import CliRunner as TyperRunner

from dbtestcase import DatabaseTest


class CommandTest(DatabaseTest):
    metadata = Base.metadata
    engines = [engine]

    def setUp(self) -> None:
        celery.conf.update(task_always_eager=True, task_eager_propagates=True)

    def test_order(self) -> None:
        result = TyperRunner().invoke(app, ["tea"], catch_exceptions=False)
        self.assertIn("ordered: tea", result.output)
        self.assertRowCount(Order, 1)

    def test_send_all(self) -> None:
        with self.session_scope() as session:
            session.add_all([Order(article="tea"), Order(article="milk")])
        CliRunner().invoke(send_all, ["--dry-run"], catch_exceptions=False)
        self.assertRowCount(Order, 0, Order.is_sent)
        result = CliRunner().invoke(send_all, catch_exceptions=False)
        self.assertEqual((result.exit_code, result.output), (0, "2 orders\n"))
        self.assertRowCount(Order, 2, Order.is_sent)
