"""What is common to the two ways of cleaning on PostgreSQL: connections, attempts, losses, the rows of a class."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple, TypeVar

import psycopg
from sqlalchemy import URL

from ...drivers import OwnConnection, patiently
from ...errors import CleaningError
from ..cleaners import Cleaner, Reclonable
from ..cleaning_report import NOBODY, Look, Opened, Report, Session, Standing, cannot_connect
from .admin import build_url
from .connections import APPLICATION, Connection, Connections, still_there
from .server_state import ServerState

ATTEMPTS = 5
NOTHING = Report()
LOCK_TIMEOUT = "2s"

# Code of the application's in the database that changes the session that runs it; what ends with its transaction does
# not count.
_CHANGES_SESSION = rb"""
select exists (
  select from pg_proc p join pg_language l on l.oid = p.prolang
   where p.oid >= 16384 and l.lanname not in ('internal', 'c') and p.pronamespace::regnamespace::text <> '_dbtestcase'
     and p.prosrc ~* concat_ws('|',
       'set_config\s*\((?![^;]*,\s*true\s*\))',
       '(^|;|''|\$|\y(begin|then|else|loop)\y)\s*(set\s+(?!(local|constraints|transaction)\y)|reset\s|discard\s)',
       'create\s+((local|global)\s+)?temp(orary)?\s(?![^;]*on\s+commit\s+drop)', '\yinto\s+temp',
       '(^|;|''|\$|\y(begin|then|else|loop)\y)\s*(listen|unlisten|load|prepare|deallocate|declare\s[^;]*with\s+hold)\s',
       '\ydblink_connect'))
"""

T = TypeVar("T")


def array(numbers: Collection[int]) -> str:
    """Numbers as the server writes an array: psycopg would look at each for the type that fits all."""
    return f"{{{','.join(map(str, numbers))}}}"


def connect(url: URL) -> Connection:
    """A connection for the cleaning: in autocommit mode, quiet for our triggers, safe from a role's own settings."""
    target = build_url(url, str(url.database))
    arguments = dict(target.get_dialect()().create_connect_args(target)[1])
    arguments["application_name"] = APPLICATION
    try:
        connection: Connection = patiently(
            lambda: OwnConnection.connect(**arguments, autocommit=True, prepare_threshold=0), url
        )
    except psycopg.OperationalError as error:
        raise cannot_connect(url, error) from error
    connection.execute(
        f"""set _dbtestcase.cleaning = 'on'; set search_path = pg_catalog; set lock_timeout = '{LOCK_TIMEOUT}';
            set statement_timeout = 0; set idle_in_transaction_session_timeout = 0; set row_security = off;
            set default_transaction_isolation = 'read committed'; set default_transaction_read_only = off;
            set synchronous_commit = off; set jit = off""".encode(),
        prepare=False,
    )
    return connection


class Attempt(NamedTuple):
    """How one attempt to clean went.

    ``busy``: somebody stands in the way, nothing was done.  ``altered``: the schema was changed (see ``changes``), rows
    were not put back.  ``clean``: all is as it was, unless it was ``disturbed`` meanwhile.  ``absent``: not all
    connections that are expected are there.
    """

    outcome: Literal["busy", "altered", "clean"]
    report: Report = Report()
    changes: tuple[str, ...] = ()
    disturbed: bool = False
    absent: bool = False


class PostgreSQLCleaner(Cleaner):
    """A cleaner over one connection; a subclass knows what was touched and puts it back."""

    breaks = ""
    """What a test did during which the copies were lost, in words that follow its name, where it must fail for that."""

    def __init__(self, url: URL, database: Reclonable | None) -> None:
        self._url = url
        self._database = database
        self._kept = False
        self._new = True
        self._known: frozenset[int] = frozenset()
        self._untold = NOTHING  # a recovery that the next cleaning reports
        self._open()
        self._new = False

    def _open(self) -> None:
        self._connection = connect(self._url)
        self._cursor = self._connection.cursor()
        self._connections = Connections(self._connection)
        row = self._connection.execute(b"select reset_val from pg_settings where name = 'search_path'").fetchone()
        assert row is not None
        self._search_path: str = row[0]
        self.changes_sessions = self._connection.execute(_CHANGES_SESSION).fetchone() == (True,)
        if not hasattr(self, "_server"):
            self._server = ServerState(self._connection)
        self._server.connection = self._connection

    def _ask(self, query: bytes, values: Sequence[object] | Mapping[str, object] | None = None) -> list[Any]:
        """The rows of a query of each cleaning; a cursor of its own for each would take as long as many of them."""
        return self._cursor.execute(query, values).fetchall()

    @abstractmethod
    def _attempt(self, arrays: tuple[str, str], expected: int, look: Look, opened: int) -> Attempt:
        """Put back what was touched, unless somebody stands in the way.

        :param arrays: who is expected and who lasts, as the server writes it.
        :param expected: how many are.
        :param opened: how many connections are known to be new.
        """

    @abstractmethod
    def _reopen(self) -> None:
        """Connect again, where the connection was lost with all that the server's session knew."""

    @abstractmethod
    def _carry_over(self) -> object | None:
        """The rows of the class (after :meth:`keep`), to be taken into a database that is made anew; ``None``: lost."""

    @abstractmethod
    def _bring_back(self, carried: object) -> None:
        """Put the rows of the class into the new database."""

    def clean(self, standing: Standing = NOBODY, look: Look = Look.TOUCHED) -> Report:
        report, (expected, lasting, opened) = self._untold, standing
        self._untold = NOTHING
        ended: list[Session] = []
        refused: Exception | None = None
        known = frozenset(opened)
        new, self._known = len(known - self._known), known
        arrays = (array(expected), array(lasting))
        for number in range(ATTEMPTS):
            try:
                attempt = self._attempt(arrays, len(set(expected)), look, new)
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                attempt = Attempt("busy", disturbed=True)
            except psycopg.Error as error:
                if self._connection.closed:
                    report = report.joined(self._recover(lasting))
                    continue
                refused = error
                attempt = Attempt("altered", changes=(f"{type(error).__name__}: {str(error).strip()}",))
            if attempt.outcome == "altered":
                report = report.joined(self._reclone(attempt.changes, lasting))
                continue
            report = attempt.report if report is NOTHING else report.joined(attempt.report)
            if attempt.outcome == "clean" and not attempt.disturbed:
                absent = self._absent(expected) if attempt.absent and not report.recloned else ()
                return report.joined(Report(ended=tuple(ended), absent=absent)) if ended or absent else report
            hesitate = number == 0 and not attempt.disturbed
            ended += self._connections.end(expected, lasting, opened, hesitate=hesitate)
        raise still_there(str(self._url.database), ended, refused)

    def _absent(self, expected: Collection[int]) -> tuple[int, ...]:
        there = {session.pid for session in self.others()}
        return tuple(pid for pid in expected if pid not in there)

    def _recover(self, lasting: Collection[int]) -> Report:
        """Go on after the cleaner's own connection was lost; what that cost."""
        try:
            self._reopen()
        except CleaningError as error:
            # Where nobody can connect again, the test has dropped or renamed the database: that is no crash.
            broke = "" if self._connection.closed else self.breaks
            return self._reclone((error.what,), lasting, connected=False)._replace(broke=broke)
        return NOTHING

    def _surely(self, work: Callable[[], T]) -> T:
        """Do something once more, where the connection was lost."""
        try:
            return work()
        except psycopg.OperationalError:
            if not self._connection.closed:
                raise
        self._untold = self._untold.joined(self._recover(()))
        return work()

    def _reclone(self, changes: tuple[str, ...], lasting: Collection[int], *, connected: bool = True) -> Report:
        """Make the database anew, with the rows of the class if there are any."""
        if self._database is None:
            raise CleaningError(
                f"The test changed the schema of {self._url.database!r}: {', '.join(changes)}.",
                cause="there is no template from which the database could be made anew.",
                remedy="let the test undo its change of the schema, or use a database that dbtestcase makes by itself.",
            )
        carried, lost = None, False
        if self._kept:
            with suppress(psycopg.Error):  # the test dropped or changed our own schema as well
                carried = self._carry_over()
            lost = carried is None
            self._kept = not lost
        if connected:
            # A database that exists already to us is emptied and filled, not dropped: then they would live on.
            self._connections.end_all(lasting)
        self.close()
        self._database.reclone()
        self._new = True
        self._open()
        self._new = False
        if self._kept:
            self._bring_back(carried)
        return Report(altered=changes, recloned=True, lost=lost)

    def others(self) -> list[Session]:
        return self._surely(lambda: self._connections.others({}))

    def keep(self) -> None:
        self._surely(self._keep)
        if self._untold.recloned:
            raise CleaningError(
                f"The rows of a class are lost: {', '.join(self._untold.altered)}",
                cause="setUpTestData() or setUpClass() ended connections of others, or a process of the server was"
                " killed meanwhile.",
                remedy="end only connections of the test's own; run the tests again where the server has crashed.",
            )

    def forget(self) -> None:
        self._surely(self._forget)

    @abstractmethod
    def _keep(self) -> None:
        """See :meth:`keep`."""

    @abstractmethod
    def _forget(self) -> None:
        """See :meth:`forget`."""

    def left(self, opened: Mapping[int, Opened]) -> list[Session]:
        return [session for session in self._surely(lambda: self._connections.others(opened)) if session.pid in opened]

    def close(self) -> None:
        self._connection.close()

    def server_changes(self, named_in: str | None) -> tuple[str, ...]:
        return self._surely(lambda: self._server.changes(named_in))

    def accept_server(self) -> None:
        self._surely(lambda: self._server.accept())

    def _copy_out(self, source: str) -> bytes:
        with self._connection.cursor().copy(f"copy {source} to stdout (format binary)".encode()) as copy:
            return b"".join(bytes(block) for block in copy)

    def _copy_in(self, table: str, rows: bytes) -> None:
        with self._connection.cursor().copy(f"copy {table} from stdin (format binary)".encode()) as copy:
            copy.write(rows)


def schema_changed(what: str) -> CleaningError:
    """The error for a class whose rows were made with a change of the schema."""
    return CleaningError(
        f"The schema was changed while the rows of a class were made: {what}.",
        cause="setUpTestData or setUpClass created, altered or dropped something.",
        remedy="put it into the metadata or a migration, or do it in setUp: then it is undone after each test.",
    )
