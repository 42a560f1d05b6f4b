from unittest import mock

from shop import by_dependency_injector, by_dishka, by_environment, by_settings
from shop.models import Article, Articles, Base
from sqlalchemy import Engine

from dbtestcase import DatabaseTest


class EnvironmentTest(DatabaseTest):
    metadata = Base.metadata
    engines = [by_environment.engine]

    def articles(self) -> Articles:
        return by_environment.articles

    def test_add(self) -> None:
        self.articles().add("tea")
        self.assertEqual(self.articles().names(), ["tea"])
        self.assertRowCount(Article, 1)

    def test_nothing_is_left(self) -> None:
        self.assertEqual(self.articles().names(), [])


class DishkaTest(EnvironmentTest):
    engines = [lambda: by_dishka.container.get(Engine)]

    def articles(self) -> Articles:
        return by_dishka.container.get(Articles)


class DependencyInjectorTest(EnvironmentTest):
    engines = [lambda: by_dependency_injector.container.engine()]

    def articles(self) -> Articles:
        return by_dependency_injector.container.articles()


class SettingsTest(EnvironmentTest):
    """The settings get the URL of the test database before the engine exists: it needs no name in ``engines``."""

    engines = []

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.enterClassContext(mock.patch.object(by_settings.settings, "database_url", cls.database_url))
        cls.addClassCleanup(by_settings.engine.cache_clear)

    def articles(self) -> Articles:
        return by_settings.articles()
