"""Cleaning on MySQL and MariaDB: what may have changed is told by ``cleaning_state``, and only that is put back.

Definitions that differ are made again as ``SHOW CREATE`` told them (:mod:`.definitions`), rows are filled in from
copies (:mod:`.rows`).  Where the server refuses that, or the copies are gone with the cleaner's own connection, the
database is made anew from its recipe.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import closing

from sqlalchemy import URL

from ...errors import CleaningError
from ..cleaners import Cleaner, Reclonable
from ..cleaning_report import NOBODY, Look, Opened, Report, Session, Standing, still_writing
from .cleaning_state import State, keep_counters, read_state
from .definitions import (
    Definition,
    Key,
    read_definition,
    read_definitions,
    restore_definitions,
)
from .link import Link, ServerSaid, literal, quoted
from .rows import Content, Copies, settle_sequence
from .server_state import ServerState
from .sessions import Sessions

ATTEMPTS = 5
_LOSS = "ended the connection of dbtestcase's own that puts the database back"
_DISCARDED = re.compile(r"^Tablespace has been discarded for table [`']?([^`']+)")
_CHANGES_SESSION = re.compile(
    r":=|\b(?:set\s+(?:@|session\b|local\b|names\b)|into\s+@|get_lock\b|prepare\b|create\s+(?:or\s+replace\s+)?temporary\b)",
    re.IGNORECASE,
)


class MySQLCleaner(Cleaner):
    """See the module."""

    def __init__(self, url: URL, database: Reclonable | None) -> None:
        self._url = url
        self._database = database
        self._pending = Report()  # what was done between two cleanings
        self._server: ServerState | None = None
        self._open()

    def _open(self) -> None:
        self._link = Link(self._url)
        self._sessions = Sessions(self._url, self._link)
        if self._server is not None:
            self._server.link = self._link
        self._copies = Copies(self._link)
        self._definitions = read_definitions(self._link.rows, self._link.database)
        self._find_hidden()
        state = self._settled()
        self._made = self._wanted = Content(self._copies.take(state, state.engines), state.counters, state.sequences)
        self._kept: frozenset[str] = frozenset()  # the tables whose wanted rows are those of a class
        self._state = read_state(self._link, state.second)

    def _find_hidden(self) -> None:
        bodies = (each.text for (kind, _), each in self._definitions.items() if kind not in ("TABLE", "VIEW"))
        self.changes_sessions = any(_CHANGES_SESSION.search(text) for text in bodies)

    def _settled(self) -> State:
        state = read_state(self._link, 0)
        for name in state.sequences:
            settle_sequence(self._link.rows, quoted(name))
        return read_state(self._link, state.second) if state.sequences else state

    # -- cleaning

    def clean(self, standing: Standing = NOBODY, look: Look = Look.TOUCHED) -> Report:
        report, self._pending = self._pending, Report()
        refused = self._database is None
        for attempt in range(ATTEMPTS):
            try:
                ended = self._sessions.end(standing.opened, standing.expected, hesitate=attempt == 0)
                report = report.joined(Report(ended=tuple(ended)))
                step, done = self._step(look, again=bool(report.altered))
                report = report.joined(step)
                if done:
                    return report
            except _BeginAnew as reason:
                report = report.joined(reason.report).joined(self._begin_anew(str(reason), exact=reason.exact))
            except ServerSaid as error:
                if error.lost:
                    report = report.joined(self._begin_anew_after_loss())
                elif error.locked:
                    ended = self._sessions.end_holders(error, standing.opened)
                    report = report.joined(Report(ended=tuple(ended)))
                elif (gone := _DISCARDED.search(str(error))) is not None:
                    self._link.rows(f"DROP TABLE {quoted(gone[1])}")  # and made again as any that is missing
                elif refused:
                    raise self._failed(error) from error
                else:
                    refused = True
                    report = report.joined(self._begin_anew(str(error), exact=True))
        raise still_writing(str(self._url.database), report.ended)

    def _step(self, look: Look, *, again: bool) -> tuple[Report, bool]:
        """Put back what has changed; whether everything is now as it was."""
        now = read_state(self._link, self._state.second)
        report = self._put_back_definitions(now, look, again=again)
        if report.altered:
            now = read_state(self._link, self._state.second)
        counters, sequences = self._wanted.moved(now)
        touched = self._really_touched(now, counters) | (counters & now.engines.keys())
        if not touched and not sequences:
            if not report.altered:
                self._state = now
            return report, not report.altered
        inexact = [name for name in touched if name in self._wanted.copies and not self._wanted.copies[name].exact]
        if inexact:
            raise _BeginAnew(f"the server does not take back the history of {', '.join(inexact)}", report, exact=False)
        self._copies.put_back(self._wanted, now, sorted(touched), sorted(sequences), self._definitions)
        with_triggers = any(each.table in touched for each in self._definitions.values())
        after = read_state(self._link, self._state.second, tables_only=not with_triggers)
        self._state = after.with_others_of(now, touched)
        disturbed = any(after.marks.get(name) != mark for name, mark in now.marks.items() if name not in touched)
        disturbed |= bool(after.calculated - now.calculated - touched)
        disturbed |= self._wanted.moved(after) != (set(), set())
        report = report.joined(Report(restored=tuple(sorted(touched)), rewound=tuple(sorted(sequences))))
        return report, not disturbed and not report.altered

    def _really_touched(self, now: State, counters: set[str]) -> set[str]:
        """The tables whose rows may have changed; of those that are only too young to tell, not the empty ones.

        A cleaning sets counters back, for which the server makes a table's definition anew: so these are many.
        """
        touched = now.touched_since(self._state) & now.engines.keys()
        young = {
            name
            for name in touched - counters - now.versioned - self._wanted.copies.keys()
            if now.marks[name] == self._state.marks.get(name) and now.engines[name] == "innodb"
        }
        looks = (f"(SELECT {literal(name)} FROM {quoted(name)} LIMIT 1)" for name in young)
        filled = {str(name) for (name,) in self._link.rows(" UNION ALL ".join(looks))} if young else set()
        return touched - young | filled

    def _put_back_definitions(self, now: State, look: Look, *, again: bool) -> Report:
        doubtful = now.doubtful_since(self._state)
        found = self._found(now, doubtful, everything=look is Look.EXACT)
        if found == self._definitions:
            self._state.stamps.update({key: now.stamps[key] for key in doubtful})
            return Report()
        report = Report(altered=_named(self._definitions, found), recloned=not now.stamps)
        if again:
            raise _BeginAnew(f"{', '.join(report.altered)} cannot be made as before", report)
        try:
            restore_definitions(self._link, self._definitions, found)
        except (ServerSaid, UnicodeError) as error:
            if isinstance(error, ServerSaid) and (error.lost or error.locked):
                raise
            raise _BeginAnew(f"{', '.join(report.altered)} cannot be made as before: {error}", report) from error
        return report

    def _found(self, now: State, doubtful: list[Key], *, everything: bool) -> dict[Key, Definition]:
        """The definitions of now.  Where one is different, others may be (foreign keys follow a renamed table)."""
        found = {key: each for key, each in self._definitions.items() if key in now.stamps}
        for key in doubtful:
            stamp = now.stamps.get(key)
            if stamp is not None:
                read = read_definition(self._link.rows, self._link.database, key, stamp.table, stamp.place)
                found = {**found, key: read} if read is not None else {k: each for k, each in found.items() if k != key}
        if everything or found != self._definitions:
            return read_definitions(self._link.rows, self._link.database)
        return found

    def _begin_anew(self, why: str, *, exact: bool) -> Report:
        """Let the database be made anew; ``exact`` if rows may go back from the copies, which outlive it."""
        if self._database is None:
            raise CleaningError(
                f"The database {self._url.database!r} could not be put back: {why}.",
                cause="there is nothing from which the database could be made anew.",
                remedy="let the test undo its change of the schema, or use a database that dbtestcase makes by itself.",
            )
        if exact:
            self._link.rows("USE information_schema")  # who uses the database is ended
            self._database.reclone()
            self._link.rows(f"USE {quoted(self._link.database)}")
            if read_definitions(self._link.rows, self._link.database) == self._definitions:
                self._state = State(0)
                return Report(recloned=True)
        lost = self._wanted is not self._made
        self._link.close()
        if not exact:
            self._database.reclone()
        self._open()
        return Report(recloned=True, lost=lost)

    def _begin_anew_after_loss(self) -> Report:
        self._link.close()
        return self._begin_anew("the connection that puts it back was ended", exact=False)._replace(broke=_LOSS)

    def _failed(self, error: ServerSaid) -> CleaningError:
        return CleaningError(
            f"The database {self._url.database!r} could not be put back: the server says {error}.",
            cause="rows or definitions that the server does not take back as it has given them",
            remedy="leave out of the test, or of the tables, what the server names",
        )

    # -- what is to be put back

    def keep(self) -> None:
        try:
            now = read_state(self._link, self._state.second)
            found = self._found(now, now.doubtful_since(self._state), everything=False)
            if found != self._definitions:
                changed = ", ".join(_named(self._definitions, found))
                raise CleaningError(
                    f"The rows of a class were made with a change of the schema: {changed}.",
                    cause="setUpTestData() that makes or changes tables",
                    remedy="make tables in metadata, migrations or load_base_data()",
                )
            self.forget()
            for name in self._wanted.moved(now)[1]:
                settle_sequence(self._link.rows, quoted(name))
            now = read_state(self._link, self._state.second)
            names = now.touched_since(self._state) & now.engines.keys()
            inherited = {name: copy for name, copy in self._made.copies.items() if name not in names}
            self._wanted = Content(inherited | self._copies.take(now, names), now.counters, now.sequences)
            self._kept = frozenset(names)
            self._state = read_state(self._link, now.second)
        except ServerSaid as error:
            raise self._failed(error) from error

    def forget(self) -> None:
        if self._wanted is self._made:
            return
        try:
            self._copies.drop(copy for name, copy in self._wanted.copies.items() if name in self._kept)
        except ServerSaid as error:
            if not error.lost:
                raise self._failed(error) from error
        self._wanted = self._made
        self._state.marks.update({name: object() for name in self._kept})
        self._kept = frozenset()

    # -- others

    def others(self) -> list[Session]:
        return self._others({})

    def left(self, opened: Mapping[int, Opened]) -> list[Session]:
        return [session for session in self._others(opened) if session.pid in opened]

    def _others(self, opened: Mapping[int, Opened]) -> list[Session]:
        try:
            return self._sessions.others(opened)
        except ServerSaid as error:
            if not error.lost:
                raise self._failed(error) from error
            self._pending = self._pending.joined(self._begin_anew_after_loss())
            return self._sessions.others(opened)

    def server_changes(self, named_in: str | None) -> tuple[str, ...]:
        try:
            if self._server is None:
                self._server = ServerState(self._link)
            return self._server.changes(named_in)
        except ServerSaid as error:
            raise self._failed(error) from error

    def accept_server(self) -> None:
        try:
            if self._server is None:
                self._server = ServerState(self._link)
            else:
                self._server.accept()
        except ServerSaid as error:
            raise self._failed(error) from error

    def close(self) -> None:
        self._link.close()


class _BeginAnew(Exception):
    """The database cannot be put back piece by piece; ``report``: what was found, ``exact``: its rows still can."""

    def __init__(self, why: str, report: Report, *, exact: bool = True) -> None:
        super().__init__(why)
        self.report = report
        self.exact = exact


def _named(wanted: Mapping[Key, Definition], found: Mapping[Key, Definition]) -> tuple[str, ...]:
    changed = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
    return tuple(f"{kind.lower()} {name}" for kind, name in changed)


class MySQLBackend:
    """See :class:`dbtestcase.backends.cleaners.Cleaning`."""

    def install(self, url: URL) -> None:
        with closing(Link(url)) as link:
            keep_counters(link)

    def uninstall(self, url: URL) -> None:
        """Nothing is kept in the database but an option of its tables, which go with it."""

    def connect(self, url: URL, database: Reclonable | None) -> Cleaner:
        return MySQLCleaner(url, database)


BACKEND = MySQLBackend()
