"""A DBAPI on the wire: its connections and cursors as virtual ones; a folder or a module for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..reporting import lazily
from . import first_connections
from .behaviour import behaviour_of, watch_behaviour
from .connecting import arguments_of, connect_as_asked, connecting, watch_attaching
from .direct_connections import watching
from .direct_doors import ATTACHED, NAMED, OPEN, check_names, guard, watch_files
from .endpoints import (
    Endpoint,
    address_beside,
    connect_arguments,
    endpoints_of_arguments,
    endpoints_of_connection,
    endpoints_of_pool,
    endpoints_of_url,
    environment,
    family_of,
    meet,
)
from .harness import harness_connections, is_harness, is_let_pass, is_own, letting_pass, own
from .late_imports import when_imported
from .mysql.watching import watch_session
from .own_cursors import watch_cursors
from .patience import patient, patiently
from .sockets import arrivals_at, descriptor_of
from .sqlalchemy_internals import (
    checked_out,
    constraints_of,
    creates_itself,
    creator_of,
    dialect_of,
    forbid_overflow,
    is_asyncio,
    original_of,
    pool_of,
    pool_of_record,
    pool_with_events,
    record_of,
    schema_generator,
    sequences_of,
    set_creator,
)
from .wires import KEEPALIVES, LOCK_TIMEOUT, WireFactory, get_ready_for_wire, open_wire, register

if TYPE_CHECKING:
    from .own_connections import OwnConnection

__all__ = [
    "ATTACHED",
    "KEEPALIVES",
    "LOCK_TIMEOUT",
    "NAMED",
    "OPEN",
    "Endpoint",
    "OwnConnection",
    "WireFactory",
    "address_beside",
    "arguments_of",
    "arrivals_at",
    "behaviour_of",
    "check_names",
    "checked_out",
    "connect_arguments",
    "connect_as_asked",
    "connecting",
    "constraints_of",
    "creates_itself",
    "creator_of",
    "descriptor_of",
    "dialect_of",
    "endpoints_of_arguments",
    "endpoints_of_connection",
    "endpoints_of_pool",
    "endpoints_of_url",
    "environment",
    "family_of",
    "first_connections",
    "forbid_overflow",
    "get_ready_for_wire",
    "guard",
    "harness_connections",
    "is_asyncio",
    "is_harness",
    "is_let_pass",
    "is_own",
    "letting_pass",
    "meet",
    "open_wire",
    "original_of",
    "own",
    "patient",
    "patiently",
    "pool_of",
    "pool_of_record",
    "pool_with_events",
    "record_of",
    "register",
    "schema_generator",
    "sequences_of",
    "set_creator",
    "watch_attaching",
    "watch_behaviour",
    "watch_cursors",
    "watch_files",
    "watch_session",
    "watching",
    "when_imported",
]

# Loaded when first asked for: not every run has psycopg.
__getattr__ = lazily(__name__, own_connections="OwnConnection")
