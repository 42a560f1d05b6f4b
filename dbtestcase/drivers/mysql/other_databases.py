"""Which databases a statement of MySQL's names: one connection reaches every database of its server.

Found are those of ``USE``, the ones before the dot of a table's name, where such a name stands after a word that a
table follows or in a list of tables, and any other name before a dot that is no table's or alias's in the same
statement: a column's (``shop.id``) stands beside its table (``FROM shop``).
"""

from __future__ import annotations

import functools
import re

_BEFORE = (
    r"(?<!key )(?:from|(?:straight_)?join|into|update|table|exists|truncate|insert|replace|ignore|low_priority|delayed"
    r"|high_priority|quick|delete|call|to|view|trigger|procedure|function|sequence|event|references|handler)"
)
_AMONG_TABLES = (
    r"(?<!key )(?:from|join|update|tables?) "
    r"(?:(?!\b(?:where|set|select|group|order|having|returning|limit|window|into)\b)[^()])*?,"
)
_HIDDEN = (
    r"'[^'\\]*(?:(?:\\.|'')[^'\\]*)*'|\"[^\"\\]*(?:(?:\\.|\"\")[^\"\\]*)*\"(?:\s*\.)?|`[^`]*(?:``[^`]*)*`"
    r"|/\*(?!M?!).*?\*/|--(?=\s)[^\n]*|#[^\n]*"
    r"|/\*M?!\d*|\*/(?!\*)"  # what stands between these is sent to the server
)
_MODIFIERS = r"(?<=\bselect )(?:(?:all|distinct|distinctrow|straight_join|high_priority|sql_\w+) )+"
_IN_FUNCTION = r"\b(?:extract|trim|substring|substr|mid) ?\((?:[^()]|\([^()]*\))*?\bfrom\b"
_ONE = r"(?:use|database|schema)(?:\s+if(?:\s+not)?\s+exists)?"
_SHOWN = r"show (?:.* )?(?:(?:tables|status|triggers|events) (?:from|in)|(?:from|in) \S+ (?:from|in))"
_OF_A_STRING = r"(?:prepare|execute immediate)\b"


@functools.cache
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE | re.DOTALL)  # when first used: who imports this is mostly on another server


def names_database(statement: str | bytes, name: str) -> bool:
    """Whether a statement names a database, in whatever case; mostly its name is not even among the words."""
    name = name.lower()  # a server may not tell case
    if isinstance(statement, str):
        return name in (lowered := statement.lower()) and _names(lowered, name)
    data = bytes(statement).lower()
    return name.encode() in data and _names(data.decode(errors="replace").lower(), name)


def _names(text: str, name: str) -> bool:
    return (_short if len(text) < 500 else _names_it)(text, name)


def _names_it(text: str, name: str) -> bool:
    bare = " ".join(_pattern(_HIDDEN).sub(_shown, text).split())
    if _pattern(_OF_A_STRING).match(bare):
        bare = " ".join(text.replace("'", " ").replace('"', " ").split())
    if name not in bare:
        return False
    plain = re.escape(name)
    word = rf"(?:`{plain}`|(?<![@\w$]){plain}(?![\w$]))"
    if _pattern(rf"\b{_ONE} {word}").search(bare) or _pattern(rf"{_SHOWN} {word}").match(bare):
        return True
    if not _pattern(rf"{plain}`? ?\.").search(bare):
        return False
    bare = _pattern(_IN_FUNCTION).sub("(", _pattern(_MODIFIERS).sub("", bare))
    a_table = rf"\b(?:{_BEFORE}|{_AMONG_TABLES}) {word} ?\.(?! ?\*)"
    a_function = rf"(?<![.\w$`]){word} ?\. ?(?:`[^`]*`|[\w$]+) ?\("
    return _pattern(rf"{a_table}|{a_function}").search(bare) is not None or _has_no_table(bare, word)


_short = functools.lru_cache(maxsize=512)(_names_it)


def _shown(match: re.Match[str]) -> str:
    """What is left of a string, a comment, or a name in quotes, which the double ones may be."""
    text = match[0]
    if text[0] == "`":
        return f" {text} "
    if text[0] == '"' and (text[-1] == "." or _pattern(r'"[\w$-]+"').fullmatch(text)):
        inner, _, after = text[1:].rpartition('"')
        return f" `{inner}` {after.strip()}"
    return " " if text[0] in "/-#*" else " ' "


def _has_no_table(bare: str, word: str) -> bool:
    """Whether a word stands before a dot, and nowhere as the name of a table."""
    found = False
    for match in _pattern(rf"(?P<itself>{word} ?\. ?)?(?P<last>{word})(?P<dot> ?\.)?").finditer(bare):
        if match["dot"] is None and match["itself"] is None:
            return False
        found = (
            found
            or match["itself"] is not None
            or not bare[max(match.start() - 2, 0) : match.start()].endswith((".", ". "))
        )
    return found
