"""Drop first and last names."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_column("customer", "first_name")
    op.drop_column("customer", "last_name")


def downgrade() -> None:
    op.add_column("customer", sa.Column("first_name", sa.String(80)))
    op.add_column("customer", sa.Column("last_name", sa.String(80)))
    customer = sa.table(
        "customer", sa.column("id"), sa.column("full_name"), sa.column("first_name"), sa.column("last_name")
    )
    connection = op.get_bind()
    for row in connection.execute(sa.select(customer.c.id, customer.c.full_name)).all():
        first, _, last = row.full_name.partition(" ")
        connection.execute(customer.update().where(customer.c.id == row.id).values(first_name=first, last_name=last))
    op.alter_column("customer", "first_name", nullable=False)
    op.alter_column("customer", "last_name", nullable=False)
