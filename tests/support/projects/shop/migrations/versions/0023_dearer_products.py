"""Make room for dearer products, below a view."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

ORDER_TOTAL = """
    CREATE VIEW order_total AS
    SELECT orders.id AS order_id, orders.status, sum(line.quantity * line.unit_price) AS total
    FROM orders JOIN order_line AS line ON line.order_id = orders.id
    GROUP BY orders.id
"""


def upgrade() -> None:
    op.execute("DROP VIEW order_total")
    op.alter_column("order_line", "unit_price", type_=sa.Numeric(12, 2), existing_type=sa.Numeric(10, 2))
    op.alter_column("product", "price", type_=sa.Numeric(12, 2), existing_type=sa.Numeric(10, 2))
    op.execute(ORDER_TOTAL)


def downgrade() -> None:
    op.execute("DROP VIEW order_total")
    op.alter_column("product", "price", type_=sa.Numeric(10, 2), existing_type=sa.Numeric(12, 2))
    op.alter_column("order_line", "unit_price", type_=sa.Numeric(10, 2), existing_type=sa.Numeric(12, 2))
    op.execute(ORDER_TOTAL)
