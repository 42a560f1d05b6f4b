"""What differs from one database to the next inside a sandbox: a small object for each dialect, by registration."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..errors import SandboxEscape
from .connections import Client, characteristics
from .savepoints import Step
from .session_settings import Rows, literal, read_settings, report, write_settings
from .statements import Kind, Statement

_SNAPSHOT = re.compile(r"\btransaction\b.*\bsnapshot\b", re.IGNORECASE | re.DOTALL)

COMMITTING = "use TruncatingDatabaseTest, where commits are real, for what this test needs"


class Rules:
    """The rules of a dialect whose savepoints are standard SQL and about which nothing more is known."""

    name = "generic"
    refuses_plain = True
    """Whether a statement that only reads or writes rows may be refused or changed all the same."""
    error_aborts = False
    """Whether a failed statement makes the server refuse everything until a rollback."""
    has_settings = False
    """Whether ``SET`` is kept apart for each connection."""
    settings_roll_back = True
    """Whether a rollback takes back a ``SET``."""
    ending_settings: frozenset[str] = frozenset()
    """Settings that let the server end a session whose transaction lasts long: the outer one lasts a class."""
    no_end = ""
    """SQL that switches them off."""
    begin = "BEGIN"
    end = "ROLLBACK"
    read_only = ""
    """SQL after which the server refuses what it refuses in a read-only transaction, and that which ends it."""
    end_read_only = ""
    default_level = "read committed"
    """The isolation level of transactions that do not ask for one."""
    snapshot_by_reading = False
    """Whether only the first read of a table takes a snapshot, and only reads see it."""
    plans = ""
    """SQL for the names of the statements that the driver has prepared in the session."""
    connects_early = False
    """Whether the application's engines connect once before the first row is written."""
    one_writer = False
    """Whether a second connection that writes while another has unfinished writes gets an error at once."""
    savepoints_replace = False
    """Whether a savepoint takes the place of one of the same name, rather than hiding it."""
    no_savepoint = ("InvalidSavepointSpecification", 'savepoint "{}" does not exist')
    """The driver's error for the name of a savepoint that is not set."""
    nothing = "UNLISTEN dbtc_nothing"
    """SQL that does nothing and gives no rows."""

    def render(self, steps: list[Step]) -> list[str]:
        """The SQL of some steps: a list of strings, each to be sent by itself."""
        return [f"{verb.value} {name}" for verb, name in steps]

    def refuse(self, statement: Statement) -> SandboxEscape | None:
        """The error for a statement that would leave the outer transaction."""
        if statement.kind is not Kind.TRANSACTION:
            return None
        found = " ".join((statement.label or statement.text).split())[:200]
        return SandboxEscape(
            f"The statement {found!r} would end or begin the transaction that the test runs in; it was not sent.",
            cause="transaction control as SQL text, which the sandbox cannot tell from its own"
            if ";" not in statement.text.rstrip().rstrip(";")
            else "transaction control in the middle of a string of several statements",
            remedy="use the methods of the connection or session (begin(), commit(), rollback(), begin_nested()), or "
            + COMMITTING,
        )

    def replace(self, statement: Statement) -> str | None:
        """What to send in place of a statement that the database would refuse only because a test runs it."""
        return statement.rewrite

    def level_of(self, client: Client) -> str:
        """The isolation level of a client's transaction."""
        asked = client.level_now or client.level or client.settings.at_beginning.get("default_transaction_isolation")
        return str(asked or self.default_level).lower()

    def is_read_only(self, client: Client) -> bool:
        """Whether a client's transaction is read-only."""
        if client.moded and (client.read_only is not None or client.read_only_now is not None):
            return client.refuses_writes
        return _is_on(client.settings.at_beginning.get("default_transaction_read_only"))

    def is_deferrable(self, client: Client) -> bool:
        """Whether a client's transaction is deferrable."""
        asked = client.deferrable if client.deferrable_now is None else client.deferrable_now
        return _is_on(client.settings.at_beginning.get("default_transaction_deferrable")) if asked is None else asked

    def refuse_characteristics(self, client: Client, text: str) -> str:
        """What the server would say to ``SET TRANSACTION`` in the middle of a transaction; empty if nothing."""
        return ""

    def report(self, client: Client, statement: Statement, unknown: set[str]) -> str | None:
        """What to send in place of a statement that asks for settings; ``unknown``: those only others have made."""
        return None

    def takes_locks(self, statement: Statement) -> bool:
        """Whether a statement may take a lock of the server's session, which a rollback does not give back."""
        return statement.kind is Kind.WRITE or any("advisory" in name for name in statement.calls)

    def read_settings(self, names: Iterable[str]) -> str:
        """The query for the values of some parameters."""
        return read_settings(names)

    def write_settings(self, values: Mapping[str, object]) -> str:
        """The statement that sets them."""
        return write_settings(values)

    def outer(self, *statements: str) -> list[str]:
        """How to run some statements of the harness's own in as few round trips as the database allows."""
        return list(statements)

    notes: dict[str, str] = {}
    """What to say with an error of the server's that only a test gets, by its SQLSTATE."""

    def annotate(self, error: BaseException) -> None:
        """Add a note to an error that only a test gets, because it runs inside a transaction."""
        state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
        if state in self.notes and self.notes[state] not in getattr(error, "__notes__", ()):
            error.add_note(self.notes[state])

    deferred_names = ""
    """SQL for the names of the constraints that are deferred from the start; empty where there are none."""

    def check_deferred(self, names: str) -> list[str]:
        """SQL that checks the deferred constraints now and leaves them deferred."""
        return []

    def violation(self, rows: Rows) -> str:
        """What the database would say at the commit, after rows of :meth:`check_deferred`; empty if nothing."""
        return ""

    volatile_functions = ""
    """SQL for names with their kind: a ``function`` of users that may write, a ``view`` that calls one, a function or
    procedure whose parameters or result are a server-side ``cursor``."""
    writing_functions: frozenset[str] = frozenset()
    trigger_counts = ""
    """SQL for three numbers: triggers and rules that may write when an INSERT, UPDATE or DELETE changes no row."""
    undo_session = ""
    """SQL that takes back what a rollback does not: locks of the server's session."""
    counters_roll_back = False
    """Whether a rollback sets back the counters that new ids come from."""
    bloated = ""
    """SQL for the SQL that removes the dead rows of rolled-back tests; NULL if there are few."""
    sequences = ""
    """SQL that gives SQL, which gives each sequence's oid, value and whether it was called."""

    def restore_sequences(self, rows: Sequence[Sequence[object]]) -> str:
        """SQL that sets back the sequences that have moved since :attr:`sequences` was asked; a rollback does not."""
        return ""

    relations = ""
    """SQL for :class:`dbtestcase.sandbox.relations.Relations`; empty where any statement may touch any table."""
    any_case = False
    """Whether names of tables that differ only in case may be the same."""


class PostgreSQLRules(Rules):
    """PostgreSQL 12 and later."""

    notes = {
        "25001": "dbtestcase: the test runs in a transaction, where PostgreSQL refuses this; " + COMMITTING,
        "2D000": "dbtestcase: the test runs in a transaction, which a procedure cannot end; " + COMMITTING,
        "55006": "dbtestcase: a cursor WITH HOLD goes on to use its tables until it is closed, since the commit that "
        "would store its rows never comes; close it, or " + COMMITTING,
        "55P04": "dbtestcase: a value that was added to an enum can be used once that is committed, which it never is "
        "in the transaction of a test; " + COMMITTING,
    }

    name = "postgresql"
    refuses_plain = False
    error_aborts = True
    has_settings = True
    read_only = "SAVEPOINT dbtc_read_only;SET LOCAL transaction_read_only = on"
    end_read_only = "RELEASE SAVEPOINT dbtc_read_only"
    plans = "SELECT name FROM pg_catalog.pg_prepared_statements WHERE NOT from_sql"
    ending_settings = frozenset(("idle_in_transaction_session_timeout", "idle_session_timeout", "transaction_timeout"))
    no_end = (
        "SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings "
        f"WHERE setting <> '0' AND name IN ({', '.join(map(literal, sorted(ending_settings)))})"
    )

    def render(self, steps: list[Step]) -> list[str]:
        return [";".join(f"{verb.value} {name}" for verb, name in steps)] if steps else []

    def outer(self, *statements: str) -> list[str]:
        return [";".join(statements)]

    def level_of(self, client: Client) -> str:
        # what a connection's transactions begin with holds for no statement that commits by itself
        if not client.each_statement:
            return super().level_of(client)
        asked = client.level_now or client.settings.at_beginning.get("default_transaction_isolation")
        return str(asked or self.default_level).lower()

    def is_read_only(self, client: Client) -> bool:
        if not client.each_statement:
            return super().is_read_only(client)
        return _is_on(client.settings.at_beginning.get("default_transaction_read_only"))

    def is_deferrable(self, client: Client) -> bool:
        if not client.each_statement:
            return super().is_deferrable(client)
        return _is_on(client.settings.at_beginning.get("default_transaction_deferrable"))

    def refuse_characteristics(self, client: Client, text: str) -> str:
        if _SNAPSHOT.search(text):
            raise SandboxEscape(
                f"The statement {' '.join(text.split())[:200]!r} asks for another's snapshot; it was not sent.",
                cause="all connections share one transaction here, which has no snapshot of its own to exchange",
                remedy=COMMITTING,
            )
        level, read_only = characteristics(text)
        changes = level and level != self.level_of(client)
        if changes and client.labels:
            return "SET TRANSACTION ISOLATION LEVEL must not be called in a subtransaction"
        if read_only is False and client.labels and self.is_read_only(client):
            return "cannot set transaction read-write mode inside a read-only transaction"
        if not client.active or client.each_statement or not client.has_run:
            return ""
        if changes:
            return "SET TRANSACTION ISOLATION LEVEL must be called before any query"
        if read_only is False and self.is_read_only(client):
            return "transaction read-write mode must be set before any query"
        return ""

    def report(self, client: Client, statement: Statement, unknown: set[str]) -> str | None:
        level, deferrable = self.level_of(client), self.is_deferrable(client)
        return report(statement, level, unknown, usual=self.default_level, deferrable=deferrable)

    def replace(self, statement: Statement) -> str | None:
        if statement.kind is Kind.CHARACTERISTICS:
            # no other transaction runs beside this one: every level gives the same result
            return "SET LOCAL dbtestcase.transaction = 'accepted'"
        return statement.rewrite

    deferred_names = (
        "SELECT coalesce(string_agg(DISTINCT format('%I.%I', n.nspname, c.conname), ','), '') "
        "FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace WHERE c.condeferred"
    )

    def check_deferred(self, names: str) -> list[str]:
        # never in a savepoint that is rolled back afterwards: the trigger events would be pending again, and DDL fails
        return ["SET CONSTRAINTS ALL IMMEDIATE" + (f";SET CONSTRAINTS {names} DEFERRED" if names else "")]

    volatile_functions = (
        "WITH RECURSIVE f AS (SELECT p.oid, p.proname FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n "
        "ON n.oid = p.pronamespace WHERE p.provolatile = 'v' AND p.prorettype NOT IN ('trigger'::regtype, "
        "'event_trigger'::regtype) AND n.nspname NOT IN ('pg_catalog', 'information_schema')), "
        "d AS (SELECT r.ev_class, d.refclassid, d.refobjid FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_rewrite r "
        "ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND r.ev_type = '1'), "
        "v AS (SELECT d.ev_class FROM d JOIN f ON d.refclassid = 'pg_proc'::regclass AND d.refobjid = f.oid "
        "UNION SELECT d.ev_class FROM d JOIN v ON d.refclassid = 'pg_class'::regclass AND d.refobjid = v.ev_class) "
        "SELECT DISTINCT proname, 'function' FROM f UNION ALL SELECT c.relname, 'view' FROM v "
        "JOIN pg_catalog.pg_class c ON c.oid = v.ev_class UNION ALL SELECT proname, 'cursor' FROM pg_catalog.pg_proc "
        "WHERE 'refcursor'::regtype = ANY (coalesce(proallargtypes, proargtypes) || prorettype) AND oid >= 16384 "
        "UNION ALL SELECT p.proname, k.kind FROM pg_catalog.pg_proc p JOIN (VALUES "
        "('temporary', '\\mtemp(orary)?\\M'), ('advisory', '\\mpg_\\w*advisory_')) k (kind, pattern) "
        "ON p.prosrc ~* k.pattern WHERE p.oid >= 16384"
    )
    writing_functions = frozenset(
        (
            *("lo_create", "lo_creat", "lo_import", "lo_unlink", "lowrite", "lo_put", "lo_from_bytea", "lo_truncate"),
            *("lo_truncate64", "dblink", "dblink_exec", "query_to_xml", "query_to_xmlschema"),
            "query_to_xml_and_xmlschema",
        )
    )
    trigger_counts = (
        "WITH t AS (SELECT tgtype AS bits FROM pg_catalog.pg_trigger "
        "WHERE NOT tgisinternal AND (tgtype & 1 = 0 OR tgtype & 66 > 0)), "
        "r AS (SELECT count(*) AS n FROM pg_catalog.pg_rewrite WHERE ev_type <> '1' AND oid >= 16384) "
        "SELECT n + (SELECT count(*) FROM t WHERE bits & 4 > 0), n + (SELECT count(*) FROM t WHERE bits & 16 > 0), "
        "n + (SELECT count(*) FROM t WHERE bits & 8 > 0) FROM r"
    )
    undo_session = "SELECT FROM pg_catalog.pg_advisory_unlock_all()"
    bloated = (
        "SELECT 'VACUUM (SKIP_LOCKED) ' || string_agg(format('%I.%I', schemaname, relname), ', ') "
        "FROM pg_catalog.pg_stat_user_tables WHERE n_dead_tup > 500"
    )
    sequences = (
        "SELECT coalesce(string_agg(format('SELECT %s::oid, last_value, is_called FROM %s', oid, oid::regclass), "
        "' UNION ALL '), '') FROM pg_catalog.pg_class WHERE relkind = 'S' AND relpersistence <> 't'"
    )

    def restore_sequences(self, rows: Sequence[Sequence[object]]) -> str:
        values = ", ".join(f"({oid}::oid, {value}::bigint, {_is_true(called)})" for oid, value, called in rows)
        return (
            f"SELECT pg_catalog.setval(oid::regclass, value, called) FROM (VALUES {values}) s (oid, value, called) "
            "WHERE pg_catalog.pg_sequence_last_value(oid) IS DISTINCT FROM CASE WHEN called THEN value END"
        )

    relations = (
        "WITH r AS (SELECT oid, relname::text, relkind FROM pg_catalog.pg_class "
        "WHERE relkind IN ('r', 'p', 'f', 'v', 'm') AND oid >= 16384) "
        "SELECT CASE WHEN relkind IN ('r', 'p', 'f') THEN 'table' ELSE 'view' END, relname, '' FROM r UNION ALL "
        "SELECT 'function', proname::text, '' FROM pg_catalog.pg_proc WHERE oid >= 16384 UNION ALL "
        "SELECT 'trigger', r.relname, '' FROM pg_catalog.pg_trigger t JOIN r ON r.oid = t.tgrelid "
        "WHERE NOT t.tgisinternal UNION ALL "
        "SELECT 'trigger', r.relname, '' FROM pg_catalog.pg_rewrite w JOIN r ON r.oid = w.ev_class "
        "WHERE w.ev_type <> '1' UNION ALL "
        "SELECT 'cascade', p.relname, c.relname FROM pg_catalog.pg_constraint k JOIN r p ON p.oid = k.confrelid "
        "JOIN r c ON c.oid = k.conrelid WHERE k.contype = 'f' "
        "AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd')) UNION ALL "
        "SELECT 'check', c.relname, p.relname FROM pg_catalog.pg_constraint k JOIN r p ON p.oid = k.confrelid "
        "JOIN r c ON c.oid = k.conrelid WHERE k.contype = 'f' UNION ALL "
        "SELECT 'check', p.relname, c.relname FROM pg_catalog.pg_constraint k JOIN r p ON p.oid = k.confrelid "
        "JOIN r c ON c.oid = k.conrelid WHERE k.contype = 'f' UNION ALL "
        "SELECT 'child', p.relname, c.relname FROM pg_catalog.pg_inherits i JOIN r p ON p.oid = i.inhparent "
        "JOIN r c ON c.oid = i.inhrelid"
    )


def _is_on(value: object) -> bool:
    return str(value or "off").lower() in ("on", "true", "yes", "1", "t", "y")


def _is_true(value: object) -> str:
    return "true" if value in (True, "t", "true") else "false"


_registry: dict[str, Callable[[], Rules]] = {"postgresql": PostgreSQLRules}


def register_rules(dialect: str, factory: Callable[[], Rules]) -> None:
    """Make the rules of a dialect known."""
    _registry[dialect] = factory


def rules_for(dialect: str) -> Rules:
    """The rules of a dialect by its SQLAlchemy name."""
    return _registry.get(dialect, Rules)()
