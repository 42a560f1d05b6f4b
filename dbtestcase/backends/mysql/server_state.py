"""What a test may change on a server of MySQL or MariaDB outside of its database: users, rights, variables and such."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .link import Link, ServerSaid, literal, quoted

_RIGHTS = (
    "global_priv",
    "db",
    "tables_priv",
    "columns_priv",
    "procs_priv",
    "roles_mapping",
    "proxies_priv",
    "servers",
    "func",
)
"""Tables of users and what they may do: what ``FLUSH PRIVILEGES`` reads, and functions of libraries."""

_VARIABLE = "the variable "
_BY_THEMSELVES = ("gtid_", "innodb_buffer_pool_dump", "innodb_buffer_pool_load", "rpl_semi_sync", "slave_", "wsrep_")


@dataclass(frozen=True)
class _Thing:
    """``name``: as a statement writes it.  ``table``: of the row ``values``, where it is one."""

    name: str
    table: str = ""
    values: tuple[tuple[str, Any], ...] = ()
    value: str = ""


class ServerState:
    """The state of the moment when this is made, as far as the user may see it."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._tables: dict[str, list[str]] = {}
        for table, column in link.rows(
            "SELECT TABLE_NAME, COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = 'mysql'"
            f" AND TABLE_NAME IN ({', '.join(map(literal, _RIGHTS))}) ORDER BY ORDINAL_POSITION"
        ):
            self._tables.setdefault(str(table), []).append(str(column))
        self._wanted = self._read()
        self._digest = self._look()

    def accept(self) -> None:
        """What there is at this moment is what is to be."""
        digest = self._look()
        if digest != self._digest:
            self._wanted, self._digest = self._read(), digest

    def _look(self) -> object:
        """Something that is the same where all is; :meth:`_read` takes ten times as long."""
        names = ", ".join(
            f"@@GLOBAL.{each.name}" for title, each in self._wanted.items() if title.startswith(_VARIABLE)
        )
        tables = ", ".join(f"mysql.{table}" for table in self._tables)
        looks = [f"SELECT MD5(CONCAT_WS('|', {names}))", "SHOW DATABASES"]
        return [self.link.rows(each) for each in (*looks, *([f"CHECKSUM TABLE {tables}"] if tables else ()))]

    def _read(self) -> dict[str, _Thing]:
        found: dict[str, _Thing] = {}
        for table, columns in self._tables.items():
            listed = ", ".join(map(quoted, columns))
            try:
                rows = self.link.rows(f"SELECT {listed} FROM mysql.{table}")
            except ServerSaid as error:
                if error.lost:
                    raise
                continue  # not for this user to see
            for row in rows:
                values = dict(zip(columns, row, strict=True))
                values.pop("Timestamp", None)
                name = str(values.get("User") or values.get("Server_name") or values.get("name") or "")
                where = [str(values[each]) for each in ("Host", "Db", "Table_name", "Routine_name") if values.get(each)]
                title = f"{table} of {name}" + (f" ({', '.join(where)})" if where else "")
                while title in found:
                    title += "'"
                found[title] = _Thing(name, table, tuple(values.items()))
        for name, value in self.link.rows("SHOW GLOBAL VARIABLES"):
            if not str(name).startswith(_BY_THEMSELVES):
                found[_VARIABLE + str(name)] = _Thing(str(name), value=str(value))
        for (name,) in self.link.rows("SHOW DATABASES"):
            if name != self.link.database:
                found[f"the database {name}"] = _Thing(str(name))
        return found

    def changes(self, named_in: str | None) -> tuple[str, ...]:
        """What has changed and is still as it was changed, in words; from now on it counts as wanted.

        :param named_in: the statements that were seen, where others use the server as well: nothing else is told.
            ``None``: nobody else does, so what was changed is made as it was.
        """
        digest = self._look()
        if digest == self._digest:
            return ()
        found = self._read()
        if named_in is None and found != self._wanted:
            self._put_back(found)
            found, digest = self._read(), self._look()
        wanted, self._wanted, self._digest = self._wanted, found, digest
        return tuple(
            f"{title} is {'gone' if title not in found else 'new' if title not in wanted else 'another one'}"
            for title, thing in sorted({**wanted, **found}.items(), key=lambda item: item[0])
            if found.get(title) != wanted.get(title)
            and (named_in is None or (bool(thing.name) and thing.name in named_in))
        )

    def _put_back(self, found: dict[str, _Thing]) -> None:
        statements = []
        for title in found.keys() | self._wanted.keys():
            now, before = found.get(title), self._wanted.get(title)
            if now == before:
                continue
            if now is not None and now.table:
                same = " AND ".join(f"{quoted(name)} <=> {_written(value)}" for name, value in now.values)
                statements.append(f"DELETE FROM mysql.{now.table} WHERE {same}")
            if before is not None and before.table:
                names, values = zip(*before.values, strict=True)
                listed = f"({', '.join(map(quoted, names))}) VALUES ({', '.join(map(_written, values))})"
                statements.append(f"REPLACE INTO mysql.{before.table} {listed}")
            if title.startswith(_VARIABLE) and before is not None:
                value = before.value if before.value.replace(".", "", 1).isdigit() else literal(before.value)
                statements.append(f"SET GLOBAL {before.name} = {value}")
            if title.startswith("the database") and now is not None:
                statements.append(f"DROP DATABASE {quoted(now.name)}")
        for statement in [*sorted(statements), "FLUSH PRIVILEGES"]:
            try:
                self.link.rows(statement)
            except ServerSaid as error:
                if error.lost:
                    raise
                continue  # the next look tells


def _written(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, (bytes, bytearray)):
        return f"X'{value.hex()}'"
    return literal(str(value))
