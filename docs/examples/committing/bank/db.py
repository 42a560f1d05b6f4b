"""The engine of production."""

from sqlalchemy import create_engine

engine = create_engine("postgresql+psycopg://bank@db.internal/bank", pool_size=5, pool_pre_ping=True)
