"""Where the words of a string of SQL are: one reader for all dialects, with a table of lexical rules for each.

:meth:`Lexer.mask` gives a text of the same length in which only the structure is left: comments are blanks, and what
stands between quotes is filled with :data:`FILL`.  So every word, parenthesis and semicolon of a masked text is one
that the server sees, and its place is its place in the text.  The time is linear in the length, whatever the text::

    >>> POSTGRESQL.mask("SELECT 'for update' -- ;").replace(FILL, "_")
    "SELECT '__________'     "
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, cached_property

FILL = "\x01"
"""What takes the place of each character between quotes: neither a blank nor part of a word."""

# Repetitions of groups are never possessive, here or in other patterns: Python before 3.11.5 matches them wrongly.
PART = r'(?:(?:["`\[]\x01*+["`\]])+|[\w$]++)'
"""The pattern of a name in a masked text, quoted or plain; read by :func:`name_in`."""

NAME = r'((?:["`\[]\x01*+["`\]])+|[\w$.]++)'
"""The same, with the schema before a plain one."""

_End = Callable[[str, int], int]

_WORD = r"[A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*+"
_COMMENT_MARKS = re.compile(r"/\*|\*/")
_DOLLAR = re.compile(r"\$(?:[^\W\d]\w*+)?\$")


def name_in(text: str) -> str:
    """A name as the server knows it: quotes taken off, or folded to lower case."""
    quote = text[:1]
    if quote in ('"', "`"):
        return text[1:-1].replace(quote * 2, quote)
    return text[1:-1] if quote == "[" else text.lower()


class Lexer:
    """The lexical rules of a dialect.

    :param names: the characters that open quoted names; ``[`` is closed by ``]``.
    :param strings: those that quote strings.
    :param backslashes: whether a backslash escapes in every string.
    :param escape_strings: whether it does in ``E'…'``.
    :param dollars: whether ``$tag$ … $tag$`` quotes.
    :param nested: whether block comments nest.
    :param hashes: whether ``#`` begins a comment, and ``--`` only before a blank (MySQL).
    :param executed: whether what stands in ``/*! … */`` is executed (MySQL).
    :param line_ends: what ends a comment of one line.
    """

    def __init__(
        self,
        *,
        names: str = '"',
        strings: str = "'",
        backslashes: bool = False,
        escape_strings: bool = False,
        dollars: bool = False,
        nested: bool = False,
        hashes: bool = False,
        executed: bool = False,
        line_ends: str = "\n",
    ) -> None:
        self._strings = strings
        self._quotes = tuple(strings + names)
        self._dollars = dollars
        self._others = ("--", "/*", *("#" * hashes))
        self._marks = (*self._quotes, *self._others, *(("*/",) if executed else ()))
        self._begins = "|".join(map(re.escape, self._marks))
        self._ends: dict[str, _End] = {q: _quoted(q, backslashes=backslashes) for q in strings}
        self._ends |= {q: _quoted(q, backslashes=False) for q in names}
        self._escaped = _quoted("'", backslashes=True, continued=True) if escape_strings else None
        self._nested = nested
        self._executed = re.compile(r"/\*M?!\d*+") if executed else None
        self._line = re.compile(rf"--(?=[\s\x00-\x1f]|\Z)[^{line_ends}]*+" if hashes else rf"--[^{line_ends}]*+")
        self._hash = re.compile(rf"#[^{line_ends}]*+")

    # Patterns are compiled when they are first needed: a run speaks one dialect, and few strings of it need them.
    @cached_property
    def _start(self) -> re.Pattern[str]:
        return re.compile(self._begins)

    @cached_property
    def _start_or_word(self) -> re.Pattern[str]:
        return re.compile(rf"{self._begins}|\$|{_WORD}")

    def mask(self, text: str) -> str:
        """The text with everything masked that is no word or sign of its own."""
        quotes = [q for q in self._quotes if q in text]
        for mark in self._others:
            if mark[0] in text and mark in text:
                return self._mask(text)
        if self._quotes_by_dollar(text):
            return self._mask(text)
        if not quotes:
            return text
        if len(quotes) == 1 and quotes[0] != "[" and "\\" not in text:  # the common case: names that must be quoted
            pieces = text.split(quotes[0])
            pieces[1::2] = [FILL * len(piece) for piece in pieces[1::2]]
            return quotes[0].join(pieces)
        return self._mask(text)

    def neutral(self, text: str) -> str:
        """The text with its strings emptied and without its comments; names stay, and so do all words."""
        for mark in self._marks:  # to look for one character takes least time, and a pattern most
            if mark[0] in text and mark in text:
                return self._replace(text, _neutral)
        return text

    def _mask(self, text: str) -> str:
        return self._replace(text, _masked)

    def _quotes_by_dollar(self, text: str) -> bool:
        return self._dollars and "$" in text and _DOLLAR.search(text) is not None

    def _replace(self, text: str, replacement: Callable[[str, str], str]) -> str:
        kept: list[str] = []
        done = position = 0
        # a dollar in the middle of a name quotes nothing: there the names must be read as well
        search = (self._start_or_word if self._quotes_by_dollar(text) else self._start).search
        while (match := search(text, position)) is not None:
            begin = match.start()
            kind, end = self._token(text, begin, match[0])
            if kind:
                if kind == "escaped":
                    begin, kind = begin - 1, "string"
                kept += (text[done:begin], replacement(kind, text[begin:end]))
                done = end
            position = end
        kept.append(text[done:])
        return "".join(kept)

    def _token(self, text: str, begin: int, mark: str) -> tuple[str, int]:
        """What begins at a mark, and where it ends; no kind for an operator or a parameter."""
        if mark == "--":
            match = self._line.match(text, begin)
            return ("comment", match.end()) if match is not None else ("", begin + 2)
        if mark == "/*":
            return "comment", self._comment_end(text, begin)
        if mark == "*/":
            return "comment", begin + 2
        if mark == "$":
            return _dollar(text, begin)
        if mark == "#":
            match = self._hash.match(text, begin)
            return "comment", match.end() if match is not None else begin + 1
        if mark not in self._ends:
            return "", begin + len(mark)
        if mark == "'" and self._escaped is not None and _follows_e(text, begin):
            return "escaped", self._escaped(text, begin)
        return "string" if mark in self._strings else "name", self._ends[mark](text, begin)

    def _comment_end(self, text: str, begin: int) -> int:
        if self._executed is not None and (match := self._executed.match(text, begin)) is not None:
            return match.end()
        if not self._nested:
            return _after(text, "*/", begin + 2)
        depth = 0
        for mark in _COMMENT_MARKS.finditer(text, begin):
            depth += 1 if mark[0] == "/*" else -1
            if not depth:
                return mark.end()
        return len(text)


def _quoted(quote: str, *, backslashes: bool, continued: bool = False) -> _End:
    """Finds the end of what is quoted; an end that is missing is that of the text."""
    if quote == "[":
        return lambda text, begin: _after(text, "]", begin + 1)
    body = (
        rf"[^{quote}\\]*+(?:(?:{quote}{quote}|\\(?:.|\Z))[^{quote}\\]*+)*"
        if backslashes
        else (rf"[^{quote}]*+(?:{quote}{quote}[^{quote}]*+)*")
    )
    # PostgreSQL: E'…' goes on with a string on the next line, by the rules of its beginning
    more = rf"(?:{quote}\s*+(?:--[^\n\r]*+\s*+)*{quote}{body})*" if continued else ""
    compiled = cache(lambda: re.compile(rf"{quote}{body}{more}(?:{quote}|\Z)", re.DOTALL))

    def end(text: str, begin: int) -> int:
        match = compiled().match(text, begin)
        return match.end() if match is not None else len(text)

    return end


def _dollar(text: str, begin: int) -> tuple[str, int]:
    match = _DOLLAR.match(text, begin)
    return ("", begin + 1) if match is None else ("dollar", _after(text, match[0], match.end()))


def _neutral(kind: str, token: str) -> str:
    return token if kind == "name" else "''" if kind == "string" else " "


def _masked(kind: str, token: str) -> str:
    if kind == "comment":
        return " " * len(token)
    if kind == "dollar":
        return f"'{FILL * (len(token) - 2)}'"
    first = "'" if kind == "string" else token[0]
    quote = "]" if token[0] == "[" else "'" if token[0] in "eE" else token[0]
    last = "" if len(token) < 2 else FILL if token[-1] != quote else "]" if quote == "]" else first
    return first + FILL * (len(token) - 2) + last


def _after(text: str, mark: str, begin: int) -> int:
    end = text.find(mark, begin)
    return len(text) if end < 0 else end + len(mark)


def _follows_e(text: str, begin: int) -> bool:
    """Whether ``E`` stands before a quote, as a word of its own."""
    before = text[begin - 2] if begin > 1 else " "
    is_word = before.isalnum() or before in "_$" or before >= "\x80"
    return begin > 0 and text[begin - 1] in "eE" and not is_word


POSTGRESQL = Lexer(escape_strings=True, dollars=True, nested=True, line_ends="\n\r")
SQLITE = Lexer(names='"`[')
MYSQL = Lexer(names="`", strings="'\"", backslashes=True, hashes=True, executed=True)
