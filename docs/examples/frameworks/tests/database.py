from shop import Article, Base, engine

from dbtestcase import DatabaseTest, Life


class Shop(DatabaseTest):
    metadata = Base.metadata
    engines = [engine]
    tea: Article

    @classmethod
    def setUpTestData(cls) -> None:
        cls.tea = Article(name="tea")
        cls.session.add(cls.tea)


life = Life(Shop)
