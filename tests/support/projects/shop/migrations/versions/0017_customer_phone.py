"""Ask for a telephone number; allow for longer addresses."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("customer") as batch:
        batch.add_column(sa.Column("phone", sa.String(30)))
        batch.alter_column("email", type_=sa.String(254), existing_type=sa.String(120), existing_nullable=False)
        batch.create_check_constraint("ck_customer_phone", "phone ~ '^[0-9 +()-]+$'")


def downgrade() -> None:
    with op.batch_alter_table("customer") as batch:
        batch.drop_constraint("ck_customer_phone", type_="check")
        batch.alter_column("email", type_=sa.String(120), existing_type=sa.String(254), existing_nullable=False)
        batch.drop_column("phone")
