"""Weigh products, for the postage."""

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0032"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("product", sa.Column("weight", sa.Float))
    op.create_check_constraint("ck_product_weight", "product", "weight > 0")


def downgrade() -> None:
    op.drop_constraint("ck_product_weight", "product", type_="check")
    op.drop_column("product", "weight")
