"""The bank's web server: GET /ada gives a balance, POST /ada adds to it."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from sqlalchemy import select
from sqlalchemy.orm import Session

from .db import engine
from .models import Account


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        with Session(engine) as session:
            balance = session.scalar(select(Account.balance).where(Account.owner == self.path[1:]))
        self.answer(404 if balance is None else 200, str(balance))

    def do_POST(self) -> None:
        amount = int(self.rfile.read(int(self.headers["Content-Length"])))
        with Session(engine) as session, session.begin():
            account = session.scalar(select(Account).where(Account.owner == self.path[1:]).with_for_update())
            if account is None:
                account = Account(owner=self.path[1:], balance=0)
                session.add(account)
            account.balance += amount
        self.answer(200, "thank you")

    def answer(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


def make_server(port: int = 8000) -> ThreadingHTTPServer:
    return ThreadingHTTPServer(("127.0.0.1", port), Handler)
