"""Say what the tables are for."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table_comment("orders", "What customers buy, or are about to.")
    op.create_table_comment("event", "Who did what, when.", schema="audit")
    op.alter_column("customer", "phone", comment="As the customer wrote it.", existing_type=sa.String(30))


def downgrade() -> None:
    op.alter_column(
        "customer", "phone", comment=None, existing_comment="As the customer wrote it.", existing_type=sa.String(30)
    )
    op.drop_table_comment("event", schema="audit")
    op.drop_table_comment("orders")
