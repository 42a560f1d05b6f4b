"""``LISTEN`` and ``UNLISTEN``: each connection has its own list, which changes when its transaction commits.

In the one transaction of all, which never commits, the server's list stays empty.
"""

from __future__ import annotations

import json
import re
from typing import ClassVar

from ..errors import SandboxEscape
from .connections import Client
from .lexer import NAME, POSTGRESQL, name_in
from .rules import COMMITTING
from .session_objects import SessionObjects, nothing
from .session_settings import Flow, literal
from .statements import Statement
from .topics import Topic

_SAID = re.compile(rf"(?:^|;)\s*(listen|unlisten)\s+(\*|{NAME})", re.IGNORECASE)
_ASKED = re.compile(r"(?:\bpg_catalog\s*\.\s*)?\bpg_listening_channels(?=\s*\()", re.IGNORECASE)
_SETTING = "dbtestcase.listening"
_FUNCTION = (
    "CREATE FUNCTION pg_temp.pg_listening_channels() RETURNS SETOF text LANGUAGE sql AS $dbtc$ SELECT value "
    f"FROM json_array_elements_text(pg_catalog.current_setting('{_SETTING}', true)::json) $dbtc$"
)


def never_notified(what: str) -> SandboxEscape:
    """The error for a connection that waits for what somebody notifies."""
    return SandboxEscape(
        f"{what} would wait in vain: a NOTIFY is delivered when its transaction commits, which it never does here.",
        cause="LISTEN and NOTIFY in the sandbox",
        remedy=COMMITTING,
    )


class Listening(SessionObjects):
    """What each connection listens to."""

    topics: ClassVar[Topic] = Topic.LISTENING

    def __init__(self) -> None:
        self._channels: dict[Client, list[str]] = {}
        self._said: dict[Client, list[tuple[int, str, str]]] = {}

    @property
    def used(self) -> bool:  # type: ignore[override]
        return bool(self._said)

    def listens(self, client: Client) -> bool:
        """Whether it listens to anything, or will when it commits."""
        return bool(self._channels.get(client) or self._said.get(client))

    def before(self, client: Client, statement: Statement) -> Flow:
        if Topic.LISTENING in statement.topics and _ASKED.search(statement.text):
            channels = json.dumps(list(self._channels.get(client, ())))
            rows = yield (
                "SELECT pg_catalog.to_regprocedure('pg_temp.pg_listening_channels()') IS NOT NULL, "
                f"pg_catalog.set_config('{_SETTING}', {literal(channels)}, false)"
            )
            if rows[0][0] not in (True, "t"):
                yield _FUNCTION

    def replace(self, client: Client, statement: Statement) -> str | None:
        if Topic.LISTENING not in statement.topics:
            return None
        text = statement.text
        for match in reversed(list(_ASKED.finditer(POSTGRESQL.mask(text)))):
            text = f"{text[: match.start()]}pg_temp.pg_listening_channels{text[match.end() :]}"
        return text if text != statement.text else None

    def after(self, client: Client, statement: Statement) -> Flow:
        if Topic.LISTENING in statement.topics:
            text = statement.text
            for match in _SAID.finditer(POSTGRESQL.mask(text)):
                name = name_in(text[match.start(2) : match.end(2)])
                self._said.setdefault(client, []).append((client.depth, match[1].lower(), name))
        return nothing()

    def ended(self, client: Client, *, committed: bool) -> Flow:
        for _, verb, name in self._said.pop(client, ()):
            if committed:
                mine = self._channels.setdefault(client, [])
                if verb == "listen" and name not in mine:
                    mine.append(name)
                elif verb == "unlisten":
                    self._channels[client] = [each for each in mine if name not in (each, "*")]
        return nothing()

    def rolled_back_to(self, client: Client, depth: int) -> None:
        if client in self._said:
            self._said[client] = [each for each in self._said[client] if each[0] < depth]

    def released(self, client: Client, depth: int) -> None:
        if client in self._said:
            self._said[client] = [(min(each[0], depth - 1), *each[1:]) for each in self._said[client]]

    def closed(self, client: Client) -> None:
        self._channels.pop(client, None)

    def forget(self, scope: int) -> Flow:
        self._channels.clear()
        self._said.clear()
        return nothing()
