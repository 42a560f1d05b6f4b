import pytest
from bank import Account, balance_of, sessions, transfer
from pytest_bdd import given, parsers, scenarios, then, when
from sqlalchemy.exc import IntegrityError

from .conftest import Bank

scenarios("../features/transfer.feature")


@given(parsers.parse("{owner} has {amount:d}"))
def has(owner: str, amount: int) -> None:
    with sessions.begin() as session:
        session.add(Account(owner=owner, balance=amount))


@when(parsers.parse("{giver} transfers {amount:d} to {taker}, which is refused"))
def is_refused(giver: str, amount: int, taker: str) -> None:
    with pytest.raises(IntegrityError):
        transfer(amount, giver, taker)


@when(parsers.re(r"(?P<giver>\w+) transfers (?P<amount>\d+) to (?P<taker>[\w ]+)"), converters={"amount": int})
def transfers(giver: str, amount: int, taker: str) -> None:
    transfer(amount, giver, taker)


@then(parsers.parse("{owner} has a balance of {amount:d}"))
def has_a_balance(db: Bank, owner: str, amount: int) -> None:
    assert balance_of(owner) == amount
    db.assertRowCount(Account, 1, Account.owner == owner)
