"""Search products by keyword."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "product", sa.Column("keywords", postgresql.ARRAY(sa.Text), server_default=sa.text("'{}'"), nullable=False)
    )
    with op.get_context().autocommit_block():
        op.create_index(
            "ix_product_keywords",
            "product",
            ["keywords"],
            postgresql_using="gin",
            postgresql_concurrently=True,
            if_not_exists=True,
        )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("ix_product_keywords", table_name="product", postgresql_concurrently=True, if_exists=True)
    op.drop_column("product", "keywords")
