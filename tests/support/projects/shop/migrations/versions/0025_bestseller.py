"""Show the bestsellers."""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE MATERIALIZED VIEW bestseller AS
        SELECT product_id, sum(quantity) AS sold FROM order_line GROUP BY product_id WITH NO DATA
        """
    )
    op.execute("CREATE UNIQUE INDEX bestseller_product ON bestseller (product_id)")


def downgrade() -> None:
    op.execute("DROP MATERIALIZED VIEW bestseller")
