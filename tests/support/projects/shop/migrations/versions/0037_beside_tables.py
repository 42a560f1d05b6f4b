"""What stands beside the tables: the models say all of it but the use of labels."""

from alembic import op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE EXTENSION citext")
    op.execute(
        """
        CREATE MATERIALIZED VIEW sales AS
        SELECT product_id, sum(quantity) AS sold FROM order_line GROUP BY product_id
        """
    )
    op.execute("CREATE UNIQUE INDEX sales_product ON sales (product_id)")
    op.execute("CREATE VIEW billing.unpaid WITH (security_barrier) AS SELECT * FROM billing.invoice")
    op.execute("CREATE VIEW label_use AS SELECT label_id, count(*) FROM product_label GROUP BY label_id")
    op.execute(
        """
        create function billing.gross(net numeric, rate numeric = 0.2) returns numeric
        language plpgsql immutable as $$
        begin  -- with tax
            return net * (1 + rate);
        end $$
        """
    )
    op.execute("CREATE PROCEDURE billing.remind() LANGUAGE sql AS 'UPDATE billing.payment SET amount = amount'")
    op.execute("CREATE AGGREGATE product_of(numeric) (SFUNC = numeric_mul, STYPE = numeric, INITCOND = '1')")
    op.execute("CREATE POLICY paid ON billing.payment FOR SELECT USING (amount > 0)")
    op.execute("CREATE RULE history AS ON UPDATE TO audit.event DO INSTEAD NOTHING")
    op.execute("ALTER TABLE audit.event SET (fillfactor = 90)")
    op.execute("CREATE TYPE size AS (width integer, height integer)")
    op.execute("CREATE TYPE price_range AS RANGE (SUBTYPE = numeric)")
    op.execute("CREATE STATISTICS order_customers ON customer_id, status FROM orders")
    op.execute("CREATE COLLATION plain (LC_COLLATE = 'C', LC_CTYPE = 'C')")
    op.execute("COMMENT ON VIEW order_total IS 'What an order comes to.'")


def downgrade() -> None:
    op.execute("COMMENT ON VIEW order_total IS NULL")
    op.execute("DROP COLLATION plain")
    op.execute("DROP STATISTICS order_customers")
    op.execute("DROP TYPE price_range")
    op.execute("DROP TYPE size")
    op.execute("ALTER TABLE audit.event RESET (fillfactor)")
    op.execute("DROP RULE history ON audit.event")
    op.execute("DROP POLICY paid ON billing.payment")
    op.execute("DROP AGGREGATE product_of(numeric)")
    op.execute("DROP PROCEDURE billing.remind()")
    op.execute("DROP FUNCTION billing.gross(numeric, numeric)")
    op.execute("DROP VIEW label_use")
    op.execute("DROP VIEW billing.unpaid")
    op.execute("DROP MATERIALIZED VIEW sales")
    op.execute("DROP EXTENSION citext")
