"""Send invoices in the customer's currency."""

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE DOMAIN billing.currency AS char(3) CHECK (VALUE ~ '^[A-Z]{3}$')")
    op.execute("ALTER TABLE billing.invoice ADD COLUMN currency billing.currency DEFAULT 'EUR' NOT NULL")


def downgrade() -> None:
    op.drop_column("invoice", "currency", schema="billing")
    op.execute("DROP DOMAIN billing.currency")
