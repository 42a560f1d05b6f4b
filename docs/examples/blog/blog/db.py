"""The application's own engine and session factory, made when the application is imported."""

import os

from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

engine = create_engine(os.environ.get("BLOG_DATABASE_URL", "postgresql+psycopg://localhost/blog"))
Session = sessionmaker(engine)
