"""The engine is made when it is first needed, from settings that are complete by then."""

import functools
from dataclasses import dataclass

from sqlalchemy import Engine, create_engine

from shop.models import Articles


@dataclass
class Settings:
    database_url: str = ""


settings = Settings()


@functools.cache
def engine() -> Engine:
    return create_engine(settings.database_url)


def articles() -> Articles:
    return Articles(engine())
