"""Hints for a failure whose cause is known, and what an expected failure must not be: this library's refusal."""

from __future__ import annotations

import linecache
import re
import traceback
from collections.abc import Iterator

from sqlalchemy import MetaData

from ..errors import ConfigurationError, DatabaseError, LeakError, SandboxError, ServerError
from ..reporting import Query, says
from ..sandbox import COMMITTING

_SHOWN = 8  # names of tables

_NO_TABLE = re.compile(
    r'relation "(?P<pg>[^"]+)" does not exist|no such table: (?P<lite>\S+)|Table \'(?P<my>[^\']+)\' doesn\'t exist'
)
_NUMBERS = re.compile(r"^(?:assert )?(\d+) (?:!=|==) (\d+)")
_NOT_FOUND = re.compile(r"^(?:assert )?(?:404 (?:!=|==) \d+|\d+ (?:!=|==) 404)|None|NoneType")
_ID_IN_SOURCE = re.compile(r"\b(?:\w*_)?(?:id|pk)\b|\.get\(\s*\w[\w.]*\s*,\s*\d+|/\d+(?:[/\"'?]|$)")
_TIME = re.compile(r"datetime\.datetime\([^()]*(?:\([^()]*\)[^()]*)*\)")
_ORDER_BY = re.compile(r"\border by\b(.*)", re.IGNORECASE | re.DOTALL)


def hints(
    error: BaseException,
    *,
    name: str,
    metadata: list[MetaData],
    made_by: str,
    dialect: str,
    resets: bool,
    log: list[Query],
) -> Iterator[str]:
    """What may be behind the failure of a test.

    :param name: the test class.
    :param made_by: what makes the tables instead of ``metadata``, such as ``alembic.ini``; empty where nothing does.
    :param resets: whether ids start from the same number in every test.
    :param log: the statements of the test.
    """
    table = _missing_table(error)
    if table:
        yield _about_tables(table, name, metadata, made_by)
    if any(type(each).__name__ == "MissingGreenlet" for each in chain(error)) and _passed(error, "_load_expired"):
        yield (
            "dbtestcase: a commit() of `session` has expired its instances, as SQLAlchemy does unless it is told "
            "otherwise, and in async code reading them again has to be awaited: await self.session.refresh(instance). "
            "An application need not be given the test's session: whatever its own ones commit is undone as well."
        )
    if isinstance(error, TypeError) and "must be psycopg2.extensions." in str(error):
        yield (
            "dbtestcase: what psycopg2 has written in C, such as prepare() of an adapter, takes its own connections "
            f"and cursors only, and not those of the sandbox: {COMMITTING}."
        )
    if isinstance(error, AssertionError | AttributeError | TypeError):
        if not resets and dialect != "sqlite" and _is_about_an_id(error):
            way = "the id of the row that it made, or TruncatingDatabaseTest"
            if dialect == "postgresql":
                way = f"the id of the row that it made, or {name}.reset_sequences = True"
            yield (
                "dbtestcase: ids go on from test to test: a rollback does not set them back. Where a test counts on a "
                f"number, use {way}."
            )
        if dialect == "postgresql" and (_is_a_tie(error) or _is_ordered_by_time(error, metadata, log)):
            yield (
                "dbtestcase: now() is the time at which the outer transaction began, the same for all rows, so "
                "rows that a now() default orders are tied. Give the rows times of their own, order by the id as well, "
                "use clock_timestamp() as the default, or TruncatingDatabaseTest."
            )


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error, and all that is behind it."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        each = pending.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        orig = getattr(each, "orig", None)
        pending += [each.__context__, each.__cause__, orig if isinstance(orig, BaseException) else None]
        pending += each.exceptions if isinstance(each, BaseExceptionGroup) else ()


def _missing_table(error: BaseException) -> str:
    for each in chain(error):
        found = _NO_TABLE.search(str(each))
        if found:
            return str(next(filter(None, found.groups()))).rpartition(".")[2]
    return ""


def _about_tables(table: str, name: str, metadata: list[MetaData], made_by: str) -> str:
    begin = f'dbtestcase: the table "{table}" was not made in the test database'
    if made_by:
        return (
            f"{begin}: the migrations of {made_by} make its tables, and none of them makes this one. A revision may be "
            "missing (alembic revision --autogenerate), or the table belongs to another project."
        )
    names = [each.fullname for one in metadata for each in one.tables.values()]
    if not metadata:
        return f"{begin}: {name} has no `metadata`, so no table was. Write metadata = Base.metadata in the class."
    if any(table == each.rpartition(".")[2] for each in names):
        return (
            f"{begin}, though `metadata` holds it now: the module with its model was imported only after the class had "
            "begun. Import it at the top of the test module."
        )
    shown = ", ".join(sorted(names)[:_SHOWN]) + (f", … ({len(names)} in all)" if len(names) > _SHOWN else "")
    return (
        f"{begin}: the `metadata` of {name} holds {shown or 'no tables'}. The module of its model may not be imported "
        "(import it at the top of the test module), or the model belongs to another base: metadata = [A.metadata, …]."
    )


def _passed(error: BaseException, function: str) -> bool:
    """Whether an error, or one behind it, went through a function of that name."""
    tracebacks = [each.__traceback__ for each in chain(error)]
    return any(frame.f_code.co_name == function for each in tracebacks for frame, _ in traceback.walk_tb(each))


def _lines(error: BaseException) -> Iterator[str]:
    """The source lines that the error passed through, from the test's on; the library's own are left out."""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if not frame.f_globals.get("__unittest"):
            yield linecache.getline(frame.f_code.co_filename, line, frame.f_globals)


def _is_about_an_id(error: BaseException) -> bool:
    text = str(error)
    if isinstance(error, AssertionError) and _NUMBERS.search(text):
        return any(_ID_IN_SOURCE.search(line) for line in _lines(error))
    if not _NOT_FOUND.search(text):
        return False
    return any(re.search(r"\.get\(\s*\w[\w.]*\s*,\s*\d+|/\d+(?:[/\"'?]|$)", line) for line in _around(error))


def _around(error: BaseException) -> Iterator[str]:
    """The lines of the test's function up to the one that failed."""
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if not frame.f_globals.get("__unittest"):
            code = frame.f_code
            for number in range(max(code.co_firstlineno, traceback.tb_lineno - 20), traceback.tb_lineno + 1):
                yield linecache.getline(code.co_filename, number, frame.f_globals)
        traceback = traceback.tb_next


def _is_a_tie(error: BaseException) -> bool:
    times = _TIME.findall(str(error))
    return len(times) >= 2 and times[0] == times[1]


def _is_ordered_by_time(error: BaseException, metadata: list[MetaData], log: list[Query]) -> bool:
    """Whether sequences differ, in a test that has read rows in the order of a ``now()`` default."""
    if not isinstance(error, AssertionError) or "differ" not in str(error):
        return False
    columns = {
        column.name
        for one in metadata
        for table in one.tables.values()
        for column in table.columns
        if re.search(r"now\(|current_timestamp", str(getattr(column.server_default, "arg", "")), re.IGNORECASE)
    }
    for query in log:
        found = _ORDER_BY.search(query.statement)
        if found and columns & set(re.findall(r"\w+", found[1])):
            return True
    return False


def extension_hint(error: BaseException) -> str:
    """The ways out where a server has not got an extension that is asked for; empty for another error."""
    for each in chain(error):
        if says(each, {"0A000", "58P01"}) and "extension" in str(each):
            return (
                "dbtestcase: the programs of this PostgreSQL have not got the extension. Use programs that have, with "
                "DBTESTCASE_POSTGRES_BIN=/usr/lib/postgresql/17/bin and the extension's package beside them; or "
                "a server that has it, with DBTESTCASE_URL=postgresql+psycopg://…"
            )
    return ""


_NOT_OF_THE_APPLICATION = (ConfigurationError, SandboxError, ServerError, DatabaseError)


def why_not_expected(label: str, error: BaseException, lost: str) -> LeakError | None:
    """The error for a test that is expected to fail, and failed because of this library; else ``None``.

    :param error: what it failed with.
    :param lost: how the connection of the sandbox was lost; empty where it was not.
    """
    refusal = next(filter(_is_ours, chain(error)), None)
    if refusal is None and not lost:
        return None
    said = getattr(refusal, "what", refusal)
    leak = LeakError(
        f"{label} is expected to fail, but not like this: "
        + (f"{type(refusal).__name__}: {said}" if refusal is not None else f"its connection was lost: {lost}"),
        cause="expectedFailure or xfail on a test that has met the limits of its sandbox, not the failure it is about",
        remedy=getattr(refusal, "remedy", "") or COMMITTING,
    )
    leak.__cause__ = error
    return leak


def _is_ours(error: BaseException) -> bool:
    return isinstance(error, _NOT_OF_THE_APPLICATION) or any(
        note.endswith(COMMITTING) for note in getattr(error, "__notes__", ())
    )
