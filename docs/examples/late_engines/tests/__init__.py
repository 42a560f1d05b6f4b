"""What the application's modules ask for when they are imported.  Nobody connects there."""

import os

os.environ.setdefault("SHOP_DATABASE_URL", "postgresql+psycopg://nobody@nowhere.invalid/shop")
