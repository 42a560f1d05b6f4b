"""Speak the customer's language."""

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("customer", sa.Column("locale", sa.String(10), server_default="en", nullable=False))


def downgrade() -> None:
    op.drop_column("customer", "locale")
