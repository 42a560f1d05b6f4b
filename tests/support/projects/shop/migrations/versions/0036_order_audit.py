"""Log every change of an order's status; nobody read the bestsellers."""

from alembic import op

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("DROP MATERIALIZED VIEW bestseller")
    op.execute(
        """
        CREATE FUNCTION audit.order_changed() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO audit.event (kind, detail)
            VALUES ('order ' || NEW.status, jsonb_build_object('order', NEW.id, 'before', OLD.status));
            RETURN NULL;
        END
        $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER order_changed AFTER UPDATE OF status ON orders FOR EACH ROW
        WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION audit.order_changed()
        """
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER order_changed ON orders")
    op.execute("DROP FUNCTION audit.order_changed()")
    op.execute(
        """
        CREATE MATERIALIZED VIEW bestseller AS
        SELECT product_id, sum(quantity) AS sold FROM order_line GROUP BY product_id WITH NO DATA
        """
    )
    op.execute("CREATE UNIQUE INDEX bestseller_product ON bestseller (product_id)")
