"""Patterns as in `.gitignore`, by the rules of Git's own documentation (gitignore(5)).

The package that does this for others is under a licence that is not permissive; Git itself is the
oracle of the tests.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patterns:
    """Several patterns, of which the last that matches decides."""

    rules: tuple[tuple[re.Pattern[str], bool], ...]

    @classmethod
    def of(cls, lines: Iterable[str], *, strict: bool = True) -> Patterns:
        """The patterns of lines, comments and blank lines left out.

        Args:
            lines: One pattern each.
            strict: False to pass over what is no pattern, as Git does.

        Raises:
            ValueError: If a line is no pattern; the message names it.
        """
        rules: list[tuple[re.Pattern[str], bool]] = []
        for line in lines:
            try:
                rules += _rule(line)
            except ValueError:
                if strict:
                    raise
        return cls(tuple(rules))

    def says(self, path: str) -> bool | None:
        """Whether a path is meant: True, False where `!` takes it back, None where no pattern matches.

        Args:
            path: With `/`, relative to where the patterns stand; a folder's ends with `/`. What is in a
                folder that is meant is meant too.
        """
        said: bool | None = None
        # From the outermost folder inwards, as Git goes: nothing in a folder that is meant can be taken back.
        for place in re.finditer(r"/(?!$)|$", path.rstrip("/")):
            part = path[: place.end()] if place.group() else path
            said = next((wanted for expression, wanted in reversed(self.rules) if expression.fullmatch(part)), said)
            if said:
                return True
        return said


def _rule(line: str) -> Iterator[tuple[re.Pattern[str], bool]]:
    text = re.sub(r"(?<!\\) +$", "", line.rstrip("\r\n"))
    if not text or text.startswith("#"):
        return
    wanted = not text.startswith("!")
    text = text if wanted else text[1:]
    only_folders = text.endswith("/")
    text = text.removesuffix("/")
    if not text:
        raise ValueError(f"{line!r} is no pattern: it names nothing")
    anchored = "/" in text
    start = "" if anchored else "(?:.*/)?"
    end = "/" if only_folders else "/?"
    try:
        yield re.compile(start + _expression(text.removeprefix("/")) + end, re.DOTALL), wanted
    except re.error as error:
        raise ValueError(f"{line!r} is no pattern ({error})") from error


_TOKEN = re.compile(
    r"""(?P<middle>/\*\*/) | (?P<lead>^\*\*/) | (?P<trail>/\*\*$) | (?P<stars>\*+) | (?P<one>\?)
    | \[(?P<not>[!^]?)(?P<set>\]?(?:\[:[a-z]+:\]|\\.|[^\]\\])*)\] | \\(?P<escaped>.) | (?P<plain>.)""",
    re.VERBOSE | re.DOTALL,
)
_MEMBER = re.compile(r"\[:(?P<named>[a-z]+):\]|(?P<first>\\.|.)(?:-(?P<last>\\.|[^\]]))?", re.DOTALL)
_WILDCARDS = {"middle": "/(?:.*/)?", "lead": "(?:.*/)?", "trail": "/.+", "stars": "[^/]*", "one": "[^/]"}
_CLASSES = {"alnum": "a-zA-Z0-9", "alpha": "a-zA-Z", "digit": "0-9", "lower": "a-z", "upper": "A-Z", "space": r"\s"}


def _expression(pattern: str) -> str:
    if re.search(r"(?<!\\)(?:\\\\)*\\$", pattern):
        raise ValueError(f"{pattern!r} is no pattern: it ends with a backslash that escapes nothing")
    found = []
    for token in _TOKEN.finditer(pattern):
        kind = token.lastgroup or ""
        if token["set"] is not None:
            found.append(f"(?!/)[{'^' if token['not'] else ''}{_members(token['set'])}]")
        elif kind in _WILDCARDS:
            found.append(_WILDCARDS[kind])
        else:
            found.append(re.escape(token["escaped"] or token["plain"]))
    return "".join(found)


def _members(text: str) -> str:
    """What stands between brackets, in the syntax of `re`."""
    found = []
    for member in _MEMBER.finditer(text):
        if member["named"]:
            found.append(_CLASSES.get(member["named"], ""))
        else:
            first, last = member["first"][-1], (member["last"] or member["first"])[-1]
            # Of a range that runs backwards Git takes the first character.
            found.append(f"{re.escape(first)}-{re.escape(last)}" if first < last else re.escape(first))
    return "".join(found)
