"""Keep deleted customers; their addresses may be taken again."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("customer", sa.Column("deleted_at", sa.DateTime(timezone=True)))
    op.drop_constraint("customer_email_unique", "customer", type_="unique")
    op.create_index(
        "uq_customer_email_alive",
        "customer",
        [sa.text("lower(email)")],
        unique=True,
        postgresql_where=sa.text("deleted_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("uq_customer_email_alive", table_name="customer")
    op.create_unique_constraint("customer_email_unique", "customer", ["email"])
    op.drop_column("customer", "deleted_at")
