"""Compute the total of a line."""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "order_line", sa.Column("total", sa.Numeric(14, 2), sa.Computed("quantity * unit_price", persisted=True))
    )


def downgrade() -> None:
    op.drop_column("order_line", "total")
