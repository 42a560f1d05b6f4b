"""The sandbox: many connections of an application over one wire, in one transaction that is never committed.

How it works
============

A :class:`Sandbox` owns a *wire*: one physical connection in one outer transaction.  Each connection that the
application opens is a *virtual connection*, known here as a :class:`Client`.  What a client believes to be ``BEGIN …
COMMIT`` is a savepoint; ``savepoints`` decides which.  A test ends with one ``ROLLBACK TO SAVEPOINT``
(``transaction``), and everything that any client did is gone, committed or not.

Between the decisions and the drivers are *flows*: generators that yield SQL and receive rows (``statement_flows``,
``transaction_flows``).  A driver runs them, synchronously or asynchronously, so that the logic is written once::

    def execute(self, sql):
        statement = classify(sql)
        drive(sandbox.before(client, statement))     # may yield SAVEPOINT …
        real_cursor.execute(sql)
        drive(sandbox.after(client, statement, real_cursor.rowcount))

The order of things in one statement:

1. the client waits for the wire (:mod:`dbtestcase.sandbox.scheduler`);
2. a transaction that an error has aborted is rolled back to its savepoint, so that nobody else is poisoned;
3. what cannot be contained is refused, before it is sent;
4. the client's savepoint is set, if the top of the stack is not its own, and its ``SET`` parameters are applied;
5. what clients own in the session (:mod:`dbtestcase.sandbox.session_objects`) is put in order for this one;
6. the statement runs.

Limits
======

* One connection has one snapshot.  A statement sees what other clients have written and not committed; where that can
  happen a :exc:`DirtyReadWarning` says so.  Make it an error with ``-W error::dbtestcase.DirtyReadWarning``.
* No transaction runs beside another: rows that somebody else has locked, snapshots that differ, ``NOTIFY``, ``now()``
  per transaction and what the server refuses inside a transaction (``VACUUM``, ``CREATE DATABASE``) need
  ``TruncatingDatabaseTest``.
* There is one session of the server.  :mod:`dbtestcase.sandbox.session_state` keeps apart what connections own in it
  by kinds; sequences are common to all anyway (one goes on where it was unless ``reset_sequences`` is set).

Questions
=========

"… cannot be rolled back: … wrote after it began and …"
    (:exc:`SandboxConflict`)  Transaction A wrote, then B wrote and committed, then A rolled back.  On the server that
    works because A and B are two connections.  Here B's rows lie above A's in one transaction, and the server can only
    undo both.  Usually a session was left open: close A before B begins, or test this in ``TruncatingDatabaseTest``.

"The statement 'COMMIT' would end or begin the transaction that the test runs in; it was not sent."
    (:exc:`SandboxEscape`)  Use the methods of the connection or session, which the sandbox can follow.

"… is in the middle of a COPY, a stream or a pipeline."
    (:exc:`SandboxBusy`)  The wire carries one answer at a time.  Finish the generator or the ``with`` block first.

"… lost the connection of the sandbox"
    (:exc:`LeakError`)  The server was stopped or ended it, a timeout out of a signal's handler broke it, or a thread
    was in the middle of something when the test ended and could not be interrupted.  Nothing was kept; the next test
    gets a new connection, and its class is set up again.

"The cursor … cannot be declared: … has an open one of that name."
    (:exc:`SandboxConflict`)  Names of server-side cursors belong to the server's session, which all connections share.

"Deadlock: … waits for the unfinished transaction of …"
    (:exc:`SandboxConflict`)  Two threads or tasks have both written and wait for each other.

"… belongs to …, which has ended."
    (:exc:`SandboxClosed`)  A thread, a task or a global kept a connection beyond its test.  What it did now would show
    up in another test, so it is refused.  A session that the test's own thread has left open, or a pool's thread that
    waits for work, is no such case: it is rolled back with the test, and as new in the next one.

"… was left with unfinished writes"
    (:exc:`LeakError`)  A commit was forgotten: in production these rows would be lost.

"… was raised and swallowed"
    (:exc:`LeakError`)  An ``except Exception`` of the application hid one of the errors above.
"""

from __future__ import annotations

from .connections import NO_ARGUMENTS, Arguments, Client, Wire, characteristics
from .lexer import FILL, MYSQL, PART, POSTGRESQL, SQLITE, Lexer, name_in
from .listening import never_notified
from .problems import find_swallowed, outer_transaction_ended
from .rules import COMMITTING, Rules, register_rules, rules_for
from .savepoints import Stack
from .schema_facts import SchemaFacts
from .session_objects import SessionObjects
from .session_settings import Flow, Rows, literal
from .session_state import Fail, common_objects, register_objects
from .splitting import BLANKS, split, statement_spans
from .statements import Kind, Statement, classify, with_parameter_names
from .temporary_names import TemporaryNames
from .topics import Topic
from .transaction import Sandbox
from .wire_lock import WireLock

__all__ = [
    "BLANKS",
    "COMMITTING",
    "FILL",
    "MYSQL",
    "NO_ARGUMENTS",
    "PART",
    "POSTGRESQL",
    "SQLITE",
    "Arguments",
    "Client",
    "Fail",
    "Flow",
    "Kind",
    "Lexer",
    "Rows",
    "Rules",
    "Sandbox",
    "SchemaFacts",
    "SessionObjects",
    "Stack",
    "Statement",
    "TemporaryNames",
    "Topic",
    "Wire",
    "WireLock",
    "characteristics",
    "classify",
    "common_objects",
    "find_swallowed",
    "literal",
    "name_in",
    "never_notified",
    "outer_transaction_ended",
    "register_objects",
    "register_rules",
    "rules_for",
    "split",
    "statement_spans",
    "with_parameter_names",
]
