"""The engine is made when this module is imported, from a variable that has to be there."""

import os

from sqlalchemy import create_engine

from shop.models import Articles

engine = create_engine(os.environ["SHOP_DATABASE_URL"])
articles = Articles(engine)
