"""Dishka: the container makes the engine, and ends it."""

from collections.abc import Iterator

from dishka import Provider, Scope, make_container, provide
from sqlalchemy import Engine, create_engine

from shop.models import Articles


class Database(Provider):
    scope = Scope.APP

    @provide
    def engine(self) -> Iterator[Engine]:
        engine = create_engine("postgresql+psycopg://shop@db.example.com/shop")
        yield engine
        engine.dispose()

    articles = provide(Articles)


container = make_container(Database())
