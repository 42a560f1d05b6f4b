"""What a virtual connection of psycopg says of itself."""

from __future__ import annotations

from typing import Any

import psycopg


class Info(psycopg.ConnectionInfo):
    """``connection.info``: the settings are the connection's own, not the physical one's."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection.pgconn)
        self._connection = connection

    def get_parameters(self) -> dict[str, str]:
        parameters: dict[str, str] = super().get_parameters()
        parameters.update(self._connection.given)
        return parameters

    def parameter_status(self, param_name: str) -> str | None:
        self._connection.settle_settings()
        return super().parameter_status(param_name)

    @property
    def timezone(self) -> Any:
        self._connection.settle_settings()
        return super().timezone

    @property
    def encoding(self) -> str:
        self._connection.settle_settings()
        return super().encoding
