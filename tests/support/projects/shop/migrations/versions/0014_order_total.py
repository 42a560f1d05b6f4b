"""Show what an order comes to."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE VIEW order_total AS
        SELECT orders.id AS order_id, orders.status, sum(line.quantity * line.unit_price) AS total
        FROM orders JOIN order_line AS line ON line.order_id = orders.id
        GROUP BY orders.id
        """
    )


def downgrade() -> None:
    op.execute("DROP VIEW order_total")
