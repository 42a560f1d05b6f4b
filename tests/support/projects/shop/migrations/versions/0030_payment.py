"""Take payments, booked against an invoice by the end of the transaction."""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "payment",
        sa.Column("id", sa.Uuid, server_default=sa.text("gen_random_uuid()"), primary_key=True),
        sa.Column("invoice_number", sa.BigInteger, nullable=False),
        sa.Column("method", sa.Enum("card", "transfer", name="payment_method", schema="billing"), nullable=False),
        sa.Column("amount", sa.Numeric(12, 2), nullable=False),
        sa.CheckConstraint("amount <> 0", name="ck_payment_amount"),
        sa.ForeignKeyConstraint(
            ["invoice_number"],
            ["billing.invoice.number"],
            name="fk_payment_invoice",
            deferrable=True,
            initially="DEFERRED",
        ),
        schema="billing",
    )


def downgrade() -> None:
    op.drop_table("payment", schema="billing")
    op.execute("DROP TYPE billing.payment_method")
