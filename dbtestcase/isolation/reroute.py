"""An application's real engines pointed at another database for a while: pools, events and options are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import URL, Engine
from sqlalchemy.pool import Pool

from ..drivers import arguments_of, connecting, endpoints_of_url, family_of, patiently, watch_attaching
from ..errors import ConfigurationError
from ..reporting import for_driver, shown
from .engines import Leads

# Where a server is and who one is there, in the words of all drivers.  Encryption is between the application and its
# own server: the test's server is asked for what the test's URL asks for.
_PLACE = frozenset(
    """
    host hostaddr port dbname database db user username password passwd passfile service unix_socket unix_sock dsn
    read_default_file ssl ssl_ca ssl_cert ssl_key ssl_mode sslmode sslcert sslkey sslpassword sslrootcert sslcrl
    sslnegotiation ssl_context sock channel_binding gssencmode krbsrvname requirepeer require_auth direct_tls
    """.split()  # noqa: SIM905  (a list of 41 lines is not easier to read)
)


class Rerouting(Leads):
    """Leads engines to the database at ``url`` until they are released.

    :param prepare: called with each new pool, to listen to its events.
    :param forget: called with each engine that is released.
    :param spare: called where the server has no connection left, to close what can be spared.
    :param admit: called before each connection is made, to refuse it.
    """

    captures = False

    def __init__(
        self,
        url: URL,
        prepare: Callable[[Engine, Pool], None],
        forget: Callable[[Engine], None],
        spare: Callable[[], object] | None = None,
        admit: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self.place = endpoints_of_url(url)
        self._admit = admit
        self._spare = spare
        self._url = url
        self._watch = prepare
        self._unwatch = forget

    def _refuse(self, engine: Engine) -> None:
        name = shown(engine.url)
        if family_of(engine.url.get_backend_name()) != family_of(self._url.get_backend_name()):
            raise ConfigurationError(
                f"The engine {name} cannot be pointed at the test database {shown(self._url)}.",
                cause="`engines` (or enlist()) names an engine of another kind of database",
                remedy="leave it out; the engines that use the tables of `metadata` are meant",
            )
        checked_out = getattr(engine.pool, "checkedout", lambda: 0)()
        if checked_out > 0:
            raise ConfigurationError(
                f"{checked_out} connection(s) of the engine {name} are in use: they would go on writing in its own"
                " database while the test class runs.",
                cause="a session or connection opened before the class began, often while a module is imported",
                remedy="close it first, or open it when it is needed",
            )

    def _prepare(self, engine: Engine, pool: Pool) -> None:
        engine.url = for_driver(self._url, engine.url.drivername)
        self._watch(engine, pool)

    def _may_keep(self, lead: Any) -> bool:
        return False  # the connections are real ones

    def _forget(self, engine: Engine, current: Pool, pool: Pool) -> None:
        self._unwatch(engine)
        if not engine.dialect.is_async:  # an asynchronous pool can only be emptied in its own event loop
            current.dispose()

    def _creator(self, engine: Engine, original: Pool, *, own: bool) -> Callable[..., Any]:
        dialect, name = engine.dialect, shown(engine.url)
        url, spare = for_driver(self._url, engine.url.drivername), self._spare
        args, place = arguments_of(dialect, url)

        def open_there(_: list[Any], given: dict[str, Any]) -> Any:
            # whatever is said of the options may stay, but the place is ours
            chosen = {name: value for name, value in given.items() if name not in _PLACE} | dict(place)
            watch_attaching(dialect, args, chosen)
            return patiently(lambda: dialect.connect(*args, **chosen), url, spare=spare)

        theirs = connecting(original, dialect, open_there, name)

        def connect(connection_record: Any = None) -> Any:  # by this name SQLAlchemy gives it the record
            self._admit()
            return theirs(connection_record)

        return connect
