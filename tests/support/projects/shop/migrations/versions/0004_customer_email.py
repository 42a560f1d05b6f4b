"""Let an address belong to one customer."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_unique_constraint("customer_email_unique", "customer", ["email"])


def downgrade() -> None:
    op.drop_constraint("customer_email_unique", "customer", type_="unique")
