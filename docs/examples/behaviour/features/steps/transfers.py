from bank import Account, balance_of, sessions, transfer
from behave import given, then, when
from behave.runner import Context
from sqlalchemy.exc import IntegrityError


@given("{owner} has {amount:d}")
def has(context: Context, owner: str, amount: int) -> None:
    with sessions.begin() as session:
        session.add(Account(owner=owner, balance=amount))


@when("{giver} transfers {amount:d} to {taker}, which is refused")
def is_refused(context: Context, giver: str, amount: int, taker: str) -> None:
    try:
        transfer(amount, giver, taker)
    except IntegrityError:
        return
    raise AssertionError("it was not refused")


@when("{giver} transfers {amount:d} to {taker:l}")
@when("{giver} transfers {amount:d} to the bank")
def transfers(context: Context, giver: str, amount: int, taker: str = "the bank") -> None:
    transfer(amount, giver, taker)


@then("{owner} has a balance of {amount:d}")
def has_a_balance(context: Context, owner: str, amount: int) -> None:
    assert balance_of(owner) == amount
    context.db.assertRowCount(Account, 1, Account.owner == owner)
