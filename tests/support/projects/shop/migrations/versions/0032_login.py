"""Remember who logged in, a partition for each year."""

from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE audit.login (
            customer_id integer NOT NULL,
            at timestamp with time zone NOT NULL DEFAULT now(),
            address inet,
            CONSTRAINT pk_login PRIMARY KEY (customer_id, at)
        ) PARTITION BY RANGE (at)
        """
    )
    op.execute(
        "CREATE TABLE audit.login_2024 PARTITION OF audit.login FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')"
    )
    op.execute("CREATE TABLE audit.login_later PARTITION OF audit.login DEFAULT")


def downgrade() -> None:
    op.execute("DROP TABLE audit.login")
