"""Every error that the package can raise, read off its source, and the page of the reference that lists them.

``python -m tests.support.messages`` writes the page anew.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from dbtestcase import errors

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reference" / "messages.rst"
_HEAD = """\
Which error means what
======================

Every error by its first line, with what is behind it and the way out; ``…`` stands for the names of your project.  The
classes are in :doc:`errors`.
"""


class Message(NamedTuple):
    """What is known of an error without raising it."""

    kind: str
    what: str
    cause: str
    remedy: str


@functools.cache
def messages() -> list[Message]:
    """All of them, each once, by class and first line."""
    kinds = [name for name in errors.__all__ if issubclass(getattr(errors, name), errors.DBTestCaseError)]
    found = {
        Message(  # its words are made in its class
            "MissingExtra",
            "… needs the module …, which is not installed.",
            "dbtestcase was installed without its […] extra.",
            "pip install 'dbtestcase[…]'",
        )
    }
    kinds.remove("MissingExtra")
    for path in (ROOT / "dbtestcase").rglob("*.py"):
        source = path.read_text("utf-8")
        for node, names in _calls(ast.parse(source)) if any(f"{kind}(" in source for kind in kinds) else ():
            if isinstance(node.func, ast.Name) and node.func.id in kinds and node.args:
                arguments = {word.arg: _text(word.value, names) for word in node.keywords}
                what = _text(node.args[0])
                if what.strip("… "):
                    found.add(Message(node.func.id, what, arguments.get("cause", ""), arguments.get("remedy", "")))
    return sorted(found, key=lambda message: (errors.__all__.index(message.kind), message))


_Names = Mapping[str, list[ast.expr]]


def _calls(module: ast.Module) -> Iterator[tuple[ast.Call, _Names]]:
    """The calls in a module, each with what is assigned to the names of its function and of the module."""
    scopes: list[tuple[ast.AST, _Names]] = [(module, _assigned(module.body))]
    while scopes:
        scope, names = scopes.pop()
        for node in ast.iter_child_nodes(scope):
            if isinstance(node, ast.Call):
                yield node, names
            own = node.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else []
            scopes.append((node, {**names, **_assigned(own)} if own else names))


def _assigned(body: Sequence[ast.stmt]) -> _Names:
    found: dict[str, list[ast.expr]] = {}
    inside = [node for statement in body for node in ast.walk(statement) if isinstance(node, ast.Assign)]
    for node in inside:
        for target in node.targets:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(target.elts, node.value.elts, strict=False))
            for name, value in pairs:
                if isinstance(name, ast.Name):
                    found.setdefault(name.id, []).append(value)
    return found


def _text(node: ast.expr, names: _Names = MappingProxyType({})) -> str:
    """A string expression with … for what is only known when it is raised.

    :param names: what may stand for a name that is not in the middle of a text.
    """
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left, names) + _text(node.right, names)
    if isinstance(node, ast.IfExp):
        return _either(_text(node.body, names), _text(node.orelse, names))
    if isinstance(node, ast.Name) and node.id in names:
        return _either(*(_text(value) for value in names[node.id]))
    return "…"


def _either(*texts: str) -> str:
    """Those that say anything; a text may be empty, where there is nothing more to say."""
    said = dict.fromkeys(text for text in texts if text.strip("… "))
    return " / ".join(said) or ("…" if any(text.strip() for text in texts) else "")


def page() -> str:
    """The page as it should be."""
    return "\n".join([_HEAD, *_tables(messages())])


def _tables(found: list[Message]) -> Iterator[str]:
    kind = ""
    for message in found:
        if message.kind != kind:
            kind = message.kind
            yield f"\n{kind}\n{'-' * len(kind)}\n\n.. list-table::"
            yield "   :header-rows: 1\n   :class: stacked\n   :widths: 40 30 30\n"
            yield "   * - first line\n     - likely cause\n     - what to do"
        cells = (_cell(message.what), _cell(message.cause), _cell(message.remedy))
        yield f"   * - {cells[0]}\n     - {cells[1]}\n     - {cells[2]}"
    yield ""


def _cell(text: str) -> str:
    for sign in "\\*`|_":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split()) or "\\"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
