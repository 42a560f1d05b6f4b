"""Take cash too, first in the list: the type is made again."""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def _replace_type(*values: str) -> None:
    op.execute("ALTER TYPE billing.payment_method RENAME TO payment_method_old")
    sa.Enum(*values, name="payment_method", schema="billing").create(op.get_bind())
    op.execute(
        "ALTER TABLE billing.payment ALTER COLUMN method TYPE billing.payment_method "
        "USING method::text::billing.payment_method"
    )
    op.execute("DROP TYPE billing.payment_method_old")


def upgrade() -> None:
    _replace_type("cash", "card", "transfer")


def downgrade() -> None:
    op.execute("UPDATE billing.payment SET method = 'transfer' WHERE method = 'cash'")
    _replace_type("card", "transfer")
