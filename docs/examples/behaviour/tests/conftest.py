from bank import Account, Base, engine

from dbtestcase import DatabaseTest
from dbtestcase.pytest_plugin import database_fixture


class Bank(DatabaseTest):
    metadata = Base.metadata
    engines = [engine]

    @classmethod
    def setUpTestData(cls) -> None:  # for all scenarios
        cls.session.add(Account(owner="the bank", balance=1000))


db = database_fixture(Bank, autouse=True)  # steps that use the application alone name no fixture
