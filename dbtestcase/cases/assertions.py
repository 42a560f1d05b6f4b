"""Assertions about what was sent to the database, and about what is in it.

Counted are the statements that SQLAlchemy sends for the application and the test, of every engine, thread and task,
sync and async: a SELECT, an INSERT, each batch of an INSERT of many rows.  Not counted are savepoints, commits and
rollbacks, what dbtestcase sends itself, and what goes through a DBAPI cursor behind SQLAlchemy's back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, ParamSpec, TypeVar, overload
from unittest import TestCase

from sqlalchemy import ColumnExpressionArgument, Select, and_, func, inspect, literal_column, select
from sqlalchemy.orm import Mapper

from ..errors import ConfigurationError
from ..reporting import Query, Recording, harness_statements, recording

__unittest = True

P = ParamSpec("P")
R = TypeVar("R")

_SHOWN = 50  # queries in a message
_SHOWN_ROWS = 5


class QueryAssertions(TestCase):
    """Mixed into the test cases.

    ``_dbtestcase`` says which connections count (``counts``), and which sync session reads the rows (``counting``).
    """

    _dbtestcase: Any

    def captureQueries(self) -> AbstractContextManager[Recording]:
        """Give the queries of a block: a sequence with ``statement``, ``parameters``, ``milliseconds`` and ``origin``.

        >>> with self.captureQueries() as queries:                      # doctest: +SKIP
        ...     publish(post)
        >>> self.assertIn("UPDATE posts", queries[-1].statement)        # doctest: +SKIP
        """
        make = partial(recording, self._dbtestcase.counts)
        block: AbstractContextManager[Recording] = self._dbtestcase.blocks.sync("captureQueries()", make)
        return block

    @overload
    def assertNumQueries(self, n: int, /) -> AbstractContextManager[Recording]: ...

    @overload
    def assertNumQueries(self, n: int, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    def assertNumQueries(self, n: int, function: Callable[..., Any] | None = None, /, *args: Any, **kwargs: Any) -> Any:
        """Fail unless exactly ``n`` queries are sent: in a block, or while ``function`` runs.

        >>> with self.assertNumQueries(2):                              # doctest: +SKIP
        ...     await publish(post)

        :returns: a context manager that gives the queries; what ``function`` returns if there is one.
        """
        make = partial(_asserting, self, lambda count: count == n, f"{n}")
        return _run(self, f"assertNumQueries({n})", make, function, args, kwargs)

    @overload
    def assertMaxQueries(self, n: int, /) -> AbstractContextManager[Recording]: ...

    @overload
    def assertMaxQueries(self, n: int, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    def assertMaxQueries(self, n: int, function: Callable[..., Any] | None = None, /, *args: Any, **kwargs: Any) -> Any:
        """Fail if more than ``n`` queries are sent; used as :meth:`assertNumQueries`."""
        make = partial(_asserting, self, lambda count: count <= n, f"at most {n}")
        return _run(self, f"assertMaxQueries({n})", make, function, args, kwargs)

    @overload
    def assertNoRepeatedQueries(self, /, *, allowed: int = 1) -> AbstractContextManager[Recording]: ...

    @overload
    def assertNoRepeatedQueries(
        self, function: Callable[..., R], /, *args: Any, allowed: int = 1, **kwargs: Any
    ) -> R: ...

    def assertNoRepeatedQueries(
        self, function: Callable[..., Any] | None = None, /, *args: Any, allowed: int = 1, **kwargs: Any
    ) -> Any:
        """Fail if a statement that reads is sent more than ``allowed`` times, whatever its parameters: the N+1 finder.

        The message names the application's line that sent it, and the parameters.  INSERT, UPDATE and DELETE may be
        repeated: many drivers need one for each row.
        """
        make = partial(_asserting_unrepeated, self, allowed)
        return _run(self, "assertNoRepeatedQueries()", make, function, args, kwargs)

    def assertRowCount(
        self, entity_or_table: Any, n: int, *criteria: ColumnExpressionArgument[bool], msg: str | None = None
    ) -> None:
        """Fail unless there are exactly ``n`` rows, as the test's session sees them; its pending changes are flushed.

        >>> self.assertRowCount(Post, 1, Post.title == "Hello")         # doctest: +SKIP

        :param entity_or_table: a mapped class, an alias or a table.
        :param criteria: conditions, as for ``where()``.
        """
        _refuse_constants(criteria)
        with self._dbtestcase.counting() as session:
            session.flush()  # the application's own statements, so before the harness's
            rows = select(entity_or_table).where(*criteria)
            with harness_statements(), session.no_autoflush:
                # From a subquery: an entity of joined inheritance is more than one table.
                ones: Select[Any] = rows.with_only_columns(literal_column("1"), maintain_column_froms=True)
                counted = select(func.count()).select_from(ones.subquery())
                found = session.scalar(counted)
                if found == n:
                    return
                shown = session.connection().execute(rows.limit(_SHOWN_ROWS)).all()
        name = _name(entity_or_table)
        message = f"{name} has {_plural(found or 0, 'row')}, not {n}"
        for word, criterion in zip(["where", *["and"] * len(criteria)], criteria, strict=False):
            compiled = and_(criterion).compile()
            message += f" {word} {compiled} {dict(compiled.params)}"
        lines = [message, *(f"  {dict(row._mapping)}" for row in shown)]
        if found and found > len(shown):
            lines.append(f"  … and {found - len(shown)} more")
        self.fail(self._formatMessage(msg, "\n".join(lines)))


@contextmanager
def _asserting(test: QueryAssertions, satisfied: Callable[[int], bool], expected: str) -> Iterator[Recording]:
    with recording(test._dbtestcase.counts) as queries:
        yield queries
    if not satisfied(len(queries)):
        title = f"{_plural(len(queries), 'query', 'queries')} executed, {expected} expected"
        test.fail("\n".join([title + (":" if queries else ""), *_listed(queries.queries)]))


@contextmanager
def _asserting_unrepeated(test: QueryAssertions, allowed: int) -> Iterator[Recording]:
    with recording(test._dbtestcase.counts) as queries:
        yield queries
    by_statement: dict[str, list[Query]] = defaultdict(list)
    for query in queries:
        if query.reads and not query.later_batch:
            by_statement[query.statement].append(query)
    repeated = [group for group in by_statement.values() if len(group) > allowed]
    if repeated:
        total = _plural(len(repeated), "query was", "queries were")
        test.fail("\n".join([f"{total} repeated:", *(line for group in repeated for line in _described(group))]))


def _run(
    test: QueryAssertions,
    call: str,
    make: Callable[[], AbstractContextManager[Recording]],
    function: Callable[..., Any] | None,
    args: Any,
    kwargs: Any,
) -> Any:
    if function is None:
        return test._dbtestcase.blocks.sync(call, make)
    with make():
        return function(*args, **kwargs)


def _refuse_constants(criteria: Sequence[object]) -> None:
    """``Post.author is None`` is False, and no condition: there would be no rows, whatever is in the table."""
    for criterion in criteria:
        if criterion is None or isinstance(criterion, bool):
            raise ConfigurationError(
                f"assertRowCount(): a condition is {criterion}, whatever is in the table.",
                cause="`is`, `in`, `not`, `and`, or `==` between values, which Python answers before a query is made",
                remedy="Post.author.is_(None), Post.id.in_([…]), ~Post.hidden, or a condition more for `and`",
            )


def _listed(queries: Sequence[Query]) -> Iterator[str]:
    for number, query in enumerate(queries[:_SHOWN], 1):
        yield f"{number}. {_one_line(query.statement)}  {_parameters(query)}  [{query.origin or 'no line of yours'}]"
    if len(queries) > _SHOWN:
        yield f"… and {len(queries) - _SHOWN} more"


def _described(group: Sequence[Query]) -> Iterator[str]:
    yield f"{len(group)} times: {_one_line(group[0].statement)}"
    by_origin: dict[str, list[Query]] = defaultdict(list)
    for query in group:
        by_origin[str(query.origin or "no line of yours")].append(query)
    for origin, queries in by_origin.items():
        parameters = ", ".join(_parameters(query) for query in queries[:_SHOWN_ROWS])
        more = f", … {len(queries) - _SHOWN_ROWS} more" if len(queries) > _SHOWN_ROWS else ""
        yield f"  {origin}: {len(queries)} times, with {parameters}{more}"
    yield "  Likely cause: a relationship that is loaded for each row; add selectinload() or joinedload() to the query."


def _one_line(statement: str) -> str:
    return " ".join(statement.split())


def _parameters(query: Query) -> str:
    text = repr(query.parameters)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _plural(count: int, singular: str, plural: str | None = None) -> str:
    return f"{count} {singular if count == 1 else plural or singular + 's'}"


def _name(entity_or_table: Any) -> str:
    inspected = inspect(entity_or_table, raiseerr=False)
    if isinstance(inspected, Mapper):
        return inspected.class_.__name__
    return str(getattr(entity_or_table, "fullname", None) or getattr(entity_or_table, "name", entity_or_table))
