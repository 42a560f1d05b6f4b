"""What ``python -m dbtestcase doctor`` finds out about ``DBTESTCASE_URL``: what a run would do with it, done once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sqlalchemy import MetaData

from dbtestcase.backends.databases import test_database
from dbtestcase.backends.registry import backend_for
from dbtestcase.backends.schema import MetadataRecipe
from dbtestcase.backends.server_urls import checked_url, names_a_server
from dbtestcase.reporting import shown
from dbtestcase.settings import Settings

__all__ = ["try_url"]


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
