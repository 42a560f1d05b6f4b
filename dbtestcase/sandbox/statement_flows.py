"""What a client's statement needs on the wire, before it and after it."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import ConfigurationError, DirtyReadWarning
from ..reporting import find_call_site, warn_at
from .clients import where
from .connections import POOLED, Client
from .cursors import find_cursors, free_cursor_name
from .rules import COMMITTING
from .savepoints import Owner
from .schema_facts import SchemaFacts
from .session_settings import Flow, UnknownSetting
from .statements import WRITE, Kind, Statement, parts
from .topics import Topic
from .transaction_flows import TransactionFlows


class StatementFlows(TransactionFlows):
    """Flows around each statement; the common case of each has a door of its own that sends little and asks little."""

    def at_once(self, client: Client, statement: Statement) -> str | None:
        """The common case of :meth:`before`, in little time: what is to be sent before; None if it is not that case."""
        if (
            not statement.plain
            or client.failed
            or client.autocommit
            or client.moded
            or self._late is not None
            or self.rules.refuses_plain
            or self._abandoned
            or self._locking
            or not self._settings.fits(client.settings)
            or self._guarded is not None
            or self.session.used
            or client.scope != self._top
            or self.wire.aborted()
        ):
            return None
        writes = statement.kind is WRITE
        facts = self.facts
        if not writes and (
            facts.functions is None or ((statement.calls or facts.views) and facts.may_write(statement))
        ):
            return None
        if not self.stack.is_free_for(client):
            return None
        if (writes or statement.calls) and not self._locks_taken:
            self._locks_taken |= self.rules.takes_locks(statement)
        if not client.active:
            client.where = where(statement.text)
            client.settings.begin()
        if writes and self.test_files:
            self._note_writer(client, statement.text)
        steps = self.stack.statement(client, writes, statement.numbers)  # last: what it decides must be sent
        if writes:
            self._wrote = True
            client.writes[statement.text] = statement
        self._current = client
        if statement.text:
            client.has_run = True
        return self.rules.render(steps)[0] if steps else ""

    def is_over(self, client: Client, statement: Statement, rowcount: int) -> bool:
        """Whether :meth:`after` would do nothing."""
        return (
            statement.plain
            and not (client.autocommit and not client.block)
            and not (rowcount == 0 and statement.counts)
            and not self.session.used
            and not (statement.calls and (self.facts.opens_cursors(statement) or self.facts.topics_of(statement)))
        )

    def before(self, client: Client, statement: Statement) -> Flow:
        """The client is about to run a statement, and holds the wire; what is refused was not sent."""
        if not self.is_open(client):
            if client.scope != POOLED or not self._scopes:
                raise self.note(self._closed(client))
            self.checkout(client)
        refusal = self.rules.refuse(statement)
        if refusal is not None:
            raise self.note(refusal)
        if self._late is not None or self._abandoned or self.wire.aborted():
            yield from self._recover(client)
        if client.failed:
            raise self._aborted()
        kind = statement.kind
        if client.each_statement and not (statement.plain or statement.holdable or statement.several):
            alone = "DECLARE CURSOR" if statement.cursor else statement.label
            if alone:
                raise self.wire.error("NoActiveSqlTransaction", f"{alone} can only be used in transaction blocks")
        if kind is Kind.CHARACTERISTICS:
            yield from self._characterize(client, statement)
        if statement.writes and client.refuses_writes and not self.rules.read_only:
            raise self.fail(client, "ReadOnlySqlTransaction", "cannot execute a write in a read-only transaction")
        writes = statement.writes
        if writes and self.rules.one_writer:
            self._refuse_second_writer(client)
        if statement.cursor:
            for part in parts(statement):
                if part.cursor:
                    yield from self._noting(free_cursor_name(client, part.cursor, list(self.clients)))
        if kind is Kind.READ or statement.calls:
            yield from self.facts.load_functions()
            writes |= kind is Kind.READ and self.facts.may_write(statement)
        yield from self._noting(self.session.check(client, statement))
        if self.stack.has_others(client):
            yield from warn_of_dirty_reads(client, statement, self.stack.unfinished(), self.facts)
        if self._locking and (writes or kind is Kind.LOCK):
            warn_of_locks(client, self._lockers())
        if kind is Kind.LOCK and not client.own and not client.each_statement:
            client.locks = True
            self._locking.add(client)
        if not client.active:
            client.where = where(statement.text)
            client.settings.begin()
        if writes and self.test_files:
            self._note_writer(client, statement.text)
        steps = self._steps(self.stack.statement, client, writes=writes, numbers=statement.numbers)
        read_only = bool(self.rules.read_only) and self.rules.is_read_only(client)
        if self._guarded is not None and (steps or self._guarded is not client or not read_only):
            yield from self._unguard()
        if steps:
            for sql in self.rules.render(steps):
                yield sql
        self._current = client
        if not client.has_run and statement.takes_snapshot:
            client.has_run = True
        if client.each_statement and not client.piped:
            self._late = client
        if writes:
            self._wrote = True
        if not self._settings.fits(client.settings):
            yield from self._give_settings(client)
        if statement.settings and self.rules.has_settings:
            yield from self._settings.before(self._kept_settings(statement))
        if kind is not Kind.READ or statement.calls:
            if kind is Kind.SCHEMA:
                self._schema_changed = True
                self.facts.forget()
            elif kind is Kind.CONSTRAINTS:
                self._deferral_set = True
            self._locks_taken |= self.rules.takes_locks(statement)
        if self.session.used or statement.topics:
            yield from self._unguard()
            yield from self._noting(self.session.before(client, statement))
        if writes and not self.session.is_private(client, statement):
            client.writes[statement.text] = statement
        if read_only and self._guarded is None:
            yield self.rules.read_only
            self._guarded = client

    def replacement(self, client: Client, statement: Statement) -> str | None:
        """What is to be sent in a statement's place; to be asked before :meth:`before`."""
        if statement.plain:
            return None
        text = self.session.replace(client, statement)
        if text is None and statement.topics:
            try:
                text = self.rules.report(client, statement, self._settings.unknown_to(client.settings))
            except UnknownSetting as unknown:
                message = f'unrecognized configuration parameter "{unknown}"'
                raise self.fail(client, "UndefinedObject", message) from None
        if text is not None or (statement.rewrite and self.rules.error_aborts and not client.each_statement):
            return text  # CONCURRENTLY in a transaction is refused by PostgreSQL, as in production
        return self.rules.replace(statement)

    def _characterize(self, client: Client, statement: Statement) -> Flow:
        """``SET TRANSACTION``: followed here, since the one transaction of all cannot be changed any more."""
        yield from self._unguard()
        name = self.rules.refuse_characteristics(client, statement.text)
        if name:
            raise self.fail(client, "ActiveSqlTransaction", name)
        client.characterize(statement.text)

    def _refuse_second_writer(self, client: Client) -> None:
        for other in self.stack.unfinished():
            if other is not client and isinstance(other, Client) and not (other.own or client.own):
                error = self.wire.error("OperationalError", "database is locked")
                error.add_note(f"dbtestcase: {client.name} writes while {other} has unfinished writes")
                raise error

    def _give_settings(self, client: Client) -> Flow:
        """Give the wire the settings of the client, or tell which of its engine's the server refuses."""
        try:
            yield from self._settings.apply(client.settings)
        except Exception as error:
            asked = client.settings.startup
            if not asked or client.settings.changed or self.wire.gone:
                raise
            raise ConfigurationError(
                f"The server refuses what the engine of {client.name} asks for its connections "
                f"({', '.join(f'{name} = {value}' for name, value in asked.items())}): {error}",
                cause="a setting in connect_args or in the query of the engine's URL that the test's server does not "
                "know, or that cannot be changed once a connection is made",
                remedy="correct it, or leave it out of the engine that the tests use, or " + COMMITTING,
            ) from error

    def settle_settings(self, client: Client) -> Flow:
        """Give the wire what the client has set, without a statement of its own: the driver is to know of it."""
        yield from self.recover_for(client)
        if not self._settings.fits(client.settings):
            yield from self._give_settings(client)

    def _kept_settings(self, statement: Statement) -> list[str]:
        """The settings that the application changes, without those that would end the one session of all."""
        return [name for name in statement.settings if name not in self.rules.ending_settings]

    def after(self, client: Client, statement: Statement, rowcount: int) -> Flow:
        """The statement has run."""
        if rowcount == 0 and statement.counts and self.stack.entries:
            yield from self._unwrite(client, statement)
        if statement.settings and self.rules.has_settings:
            settings = self._kept_settings(statement)
            if len(settings) < len(statement.settings) or "*" in settings:
                yield self.rules.no_end
            yield from self._settings.after(client.settings, settings, local=statement.local, reset=statement.resets)
            client.look_at_modes()
        if statement.cursor and self.stack.entries:
            for part in parts(statement):
                if part.cursor:
                    self.opened_cursor(client, part.cursor)
        elif statement.calls and self.facts.opens_cursors(statement):
            self.stack.hold(client)
            yield from find_cursors(client, list(self.clients))
        yield from self._noting(self.session.after(client, statement))
        if statement.kind is Kind.SCHEMA and Topic.TEMPORARY in statement.topics:
            # On a connection of its own the first temporary table lets the server plan anew what reads by its name.
            yield from self._forget_plans()
        if client.each_statement and not client.piped:
            yield from self.commit(client)

    def failed(self, client: Client, *, partly: bool) -> Flow:
        """A statement failed, perhaps ``partly``, on a server that undoes it and lets its transaction go on."""
        if self.stack.entries and not partly:
            self.stack.unwrite(client)
        if client.each_statement:
            yield from self.commit(client)

    def _unwrite(self, client: Client, statement: Statement) -> Flow:
        """No row was written: the entry need not stand in anyone's way, unless a trigger or rule may have written."""
        entry = self.stack.entries[-1]
        if entry.owner is not client or not entry.first_write:
            return
        yield from self.facts.load_triggers()
        if not self.facts.may_write_without_rows(statement):
            self.stack.unwrite(client)


def warn_of_dirty_reads(client: Client, statement: Statement, writers: Iterable[Owner], facts: SchemaFacts) -> Flow:
    """Warn if the statement may see rows that another client has written and not committed."""
    for other in writers:
        if isinstance(other, Client) and _is_news(client, other):
            if facts.knows_relations:
                yield from facts.load_relations()
                if not facts.may_see(statement, other.writes.values()):
                    continue
            _warn(client, other, "has unfinished writes: it may see rows that production would not show")


def warn_of_locks(client: Client, lockers: Iterable[Client]) -> None:
    """Warn if the client takes rows that another one has locked."""
    for other in lockers:
        if _is_news(client, other):
            _warn(client, other, "has locked rows: it may get rows that production would let it wait for, or skip")


def _is_news(client: Client, other: Client) -> bool:
    return other is not client and not other.own and other.name not in client.warned


def _warn(client: Client, other: Client, what: str) -> None:
    client.warned.add(other.name)
    call_site = find_call_site()
    warn_at(
        f"{client} runs a statement while {other} {what}.",
        DirtyReadWarning,
        call_site.filename if call_site else __file__,
        call_site.lineno if call_site else 0,
        source=client,
    )
