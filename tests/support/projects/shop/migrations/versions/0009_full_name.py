"""Join first and last names into one."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("customer", sa.Column("full_name", sa.String(161)))
    op.execute("UPDATE customer SET full_name = first_name || ' ' || last_name")
    op.alter_column("customer", "full_name", nullable=False)


def downgrade() -> None:
    op.drop_column("customer", "full_name")
