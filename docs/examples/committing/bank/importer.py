"""Import accounts from standard input, as a program of its own: python -m bank.importer DATABASE_URL < accounts.csv"""

import csv
import sys

from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from .models import Account


def main(url: str) -> None:
    engine = create_engine(url)
    with Session(engine) as session, session.begin():
        session.add_all(Account(owner=owner, balance=int(balance)) for owner, balance in csv.reader(sys.stdin))
    engine.dispose()


if __name__ == "__main__":
    main(sys.argv[1])
