"""Give categories an address."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("category", sa.Column("slug", sa.String(80)))
    op.execute("UPDATE category SET slug = lower(regexp_replace(name, '[^a-zA-Z0-9]+', '-', 'g'))")
    op.alter_column("category", "slug", nullable=False)
    op.create_index("ix_category_slug", "category", ["slug"], unique=True)


def downgrade() -> None:
    op.drop_index("ix_category_slug", table_name="category")
    op.drop_column("category", "slug")
