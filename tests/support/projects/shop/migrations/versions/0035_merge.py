"""Merge the work of two branches."""

revision = "0035"
down_revision = ("0033", "0034")
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
