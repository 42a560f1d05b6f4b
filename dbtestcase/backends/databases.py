"""Databases for tests: made from a template, leased to one process, dropped at its end.

:func:`test_database` is the door.  What differs from server to server is in a module for each (``postgresql``,
``sqlite``, ``mysql``), found by the URL's dialect through :mod:`dbtestcase.backends.registry`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sqlalchemy import URL, MetaData

from ..errors import ConfigurationError
from ..reporting import collecting_less, shown
from ..settings import Settings
from .interface import Database, Mode, Request
from .recipes import Recipe
from .registry import backend_for
from .schema import MetadataRecipe
from .server_urls import checked_url, names_a_server


def test_database(
    server_url: URL,
    recipe: Recipe,
    *,
    base: str,
    settings: Settings,
    mode: Mode = "create",
    disposable: bool = False,
    transactional: bool = False,
    fetch: Callable[[str], bool] = lambda template: True,
) -> Database:
    """A database with the tables of ``recipe`` in it, as a context manager.

    :param server_url: the server; with ``"existing"`` the database itself.
    :param recipe: what the database is made from.
    :param base: what the names of new databases begin with.
    :param settings: with ``cache`` ``None`` no template is kept or used.
    :param mode: ``"create"`` makes a database of its own; ``"existing"`` uses the one that the URL names.
    :param disposable: the whole server is thrown away at the end of this process, so a database need not be dropped.
    :param transactional: with ``"existing"``: the caller makes the tables inside a transaction that it never commits
        (``recipe.create_in``), where the dialect can; ``Database.built`` says whether that is left to do.
    :param fetch: called with the name of a template (empty: with none) before a database is made from it; where it
        returns ``False`` the template's files cannot be had any more, and it is made again.
    :raises ServerUnreachable: nobody answers at the URL, or the role is refused.
    :raises CannotCreateDatabase: the role may not create databases.
    :raises UnsafeDatabase: the existing database is not ours to change.
    :raises SchemaError: the tables cannot be made.
    """
    request = Request(
        server_url=server_url,
        recipe=recipe,
        base=base,
        settings=settings,
        mode=mode,
        disposable=disposable,
        transactional=transactional,
        fetch=fetch,
    )
    backend = backend_for(server_url)
    if mode == "create":
        with collecting_less():
            return backend.create(request)
    if mode == "existing":
        return backend.existing(request)
    raise ConfigurationError(
        f"database = {mode!r} is not a way to get a database.",
        remedy='write database = "create" (a database of our own, the default) or database = "existing".',
    )


test_database.__test__ = False  # type: ignore[attr-defined]  # its name makes runners take it for a test


def prune(server_url: URL, *, templates: bool = True, dry: bool = False) -> list[str]:
    """Drop what dead runs left on a server, the rows of failing tests and our templates; the names of what was dropped.

    :param dry: only say what would be dropped.
    """
    return backend_for(server_url).prune(server_url, templates=templates, dry=dry)


def try_url(settings: Settings, say: Callable[[str], object]) -> str | None:
    """Make a database on the server of ``DBTESTCASE_URL``, and drop it, saying each thing in a line.

    :returns: the kind of the disposable server that is asked for instead; ``None`` where the URL names a server.
    """
    if settings.url is None:
        return "postgresql"
    url = checked_url(settings.url, "DBTESTCASE_URL")
    if not names_a_server(url):
        return url.get_backend_name()
    say(f"server       DBTESTCASE_URL: {shown(url)}")
    say(f"             answers: {backend_for(url).answer(url)}")
    recipe = MetadataRecipe(MetaData(), label="the doctor", dialect=url.get_backend_name())
    with test_database(url, recipe, base=url.database or "doctor", settings=replace(settings, cache=None)):
        say("tried        a test database was made there, and is dropped")
    return None
