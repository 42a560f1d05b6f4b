"""The same forty tests of the blog example in three styles: a class of unittest, functions of pytest, async functions.

Ten bodies, each with four authors.  Two bodies go wrong on purpose: one fails, one leaves a transaction open.
"""

from __future__ import annotations

import textwrap

__all__ = [
    "CONFTEST",
    "FORGETFUL",
    "NAMES",
    "RIGHT",
    "async_functions",
    "functions",
    "functions_in_greenlets",
    "unittest_class",
]

AUTHORS = ("ada", "grace", "barbara", "radia")

#: The bodies by name; ``t`` is what ``self`` is in a test, ``{author}`` differs.
BODIES = {
    "register": "services.register('{author}')\nt.assertRowCount(Author, 2)",
    "publish": "assert services.publish(t.author.id, '{author}, hello') == '{author}-hello'\nt.assertRowCount(Post, 2)",
    "publish_again": "slugs = [services.publish(t.author.id, 'Notes') for _ in 'ab']\nassert slugs[1] == 'notes-3'",
    "comment": "services.comment('notes', '{author}')\nt.assertRowCount(Comment, 1, Comment.body == '{author}')",
    "withdraw": "assert services.withdraw('notes')\nt.assertRowCount(Post, 0)",
    "hand_over": "new = services.register('{author}')\nassert services.hand_over(t.author.id, new) == 1",
    "rank": "services.comment('notes', '{author}')\nassert services.most_discussed() == [('Notes', 1)]",
    "copy": "assert services.import_comments('notes', ['{author}'] * 3) == 3\nt.assertRowCount(Comment, 3)",
    "fails": "services.register('{author}')\nt.assertRowCount(Author, 1)",
    "leaks": "forgetful.kept.append(forgetful.unfinished('{author}'))",
}
RIGHT = tuple(name for name in BODIES if name not in ("fails", "leaks"))
NAMES = tuple(f"test_{body}_{author}" for body in BODIES for author in AUTHORS)

FORGETFUL = """
from blog import db
from blog.models import Author

kept = []

def unfinished(name):
    session = db.Session()
    session.add(Author(name=name))
    session.flush()
    return session
"""

_IMPORTS = """
import forgetful
from blog import services
from blog.models import Author, Comment, Post
"""

_CLASSES = """
from blog import db
from blog.models import Author, Base, Post
from dbtestcase import AsyncDatabaseTest, DatabaseTest

class Data:
    metadata = Base.metadata
    engines = [db.engine]

    @classmethod
    def setUpTestData(cls):
        print("class data are made")
        cls.author = Author(name="somebody")
        cls.session.add_all([cls.author, Post(author=cls.author, title="Notes", slug="notes")])

class Blog(Data, DatabaseTest):
    pass

class AsyncBlog(Data, AsyncDatabaseTest):
    pass
"""

CONFTEST = f"""
import pytest
from dbtestcase.pytest_plugin import database_fixture
{_CLASSES}
db_ = database_fixture(Blog, name="t")
adb = database_fixture(AsyncBlog, name="at")

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""


_FIRST = "assert await at.session.get(Author, at.author.id)"


def _bodies(bodies: tuple[str, ...]) -> list[tuple[str, str]]:
    return [
        (f"test_{body}_{author}", BODIES[body].replace("{author}", author)) for body in bodies for author in AUTHORS
    ]


def unittest_class(bodies: tuple[str, ...] = tuple(BODIES), base: str = "Blog") -> str:
    """The module of the class.

    :param base: ``Blog`` or ``AsyncBlog``, whose tests are async functions.
    """
    keyword = "async def" if base == "AsyncBlog" else "def"
    tests = "".join(
        f"    {keyword} {name}(t):\n{textwrap.indent(code, '        ')}\n\n" for name, code in _bodies(bodies)
    )
    return f"{_IMPORTS}{_CLASSES}\nclass BlogTest({base}):\n{tests}"


def functions(bodies: tuple[str, ...] = tuple(BODIES)) -> str:
    """The module of the functions."""
    tests = "".join(f"def {name}(t):\n{textwrap.indent(code, '    ')}\n\n" for name, code in _bodies(bodies))
    return f"{_IMPORTS}\n{tests}"


def async_functions(bodies: tuple[str, ...] = tuple(BODIES), first: str = _FIRST) -> str:
    """The module of the async functions.

    :param first: each begins with this.
    """
    tests = "".join(
        f"async def {name}(at):\n    t = at\n    {first}\n{textwrap.indent(code, '    ')}\n\n"
        for name, code in _bodies(bodies)
    )
    return f"import pytest\n{_IMPORTS}\npytestmark = pytest.mark.anyio\n\n{tests}"


def functions_in_greenlets(bodies: tuple[str, ...] = tuple(BODIES)) -> str:
    """The module of async functions whose bodies are plain functions that ``on`` awaits."""
    tests = "".join(
        f"async def {name}(on):\n    def body(t):\n{textwrap.indent(code, '        ')}\n    await on(body)\n\n"
        for name, code in _bodies(bodies)
    )
    return f"import pytest\n{_IMPORTS}\npytestmark = pytest.mark.anyio\n\n{tests}"
