"""Send invoices, with numbers of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE SCHEMA billing")
    op.execute(sa.schema.CreateSequence(sa.Sequence("invoice_number", schema="billing", start=10000, increment=10)))
    op.create_table(
        "invoice",
        sa.Column(
            "number", sa.BigInteger, server_default=sa.text("nextval('billing.invoice_number')"), primary_key=True
        ),
        sa.Column("order_id", sa.BigInteger, sa.ForeignKey("orders.id", name="fk_invoice_order"), nullable=False),
        sa.Column("issued_on", sa.Date, server_default=sa.text("CURRENT_DATE"), nullable=False),
        sa.UniqueConstraint("order_id", name="uq_invoice_order"),
        schema="billing",
    )


def downgrade() -> None:
    op.drop_table("invoice", schema="billing")
    op.execute("DROP SEQUENCE billing.invoice_number")
    op.execute("DROP SCHEMA billing")
