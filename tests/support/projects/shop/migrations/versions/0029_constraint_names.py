"""Name constraints by one convention."""

from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE label RENAME CONSTRAINT label_text_key TO uq_label_text")
    op.execute("ALTER TABLE product_labels RENAME TO product_label")
    op.execute("ALTER TABLE product_label RENAME CONSTRAINT product_labels_pkey TO pk_product_label")
    op.execute("ALTER TABLE product_label RENAME CONSTRAINT product_labels_product_id_fkey TO fk_product_label_product")
    op.execute("ALTER TABLE product_label RENAME CONSTRAINT product_labels_label_id_fkey TO fk_product_label_label")


def downgrade() -> None:
    op.execute("ALTER TABLE product_label RENAME CONSTRAINT fk_product_label_label TO product_labels_label_id_fkey")
    op.execute("ALTER TABLE product_label RENAME CONSTRAINT fk_product_label_product TO product_labels_product_id_fkey")
    op.execute("ALTER TABLE product_label RENAME CONSTRAINT pk_product_label TO product_labels_pkey")
    op.execute("ALTER TABLE product_label RENAME TO product_labels")
    op.execute("ALTER TABLE label RENAME CONSTRAINT uq_label_text TO label_text_key")
