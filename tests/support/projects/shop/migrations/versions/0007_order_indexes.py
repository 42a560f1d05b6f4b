"""Find the orders of a customer, newest first."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_orders_customer", "orders", ["customer_id", sa.text("created_at DESC")])


def downgrade() -> None:
    op.drop_index("ix_orders_customer", table_name="orders")
