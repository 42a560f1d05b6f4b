"""Let an order begin as a cart, now."""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.alter_column("orders", "status", server_default=sa.text("'cart'"))
    op.alter_column("orders", "created_at", server_default=sa.func.now())


def downgrade() -> None:
    op.alter_column("orders", "created_at", server_default=None)
    op.alter_column("orders", "status", server_default=None)
