"""The command line: ``python -m dbtestcase doctor | server | prepare | prune | report``."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence

from .errors import DBTestCaseError
from .reporting import report, shown, version_of


def make_parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = argparse.ArgumentParser(
        prog="python -m dbtestcase", description="The server side of tests on real databases."
    )
    version = f"dbtestcase {version_of('dbtestcase')}, Python {platform.python_version()}"
    about = "print the versions of the library and of Python"
    parser.add_argument("--version", action="version", version=version, help=about)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, run, text in (
        ("doctor", _doctor, "show what a run would use, try it, and say what is missing"),
        ("server", _server, "keep a disposable server running and print its URL, until Ctrl-C"),
        ("prepare", _prepare, "initialise a server's cluster in the cache in advance, for every user (of an image)"),
        ("prune", _prune, "remove the rows of failing tests, what killed runs left and what is cached"),
    ):
        parsed = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        parsed.set_defaults(run=run)
        if name == "server":
            kinds, default = ("postgresql", "mariadb", "mysql"), "the kind that DBTESTCASE_URL names, else postgresql"
            parsed.add_argument("--kind", choices=kinds, help=f"what to start; by default {default}")
        if name == "prune":
            parsed.add_argument("--dry-run", "-n", action="store_true", help="only say what would be removed")
    report.add_report(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the process's exit status: 0 done, 1 something is wrong, 2 not understood."""
    given = make_parser().parse_args(arguments)
    try:
        status: int = given.run(given)
        return status
    except DBTestCaseError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _doctor(given: argparse.Namespace) -> int:
    from .backends import try_url
    from .server import examine

    return examine(print, try_url)


def _server(given: argparse.Namespace) -> int:
    from .server import keep_running
    from .settings import read_settings

    return keep_running(read_settings(), given.kind)


def _prepare(given: argparse.Namespace) -> int:
    from .server import prepare_cache
    from .settings import read_settings

    settings = read_settings()
    for thing in prepare_cache(settings):
        print(f"prepared {thing}")
    print(f"every user may use it with DBTESTCASE_CACHE={settings.cache}")
    return 0


def _prune(given: argparse.Namespace) -> int:
    from sqlalchemy import make_url

    from .backends import checked_url, names_a_server, prune
    from .server import prune_machine
    from .settings import read_settings

    settings = read_settings()
    removed = prune_machine(settings, dry=given.dry_run)
    url = checked_url(settings.url, "DBTESTCASE_URL") if settings.url is not None else None
    removed += [f"database {name}" for name in prune(make_url("sqlite://"), dry=given.dry_run)]
    if url is not None and names_a_server(url) and url.get_backend_name() != "sqlite":
        removed += [f"database {name} on {shown(url)}" for name in prune(url, dry=given.dry_run)]
    for thing in removed:
        print(f"{'would remove' if given.dry_run else 'removed'} {thing}")
    if not removed:
        print("nothing to remove")
    return 0


if __name__ == "__main__":
    sys.exit(main())
