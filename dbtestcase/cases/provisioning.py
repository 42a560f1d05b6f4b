"""Which server, database and isolation a class uses: composed from its attributes, made once in a process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from sqlalchemy import URL, Connection
from sqlalchemy.orm import Session

from ..backends import (
    Database,
    ExistingUse,
    MetadataRecipe,
    Recipe,
    backend_for,
    checked_url,
    library_version,
    names_a_server,
    test_database,
)
from ..drivers import Endpoint, endpoints_of_url, environment, family_of, get_ready_for_wire
from ..errors import ConfigurationError, DatabaseError, ServerError, UnsafeDatabase
from ..isolation import Isolation, SandboxIsolation, running_sandbox
from ..reporting import collecting_less, shown
from ..server import KEEP_HOURS, Server, disposable_server
from ..settings import Settings, read_settings
from . import scopes
from .bases import Bases
from .configuration import metadata_in
from .hints import extension_hint

_T = TypeVar("_T")


class _Runs:
    """What isolates tests on the databases of this process, found again by what a class asks for."""

    settings: Settings | None = None
    known: dict[Hashable, Any]

    def __init__(self) -> None:
        self._by_settings: dict[Hashable, dict[Hashable, Any]] = {}

    def look_at(self, settings: Settings) -> None:
        """Something in the environment has changed: what was made of other settings is not what is asked for."""
        self.settings, self.known = settings, self._by_settings.setdefault((settings, environment()), {})


class Provisioning:
    """Finds the server and the database of a test class, and what isolates its tests there."""

    def __init__(self, cls: Any) -> None:
        self.cls = cls
        self.bases = Bases(cls)

    def recipe(self, settings: Settings) -> Recipe:
        """What the database is made from."""
        configured = self.configured_url(settings)
        dialect = configured.get_backend_name() if configured is not None else "postgresql"
        base_data, initial_schema = self.hooks()
        return MetadataRecipe(metadata_in(self.cls), base_data, initial_schema=initial_schema, dialect=dialect)

    def hooks(self) -> tuple[Callable[[Session], None] | None, Callable[[Connection], None] | None]:
        """The user's own hooks: that for reference rows, and that for what must exist before the tables."""
        base_data, initial_schema = self.bases.own("load_base_data", "load_initial_schema")
        return base_data, initial_schema

    def make_isolation(self, engines: list[Any]) -> Isolation:
        """Compose the isolation from the run's things, which are made once."""
        run, aliases = self.run_of(
            engines,
            lambda database, url, server_url: self.enter_on(
                database, server_url, ("sandbox", url.drivername), lambda: running_sandbox(database, url)
            ),
            transactional=True,
        )
        return SandboxIsolation(
            run, self.cls.transaction_scope, reset_sequences=self.cls.reset_sequences, aliases=aliases
        )

    def run_of(
        self, engines: list[Any], run_on: Callable[[Database, URL, URL], _T], *, transactional: bool
    ) -> tuple[_T, frozenset[Endpoint]]:
        """What isolates tests on the database of the class; found again where the next class asks for the same.

        :param run_on: makes it, or finds it, from the database, its URL and that of the server.
        :returns: it, and the databases whose engines mean the test database.
        """
        settings = read_settings()  # the same as long as nothing in the environment changes
        runs = scopes.of_run("runs", lambda: contextlib.nullcontext(_Runs()))
        if runs.settings is not settings:
            runs.look_at(settings)
        known: dict[Hashable, tuple[_T, frozenset[Endpoint]]] = runs.known
        drivers = tuple((engine.dialect.name, engine.dialect.driver) for engine in engines)
        with contextlib.nullcontext() if known else collecting_less():
            if not known:
                self.server_url(settings, engines)  # it starts while this process reads the tables
            configured, recipe = self.configured_url(settings), self.recipe(settings)
            key = (id(configured), drivers, recipe.fingerprint(), transactional)
            if key in known and self.cls.database == "create":  # an existing one is taken by class after class
                return known[key]
            server_url, disposable = self.server_url(settings, engines)
            database = self.open_database(
                settings, server_url, recipe, disposable=disposable, transactional=transactional
            )
            url = database.url.set(drivername=server_url.drivername)
            made = run_on(database, url, server_url), self.aliases(settings)
            if self.cls.database == "create":
                known[key] = made
            return made

    def configured_url(self, settings: Settings) -> URL | None:
        """The URL of the class, else the one of the environment."""
        if self.cls.url is not None:
            return checked_url(self.cls.url, f"{self.cls.__qualname__}.url")
        return checked_url(settings.url, "DBTESTCASE_URL") if settings.url is not None else None

    def aliases(self, settings: Settings) -> frozenset[Endpoint]:
        """The database that the URL names: engines that point there mean the test database."""
        configured = self.configured_url(settings)
        if configured is None or not configured.database:
            return frozenset()
        return endpoints_of_url(configured)

    def server_url(self, settings: Settings, engines: list[Any]) -> tuple[URL, bool]:
        """The server's URL with the driver that the application's engines speak, and whether the server is ours."""
        configured = self.configured_url(settings)
        kind = configured.get_backend_name() if configured is not None else "postgresql"
        self._refuse_other_kinds(configured, kind, engines)
        driver = _driver(configured, kind, engines)
        if configured is not None and names_a_server(configured):
            return configured.set(drivername=driver), False
        url = self.server(settings, kind, driver).url.set(drivername=driver)
        if configured is not None and configured.username and configured.username != url.username:
            raise ConfigurationError(
                f"The URL {shown(configured)} names the user {configured.username!r}, but a disposable server has only "
                f"{url.username!r}, who may do everything.",
                cause="a URL with a user and without a host: the server of a run is made for it, without your roles",
                remedy=f"leave the user out and let connections take the role (connect_args={{'options': '-c role="
                f"{configured.username}'}}, or SET ROLE in a connect listener; create it in load_initial_schema), or "
                "name a server that has it"
                if kind == "postgresql"
                else "leave the user out, or name a server that has it",
            )
        return url.update_query_dict(configured.query if configured is not None else {}), True

    def _refuse_other_kinds(self, configured: URL | None, kind: str, engines: list[Any]) -> None:
        """An engine of another kind of database than the test's cannot be led, whatever the driver."""
        others = [e for e in engines if e.dialect.name != kind and family_of(e.dialect.name) != family_of(kind)]
        if not others:
            return
        other = others[0]
        name = self.cls.__qualname__
        said = "no url is set, so it is PostgreSQL" if configured is None else f"the URL is {shown(configured)}"
        right = "sqlite://" if other.dialect.name == "sqlite" else f"{other.dialect.name}+{other.dialect.driver}://"
        remedy = f'{name}.url = "{right}"'
        if len(others) < len(engines):
            remedy = f'take it out of `engines`, and keep it in a class of its own with url = "{right}"'
        raise ConfigurationError(
            f"{name}.engines names {shown(other.url)}, a {other.dialect.name} engine, but the test database is of "
            f"{kind}.",
            cause=f"the test database is of the kind that the application uses, and {said}",
            remedy=remedy,
        )

    def open_database(
        self, settings: Settings, server_url: URL, recipe: Recipe, *, disposable: bool, transactional: bool
    ) -> Any:
        configured = self.configured_url(settings)
        base = (configured.database if configured is not None else None) or "test"
        key = ("database", str(server_url), repr(self.cls.database), base, recipe.fingerprint(), transactional)

        def make() -> Database:
            failed = scopes.failures()
            if key in failed:
                raise DatabaseError(
                    f"The database of {self.cls.__qualname__} was not made: it failed for a class before this one.",
                    cause=f"{type(failed[key]).__name__}: {failed[key]}",
                    remedy="see the error of that class",
                ) from failed[key]
            try:
                return test_database(
                    server_url,
                    recipe,
                    base=base,
                    settings=settings,
                    mode=self.cls.database,
                    # where the server stays, the next run is to find it without this database
                    disposable=disposable and not (settings.stay and server_url.get_backend_name() == "postgresql"),
                    transactional=transactional,
                    fetch=self.template_source(settings, server_url, disposable=disposable),
                )
            except Exception as error:
                if hint := extension_hint(error):
                    error.add_note(hint)
                if not isinstance(error, ServerError | UnsafeDatabase):
                    failed[key] = error
                raise

        if self.cls.database == "existing":
            return self.existing_use(server_url).take(key, make)
        # one database serves the sandboxed and the committing classes: neither leaves anything in it
        database = scopes.of_run(key[:-1], make)
        if disposable and database.made_template:
            database.made_template = False
            self.server(settings, server_url.get_backend_name()).persist()
        if not transactional:  # its tests may make databases
            self.template_source(settings, server_url, disposable=disposable)("")
        return database

    def template_source(self, settings: Settings, server_url: URL, *, disposable: bool) -> Callable[[str], bool]:
        """What has the files of a template there: a server of ours, which may still have them in the cache."""
        if not disposable:
            return lambda template: True
        return self.server(settings, server_url.get_backend_name()).fetch

    def existing_use(self, server_url: URL) -> ExistingUse:
        """The use that this process makes of an existing database."""
        return scopes.of_run(("existing_use", str(server_url)), ExistingUse)

    def enter_on(
        self,
        database: Database,
        server_url: URL,
        key: tuple[Hashable, ...],
        factory: Callable[[], AbstractContextManager[_T]],
    ) -> _T:
        """Something that works on a database, made once for all classes that use it."""
        if self.cls.database == "existing":
            made: _T = self.existing_use(server_url).enter(key, factory)
            return made
        return scopes.of_run((*key, id(database)), factory)

    def keep_server(self, settings: Settings) -> int:
        """Let the disposable server go on after the run, because rows are kept on it.

        :returns: for how many hours; 0 where the server is not ours.
        """
        _, disposable = self.server_url(settings, [])
        if not disposable:
            return 0
        self.server(settings, "postgresql").keep()
        return KEEP_HOURS

    def server(self, settings: Settings, kind: str, driver: str = "") -> Server:
        """The disposable server of this process."""
        return scopes.of_run(("server", kind), lambda: self._server_of_run(settings, kind, driver))

    @contextlib.contextmanager
    def _server_of_run(self, settings: Settings, kind: str, driver: str) -> Iterator[Server]:
        def meanwhile() -> None:
            with contextlib.suppress(Exception):  # what is wrong is said where it is needed
                backend_for(URL.create(kind))
                library_version()
                self.recipe(settings).fingerprint()
                get_ready_for_wire(driver.partition("+")[2])

        server = disposable_server(settings, kind=kind, meanwhile=meanwhile, on_demand=True)
        try:
            yield server
        finally:
            server.close(wait=not scopes.process_ends())


def _driver(configured: URL | None, kind: str, engines: list[Any]) -> str:
    """The driver of the wire: the application's, else what the URL says."""
    if engines:
        return f"{engines[0].dialect.name}+{engines[0].dialect.driver}"
    if configured is not None and ("+" in configured.drivername or kind != "postgresql"):
        return configured.drivername.removesuffix("_async")  # psycopg's has a second name
    return f"{kind}+psycopg"
