"""Add categories, which form a tree."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "category",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column(
            "parent_id", sa.Integer, sa.ForeignKey("category.id", name="fk_category_parent", ondelete="SET NULL")
        ),
    )
    op.add_column("product", sa.Column("category_id", sa.Integer))
    op.create_foreign_key("fk_product_category", "product", "category", ["category_id"], ["id"])


def downgrade() -> None:
    op.drop_constraint("fk_product_category", "product", type_="foreignkey")
    op.drop_column("product", "category_id")
    op.drop_table("category")
