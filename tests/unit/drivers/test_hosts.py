"""Names of hosts that mean one machine name one database."""

import os
import socket
import tempfile
import threading
import unittest
from typing import Any
from unittest import mock

from sqlalchemy import make_url

from dbtestcase.drivers import endpoints
from dbtestcase.drivers.endpoints import endpoints_of_url, meet

KNOWN = {
    "db.example.org": ["192.0.2.7", "2001:db8::7"],
    "primary": ["192.0.2.7"],
    "replica": ["192.0.2.8"],
    "alias-of-this": ["127.0.0.1"],
    "this-machine": ["192.0.2.1"],
}


class HostsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.asked: list[str] = []
        self.enterContext(mock.patch.object(socket, "getaddrinfo", self.answer))
        self.enterContext(mock.patch.object(socket, "gethostname", lambda: "this-machine"))
        for remembered in (endpoints._resolved, endpoints.same_host):
            remembered.cache_clear()
            self.addCleanup(remembered.cache_clear)

    def answer(self, name: str, *rest: object) -> list[Any]:
        self.asked.append(name)
        if name not in KNOWN:
            raise socket.gaierror(name)
        return [(0, 0, 0, "", (address, 0)) for address in KNOWN[name]]

    def meeting(self, one: str, other: str) -> bool:
        mine, theirs = (endpoints_of_url(make_url(url)) for url in (one, other))
        self.assertEqual(meet(mine, theirs), meet(theirs, mine))
        return meet(mine, theirs)

    def test_names_of_one_machine(self) -> None:
        local = (
            "localhost",
            "127.0.0.1",
            "[::1]",
            "127.0.1.1",
            "alias-of-this",
            "this-machine",
            "192.0.2.1",
            "LOCALHOST.",
        )
        for names in (local, ("db.example.org", "primary", "192.0.2.7"), ("db.example.org.", "[2001:db8::7]")):
            for one in names:
                for other in names:
                    with self.subTest(one=one, other=other):
                        self.assertTrue(
                            self.meeting(f"postgresql+psycopg://{one}/shop", f"postgresql+asyncpg://{other}/shop")
                        )
                        self.assertTrue(
                            self.meeting(f"mysql+pymysql://{one}:3307/shop", f"mariadb+aiomysql://{other}:3307/shop")
                        )

    def test_others(self) -> None:
        for one, other in (
            ("localhost/shop", "replica/shop"),
            ("primary/shop", "replica/shop"),
            ("primary/shop", "db.example.org/blog"),
            ("primary/shop", "db.example.org:5433/shop"),
            ("nowhere.invalid/shop", "elsewhere.invalid/shop"),
            ("nowhere.invalid/shop", "localhost/shop"),
        ):
            with self.subTest(one=one, other=other):
                self.assertFalse(self.meeting(f"postgresql+psycopg://{one}", f"postgresql+psycopg://{other}"))

    def test_a_socket_may_be_that_of_the_server_which_listens_on_the_port(self) -> None:
        for folder in ("/var/run/postgresql", "/srv/sockets"):
            socket_url = f"postgresql+psycopg:///shop?host={folder}&port=5433"
            self.assertTrue(self.meeting(socket_url, "postgresql+psycopg://alias-of-this:5433/shop"))
            self.assertFalse(self.meeting(socket_url, "postgresql+psycopg://alias-of-this/shop"))
            self.assertFalse(self.meeting(socket_url, "postgresql+psycopg://primary:5433/shop"))
        self.assertFalse(
            self.meeting("postgresql+psycopg:///shop?host=/srv/one", "postgresql+psycopg:///shop?host=/srv/two")
        )

    def test_an_address_of_the_environment_or_a_service_decides_where_libpq_goes(self) -> None:
        services = self.enterContext(tempfile.NamedTemporaryFile("w", suffix=".conf"))
        services.write("[far]\nhost=replica\nhostaddr=192.0.2.7\n[near]\nhost=primary\nport=5433\n")
        services.flush()
        far = {"PGSERVICE": "far", "PGSERVICEFILE": services.name}
        for variables in ({"PGHOSTADDR": "192.0.2.7"}, far):
            with self.subTest(variables), mock.patch.dict(os.environ, variables):
                for driver in ("psycopg", "psycopg2"):
                    went = f"postgresql+{driver}://replica/shop"
                    for place, right in (("replica", False), ("primary", True), ("192.0.2.7", True)):
                        self.assertEqual(self.meeting(went, f"postgresql+asyncpg://{place}/shop"), right, place)
                    self.assertTrue(self.meeting(f"postgresql+{driver}:///shop?host=/srv/one", went))
        with mock.patch.dict(os.environ, far | {"PGSERVICE": "near"}):
            self.assertTrue(self.meeting("postgresql+psycopg:///shop", "postgresql+psycopg://db.example.org:5433/shop"))
            self.assertTrue(
                self.meeting("postgresql+psycopg:///shop?host=replica", "postgresql+psycopg://replica:5433/shop")
            )
        self.assertTrue(
            self.meeting(
                "postgresql+psycopg:///shop?host=replica,db.example.org&hostaddr=,192.0.2.7",
                "postgresql+psycopg://primary/shop",
            )
        )

    def test_a_name_is_looked_up_once_and_only_where_all_else_is_the_same(self) -> None:
        one = "postgresql+psycopg://nowhere.invalid/shop"
        self.assertFalse(self.meeting(one, "postgresql+psycopg://localhost/blog"))
        self.assertTrue(self.meeting(one, one))
        self.assertEqual(self.asked, [])
        for _ in range(3):
            self.meeting(one, "postgresql+psycopg://localhost/shop")
        self.assertEqual(self.asked, ["nowhere.invalid"])

    def test_a_name_server_that_does_not_answer_is_not_waited_for_long(self) -> None:
        released = threading.Event()
        self.addCleanup(released.set)
        self.enterContext(mock.patch.object(socket, "getaddrinfo", lambda *_: released.wait(60) and []))
        with mock.patch.object(endpoints, "_PATIENCE", 0.01):
            self.assertFalse(self.meeting("postgresql+psycopg://slow/shop", "postgresql+psycopg://localhost/shop"))


if __name__ == "__main__":
    unittest.main()
