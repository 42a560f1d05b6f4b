"""Many connections, one transaction that is never committed."""

from __future__ import annotations

from .connections import Client, Wire
from .lexer import FILL, MYSQL, PART, SQLITE, Lexer
from .problems import find_swallowed, outer_transaction_ended
from .rules import COMMITTING, Rules, register_rules, rules_for
from .savepoints import Stack
from .schema_facts import Catalog
from .session_objects import SessionObjects
from .session_settings import Flow, Rows
from .session_state import Fail, common_objects, register_objects
from .splitting import BLANKS, split, statement_spans
from .statements import Kind, Statement, classify, with_parameter_names
from .temporary_names import TemporaryNames
from .topics import Topic
from .transaction import Sandbox

__all__ = [
    "BLANKS",
    "COMMITTING",
    "FILL",
    "MYSQL",
    "PART",
    "SQLITE",
    "Catalog",
    "Client",
    "Fail",
    "Flow",
    "Kind",
    "Lexer",
    "Rows",
    "Rules",
    "Sandbox",
    "SessionObjects",
    "Stack",
    "Statement",
    "TemporaryNames",
    "Topic",
    "Wire",
    "classify",
    "common_objects",
    "find_swallowed",
    "outer_transaction_ended",
    "register_objects",
    "register_rules",
    "rules_for",
    "split",
    "statement_spans",
    "with_parameter_names",
]
