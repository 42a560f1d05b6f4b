"""Keep an audit trail in a schema of its own."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE SCHEMA audit")
    op.create_table(
        "event",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("happened_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("detail", postgresql.JSONB, server_default=sa.text("'{}'::jsonb"), nullable=False),
        schema="audit",
    )
    op.create_index("ix_event_detail", "event", ["detail"], schema="audit", postgresql_using="gin")


def downgrade() -> None:
    op.drop_table("event", schema="audit")
    op.execute("DROP SCHEMA audit")
