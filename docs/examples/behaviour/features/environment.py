from bank import Account, Base, engine
from behave.model import Scenario
from behave.runner import Context

from dbtestcase import DatabaseTest, Life


class Bank(DatabaseTest):
    metadata = Base.metadata
    engines = [engine]

    @classmethod
    def setUpTestData(cls) -> None:  # for all scenarios
        cls.session.add(Account(owner="the bank", balance=1000))


life = Life(Bank)


def before_all(context: Context) -> None:
    life.begin_class()


def before_scenario(context: Context, scenario: Scenario) -> None:
    context.db = life.begin_test(scenario.name)


def after_scenario(context: Context, scenario: Scenario) -> None:
    # what a failing step raised gets the statements of the scenario; what was left behind is an error of this hook
    life.end_test(next((step.exception for step in scenario.steps if step.exception), None))


def after_all(context: Context) -> None:
    life.end_class()
