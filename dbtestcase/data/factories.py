"""Factories use the test's session, as they were written, and are afterwards as they were before.

FactoryBoy's and polyfactory's; neither is imported here: who passes a factory has done so.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from types import ModuleType
from typing import Any, TypeVar, cast, overload

from sqlalchemy import inspect as inspect_instance
from sqlalchemy.orm import Session

from ..errors import ConfigurationError
from .factoryboy import (
    Binding,
    is_factory_boy,
    is_librarys,
    lead_method,
    names_a_session,
    reachable,
    refuse_old_version,
)
from .polyfactory import is_polyfactory, lead


def _never(session: Any) -> bool:
    return False


F = TypeVar("F")
_Given = Sequence[type | ModuleType] | ModuleType


class Factories(tuple["type | ModuleType", ...]):
    """The class attribute ``factories``, such that editors and type checkers know what it is on a test.

    A list of the same works as well; only its type stays a list's.

    .. code-block:: python

        class PublishTest(DatabaseTest):
            factories = Factories(PostFactory, blog.factories)

            def test_publish(self):
                post = self.factories[PostFactory].create(title="Hello")      # known to be a Post
                same = self.factories.PostFactory.create(title="Hello")       # by name

    :param factories: FactoryBoy or polyfactory classes, or modules that hold them.
    """

    def __new__(cls, *factories: type | ModuleType) -> Factories:
        return super().__new__(cls, factories)

    @overload
    def __get__(self, test: None, cls: type) -> Factories: ...

    @overload
    def __get__(self, test: object, cls: type) -> FactoryManager: ...

    def __get__(self, test: object, cls: type) -> Any:
        return self  # while a test runs, its own dictionary has the manager


@contextmanager
def bound(
    factories: _Given,
    session_provider: Callable[[], Session | None],
    *,
    async_session_provider: Callable[[], Any] | None = None,
    run: Callable[[Callable[[], Any]], Any] | None = None,
    keeps: Callable[[Any], bool] = _never,
) -> Iterator[None]:
    """Let the factories, and all that they reach, use the provider's session.

    Reached are subclasses, bases, and what ``SubFactory``, ``RelatedFactory``, ``Maybe``, traits and lists name, also
    as strings.  Persistence stays each factory's own: none, ``flush`` or ``commit``.

    :param factories: FactoryBoy or polyfactory classes, or modules that hold them.
    :param session_provider: asked whenever a factory needs its session, so bind once for many tests.  ``None`` means
        that no test is running: then a factory does what it would do unbound.
    :param async_session_provider: for polyfactory's ``create_async``.
    :param run: calls what makes instances, with the sync methods of factories: ``run_blocking``
        where the session is an async session's own.
    :param keeps: whether factories that name this session, or what makes it, are to keep it, where each of them names
        one.
    :raises ConfigurationError: something that is not a factory is listed.
    """
    classes = _collect(factories)
    with ExitStack() as undo:
        if any(map(is_factory_boy, classes)):
            refuse_old_version()
        found = reachable([each for each in classes if not is_polyfactory(each)])
        if not all(names_a_session(factory) for factory in found):
            keeps = _never  # one graph of objects needs one session
        binding = Binding(session_provider, undo, run, keeps)
        for factory in found:
            binding.adopt(factory)
        polyfactories = [each for each in classes if is_polyfactory(each)]
        lead(polyfactories, session_provider, async_session_provider, undo)
        if run is not None:
            for factory in polyfactories:
                for name in ("create_sync", "create_batch_sync"):
                    lead_method(factory, name, run, undo)
        yield


class FactoryManager:
    """The factories by name, on a session: ``manager.PostFactory.create()``.

    What a call gives is in the database afterwards: where the factory's persistence is ``None``, it is flushed at the
    end, when its post-generation hooks have run.  The classes themselves keep to their own persistence.

    :param session: the session that they use, or a function that gives it.
    :param factories: FactoryBoy or polyfactory classes, or modules that hold them.
    :param run: as for :func:`bound`.
    :raises ConfigurationError: something that is not a factory is listed.
    """

    def __init__(
        self,
        session: Session | Callable[[], Session],
        factories: _Given,
        *,
        run: Callable[[Callable[[], Any]], Any] | None = None,
    ) -> None:
        self._session = session
        self._run = run
        self._factories = factories
        self._classes = {factory.__name__: factory for factory in _collect(factories) if not _is_abstract(factory)}

    def __getattr__(self, name: str) -> ManagedFactory:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return ManagedFactory(self, self._classes[name])
        except KeyError:
            known = ", ".join(sorted(self._classes)) or "none"
            raise AttributeError(f"no factory is named {name!r}; the factories here are: {known}") from None

    def __getitem__(self, factory: type[F]) -> type[F]:
        """The same by the class itself, so that type checkers know what it makes.

        :raises ConfigurationError: the class is not among the factories.
        """
        if self._classes.get(factory.__name__) is not factory:
            raise ConfigurationError(
                f"{factory.__name__} is not among the factories here: {', '.join(sorted(self._classes)) or 'none'}.",
                cause="it is not named in `factories`, or is abstract",
                remedy=f"factories = Factories({factory.__name__}, …)",
            )
        return cast(type[F], ManagedFactory(self, factory))

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._classes]

    def _current(self) -> Session:
        return self._session() if not isinstance(self._session, Session) and callable(self._session) else self._session

    def _bound(self) -> Any:
        bindings = [Binding.of(factory) for factory in self._classes.values() if not is_polyfactory(factory)]
        session = self._current()
        if bindings and all(binding is not None and binding.session_provider() is session for binding in bindings):
            return nullcontext()  # in a test: the class has bound them to the same session
        return bound(self._factories, lambda: session, run=self._run)


class ManagedFactory:
    """A factory whose every method runs with its session bound; a call is what it is for the factory."""

    def __init__(self, manager: FactoryManager, factory: type) -> None:
        self._manager = manager
        self._factory = factory

    def __call__(self, **attributes: Any) -> Any:
        return self._run(self._factory, attributes)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._factory, name)
        if not inspect.isroutine(value):
            return value

        def bound_method(*positional: Any, **attributes: Any) -> Any:
            return self._run(value, attributes, positional)

        return bound_method

    def __repr__(self) -> str:
        return f"<{self._factory.__name__} on {self._manager._current()!r}>"

    def _run(self, method: Callable[..., Any], attributes: dict[str, Any], positional: tuple[Any, ...] = ()) -> Any:
        with self._manager._bound():
            made = method(*positional, **attributes)
            if inspect.isawaitable(made):
                return self._finish(made)
            self._store(made)
        return made

    async def _finish(self, making: Awaitable[Any]) -> Any:
        with self._manager._bound():
            return await making

    def _store(self, made: Any) -> None:
        pending = {}
        for instance in made if isinstance(made, list) else [made]:
            state = inspect_instance(instance, raiseerr=False)
            if state is not None and getattr(state, "pending", False):
                pending[id(state.session)] = state.session
        for session in pending.values():
            session.flush() if self._manager._run is None else self._manager._run(session.flush)


def _is_abstract(factory: Any) -> bool:
    return bool(factory._meta.abstract) if is_factory_boy(factory) else bool(vars(factory).get("__is_base_factory__"))


def _collect(factories: _Given) -> list[type]:
    classes: list[type] = []
    listed: Iterable[Any] = factories if isinstance(factories, Iterable) and not is_factory(factories) else [factories]
    for each in listed:
        values = vars(each).values() if isinstance(each, ModuleType) else ()
        found = [value for value in values if is_factory(value) and not is_librarys(value)]
        if found or is_factory(each):
            classes += found or [each]
        else:
            raise ConfigurationError(
                f"factories lists {each!r}, which is not a factory and holds none.",
                cause="an instance, a function, a model or a module without factories was listed where a factory class "
                "belongs.",
                remedy="list subclasses of factory.alchemy.SQLAlchemyModelFactory or of polyfactory's "
                "SQLAlchemyFactory, or modules that hold them.",
            )
    return list(dict.fromkeys(classes))


def is_factory(value: object) -> bool:
    """Whether it is a factory class, of FactoryBoy or polyfactory."""
    return is_factory_boy(value) or is_polyfactory(value)
