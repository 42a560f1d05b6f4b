"""Call a product's title its name, as everybody does."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.alter_column("product", "title", new_column_name="name")
    op.execute("ALTER INDEX ix_product_title RENAME TO ix_product_name")


def downgrade() -> None:
    op.execute("ALTER INDEX ix_product_name RENAME TO ix_product_title")
    op.alter_column("product", "name", new_column_name="title")
