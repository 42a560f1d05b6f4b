"""What one transaction cannot show: the application's own engine, real commits, each test on the same database."""

import subprocess
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bank import db, jobs, news, transfers, web
from bank.models import Account, Base, Job
from sqlalchemy import select
from sqlalchemy.orm import Session

from dbtestcase import TruncatingDatabaseTest


class BankCase(TruncatingDatabaseTest):
    metadata = Base.metadata
    engines = [db.engine]

    @classmethod
    def load_base_data(cls, session: Session) -> None:
        session.add_all([Account(owner="the bank", balance=1_000)])

    def balances(self) -> dict[str, int]:
        with Session(db.engine) as session:
            return {account.owner: account.balance for account in session.scalars(select(Account))}


class QueueTest(BankCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.session.add_all([Job(what="count the coins"), Job(what="polish the coins")])

    def test_two_workers_take_different_jobs(self) -> None:
        both_are_working = threading.Barrier(2, timeout=10)

        def work(name: str) -> int | None:
            return jobs.work_one(name, lambda what: both_are_working.wait())

        with ThreadPoolExecutor() as pool:
            taken = list(pool.map(work, ["Ada", "Bob"]))
        self.assertCountEqual(taken, [1, 2])

    def test_a_job_whose_worker_failed_is_taken_again(self) -> None:
        with self.assertRaises(ZeroDivisionError):
            jobs.work_one("Ada", lambda what: 1 / 0)
        self.assertEqual(jobs.work_one("Bob", lambda what: None), 1)


class TransferTest(BankCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.session.add_all([Account(owner="Ada", balance=100), Account(owner="Bob", balance=100)])

    def test_two_transfers_at_once_are_both_done_and_one_of_them_twice(self) -> None:
        both_have_read = threading.Barrier(2, timeout=10)
        once = threading.local()

        def wait_the_first_time() -> None:
            if not hasattr(once, "done"):
                once.done = True
                both_have_read.wait()

        def move(source: str, target: str, amount: int) -> int:
            return transfers.transfer(source, target, amount, after_reading=wait_the_first_time)

        with ThreadPoolExecutor() as pool:
            attempts = sum(pool.map(move, ["Ada", "Bob"], ["Bob", "Ada"], [10, 30]))
        self.assertEqual(attempts, 3)
        self.assertEqual(self.balances(), {"the bank": 1_000, "Ada": 120, "Bob": 80})

    def test_what_the_database_refuses_is_not_tried_again(self) -> None:
        with self.assertRaisesRegex(Exception, "accounts_check|balance"):
            transfers.transfer("Ada", "Bob", 1_000)
        self.assertEqual(self.balances()["Ada"], 100)


class NewsTest(BankCase):
    def test_a_listener_hears_what_is_announced(self) -> None:
        with news.Listener() as listener:
            news.announce("rates go up")
            self.assertEqual(next(listener.hear(timeout=10)), "rates go up")

    def test_what_was_rolled_back_is_not_announced(self) -> None:
        with news.Listener() as listener:
            with db.engine.connect() as connection:
                connection.exec_driver_sql("NOTIFY news, 'never mind'")
                connection.rollback()
            news.announce("the next thing")
            self.assertEqual(next(listener.hear(timeout=10)), "the next thing")


class ImporterTest(BankCase):
    def run_importer(self, accounts: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bank.importer", self.database_url],
            cwd=Path(__file__).parents[1],
            input=accounts,
            text=True,
            stderr=subprocess.PIPE,
        )

    def test_what_another_process_commits_is_there(self) -> None:
        done = self.run_importer("Ada,5\nBob,7\n")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.balances(), {"the bank": 1_000, "Ada": 5, "Bob": 7})

    def test_all_or_nothing(self) -> None:
        done = self.run_importer("Ada,5\nBob,-7\n")
        self.assertIn("balance", done.stderr)
        self.assertEqual(self.balances(), {"the bank": 1_000})


class WebTest(BankCase):
    """A live server in a thread, with the application's own engine."""

    def setUp(self) -> None:
        self.server = web.make_server(port=0)
        thread = threading.Thread(target=self.server.serve_forever, args=[0.01])
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)

    def request(self, owner: str, amount: bytes | None = None) -> str:
        url = f"http://127.0.0.1:{self.server.server_port}/{owner}"
        with urllib.request.urlopen(url, data=amount, timeout=10) as answer:
            body: bytes = answer.read()
        return body.decode()

    def test_what_is_paid_in_is_there(self) -> None:
        self.request("ada", b"50")
        self.request("ada", b"8")
        self.assertEqual(self.request("ada"), "58")
        self.assertEqual(self.balances()["ada"], 58)

    def test_nobody_has_an_account_at_first(self) -> None:
        with self.assertRaises(urllib.error.HTTPError) as caught:
            self.request("ada")
        caught.exception.close()
        self.assertEqual(caught.exception.code, 404)

    def test_many_customers_at_once(self) -> None:
        self.request("ada", b"0")
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: self.request("ada", b"1"), range(24)))
        self.assertEqual(self.request("ada"), "24")
