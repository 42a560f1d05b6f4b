"""dependency-injector: a singleton."""

from dependency_injector import containers, providers
from sqlalchemy import create_engine

from shop.models import Articles


class Container(containers.DeclarativeContainer):
    config = providers.Configuration(default={"url": "postgresql+psycopg://shop@db.example.com/shop"})
    engine = providers.Singleton(create_engine, config.url)
    articles = providers.Factory(Articles, engine)


container = Container()
