"""Refuse empty order lines."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("DELETE FROM order_line WHERE quantity <= 0")
    op.execute("ALTER TABLE order_line ADD CONSTRAINT ck_order_line_quantity CHECK (quantity > 0) NOT VALID")
    op.execute("ALTER TABLE order_line VALIDATE CONSTRAINT ck_order_line_quantity")


def downgrade() -> None:
    op.drop_constraint("ck_order_line_quantity", "order_line", type_="check")
