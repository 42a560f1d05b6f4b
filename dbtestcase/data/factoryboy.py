"""FactoryBoy's SQLAlchemy factories, bound to a session and released.

FactoryBoy keeps a factory's session in its options object, ``Factory._meta``.  While it is bound, that object belongs
to a subclass of its own class whose ``sqlalchemy_session`` asks for the session each time; its own values stay where
they are, so that unbinding has little to restore but the class.  A factory that is defined meanwhile (a module imported
in the middle of a test) is bound with its base, and inherits what the base really has.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from types import CodeType, FunctionType
from typing import Any

from sqlalchemy.orm import Session

from ..errors import ConfigurationError


class Binding:
    """Whose session some factories use until ``undo`` is closed.

    :param session_provider: asked each time; ``None`` stands for "as if unbound".
    :param run: calls what makes instances.
    :param keeps: whether a factory that names this session (or what makes it) is to keep it.
    """

    def __init__(
        self,
        session_provider: Callable[[], Session | None],
        undo: ExitStack,
        run: Callable[[Callable[[], Any]], Any] | None = None,
        keeps: Callable[[Any], bool] = lambda session: False,
    ) -> None:
        self.session_provider = session_provider
        self.keeps = keeps
        self._undo = undo
        self._run = run

    @staticmethod
    def of(factory: Any) -> Binding | None:
        """The innermost binding of a factory."""
        binding: Binding | None = vars(factory._meta).get(_BINDING)
        return binding

    def adopt(self, factory: Any) -> None:
        """Bind one factory."""
        options = factory._meta
        before = (type(options), {name: vars(options)[name] for name in _VALUES if name in vars(options)})
        options.__class__ = _derived("Bound", _unbound_options(before[0]), _BoundOptions)
        vars(options)[_BINDING] = self
        inherits = vars(factory).get("_options_class")
        factory._options_class = _derived("Adopting", _unbound_options(factory._options_class), _AdoptingOptions)
        self._undo.callback(self._release, factory, *before, inherits)
        if self._run is not None:
            lead_method(factory, "_generate", self._run, self._undo)

    @staticmethod
    def _release(factory: Any, options_class: type, values: dict[str, Any], inherits: type | None) -> None:
        options = factory._meta
        options.__class__ = options_class
        for name in _VALUES:
            vars(options).pop(name, None)
        vars(options).update(values)
        if inherits is None:
            del factory._options_class
        else:
            factory._options_class = inherits


_BINDING, _SET = "_dbtestcase_binding", "_dbtestcase_set"
_VALUES = (_BINDING, _SET, "sqlalchemy_session", "sqlalchemy_session_factory", "sqlalchemy_session_persistence")
_made: dict[tuple[str, type], type] = {}


def _derived(prefix: str, options_class: type, mixin: type) -> type:
    key = (prefix, options_class)
    if key not in _made:
        name = f"{prefix}{options_class.__name__}"
        _made[key] = type(name, (mixin, options_class), {"_dbtestcase_original": options_class})
    return _made[key]


def _unbound_options(options_class: Any) -> type:
    original: type = vars(options_class).get("_dbtestcase_original", options_class)
    return original


class _BoundOptions:
    """Mixed into a factory's options while it is bound: data descriptors that hide the values beneath them."""

    @property
    def sqlalchemy_session(self) -> Any:
        if _SET in vars(self):  # by a test's own `PostFactory._meta.sqlalchemy_session = …`
            return vars(self)[_SET]
        binding, own = vars(self)[_BINDING], vars(self).get("sqlalchemy_session")
        if own is not None and binding.keeps(own):
            return own
        factory = vars(self).get("sqlalchemy_session_factory")
        if factory is not None and binding.keeps(factory):
            return None  # FactoryBoy asks it
        session = binding.session_provider()
        return own if session is None else session

    @sqlalchemy_session.setter
    def sqlalchemy_session(self, session: Any) -> None:
        vars(self).pop(_SET, None)
        if vars(self)[_BINDING].session_provider() is None:
            vars(self)["sqlalchemy_session"] = session
        elif session is not self.sqlalchemy_session:
            vars(self)[_SET] = session

    @property
    def sqlalchemy_session_factory(self) -> Any:
        own = vars(self).get("sqlalchemy_session_factory")
        if own is None:
            return None
        binding = vars(self)[_BINDING]
        provider = binding.session_provider
        return own if provider() is None or binding.keeps(own) else provider

    @sqlalchemy_session_factory.setter
    def sqlalchemy_session_factory(self, factory: Any) -> None:
        vars(self)["sqlalchemy_session_factory"] = factory


class _AdoptingOptions:
    """The options class that subclasses of a bound factory get: they inherit its own values, and are bound with it."""

    def contribute_to_class(self, factory: Any, meta: Any = None, base_meta: Any = None, **arguments: Any) -> None:
        binding = vars(base_meta).get(_BINDING)
        bound_class = type(base_meta)
        base_meta.__class__ = _unbound_options(bound_class)
        try:
            super().contribute_to_class(  # type: ignore[misc]
                factory, meta=meta, base_meta=base_meta, **arguments
            )
        finally:
            base_meta.__class__ = bound_class
        self.__class__ = _unbound_options(type(self))
        if binding is not None:
            binding.adopt(factory)


def lead_method(factory: Any, name: str, run: Callable[[Callable[[], Any]], Any], undo: ExitStack) -> None:
    """Have a class method of a factory called by ``run`` until ``undo`` is closed."""
    own = vars(factory).get(name)

    def led(cls: Any, *positional: Any, **named: Any) -> Any:
        method = own.__get__(None, cls) if own is not None else getattr(super(factory, cls), name)
        return run(lambda: method(*positional, **named))

    setattr(factory, name, classmethod(led))
    if own is None:
        undo.callback(delattr, factory, name)
    else:
        undo.callback(setattr, factory, name, own)


OLDEST = (3, 3)
"""The version of FactoryBoy that has what a binding hooks into."""


def refuse_old_version() -> None:
    """Name the version that is there, if it is too old."""
    version = str(getattr(sys.modules.get("factory"), "__version__", ""))
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers and numbers < OLDEST:
        raise ConfigurationError(
            f"factory_boy is {version}; the class attribute factories needs 3.3 or later.",
            cause="an environment with an older release",
            remedy="pip install 'factory_boy>=3.3.1', or leave `factories` out and let the factories name the "
            "application's own session",
        )


def is_factory_boy(value: object) -> bool:
    """Whether it is a FactoryBoy class; FactoryBoy is not imported to find out."""
    base = sys.modules.get("factory.base")
    return base is not None and isinstance(value, type) and issubclass(value, base.Factory)


def is_librarys(factory: Any) -> bool:
    """Whether it was imported to be a base; one that ``make_factory()`` has made is of the library's module too."""
    module: str = factory.__module__
    defined = getattr(sys.modules.get(module), factory.__name__, None)
    return defined is factory and module.partition(".")[0] in ("factory", "polyfactory")


def names_a_session(factory: Any) -> bool:
    """Whether a factory says which session it uses; one that makes nothing has nothing to say."""
    options = vars(factory._meta)
    named = [options.get(name) is not None for name in ("sqlalchemy_session", "sqlalchemy_session_factory")]
    return any(named) or bool(factory._meta.abstract)


def reachable(factories: Iterable[Any]) -> list[Any]:
    """SQLAlchemy factories among the given ones, their bases and subclasses, and what their declarations name."""
    alchemy = sys.modules.get("factory.alchemy")  # imported, or there can be no class of it
    found: list[Any] = []
    pending, seen = list(factories), set()
    while pending:
        factory = pending.pop()
        if factory in seen or not is_factory_boy(factory) or is_librarys(factory):
            continue
        seen.add(factory)
        if alchemy is not None and issubclass(factory, alchemy.SQLAlchemyModelFactory):
            found.append(factory)
        pending += [*factory.__mro__, *factory.__subclasses__()]
        pending += _named_by([factory._meta.base_declarations, factory._meta.parameters, *vars(factory).values()])
    return found


def _named_by(declarations: list[Any]) -> Iterator[Any]:
    """The factories that declarations name, in whatever they are wrapped."""
    declarations_of = sys.modules["factory.declarations"]
    pending, seen = declarations, set()
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, declarations_of._FactoryWrapper):
            try:
                yield value.get()
            except (ImportError, AttributeError):
                continue  # a name that leads nowhere: FactoryBoy says so if it is ever used
        elif isinstance(value, type):
            yield value
        elif isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, list | tuple):
            pending += value
        elif isinstance(value, declarations_of.BaseDeclaration | declarations_of.Parameter):
            pending += vars(value).values()
        elif isinstance(value, classmethod | staticmethod):
            pending.append(value.__func__)
        elif isinstance(value, FunctionType):  # of a post-generation hook, a lazy attribute, a method
            pending += _used_by(value)


def _used_by(function: FunctionType) -> Iterator[type]:
    """Factories that a function names, as globals or from around it, also within comprehensions and lambdas."""
    for cell in function.__closure__ or ():
        try:
            if is_factory_boy(cell.cell_contents):
                yield cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        for name in code.co_names:
            value = function.__globals__.get(name)
            if isinstance(value, type) and is_factory_boy(value):
                yield value
