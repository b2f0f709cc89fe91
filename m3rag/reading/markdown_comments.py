"""HTML comments of Markdown, which nobody sees on the page; in code they are text (CommonMark 0.31, 4.4-4.6, 6.1)."""

from __future__ import annotations

import re

_QUOTES_AND_ITEMS = r"(?:[ \t>]|[-*+][ \t]|\d{1,9}[.)][ \t])*"
_FENCE = re.compile(rf"({_QUOTES_AND_ITEMS})(?:(`{{3,}})[^`\n]*$|(~{{3,}}).*$)", re.MULTILINE)
_ITEM = re.compile(r" {0,3}(?:[-*+]|\d{1,9}[.)])[ \t]")
_INDENTED = re.compile(r" {4}| {0,3}\t")
_HIDING = re.compile(r"`[^`\n]+`|<!--|\n|\Z")


def without_comments(text: str) -> str:
    """A text without its comments.

    Args:
        text: Markdown, with line feeds as line ends.
    """
    kept: list[str] = []
    done = at = 0
    in_list, code_may_begin = False, True
    while at < len(text):
        end = text.find("\n", at) + 1 or len(text)
        if fence := _FENCE.match(text, at):
            at, code_may_begin = _end_of_code(text, fence), True
            continue
        if not text[at:end].strip():
            at, code_may_begin = end, True
            continue
        if _INDENTED.match(text, at):
            if code_may_begin and not in_list:
                at = end
                continue
        else:
            # What follows an item without a blank line goes on with it.
            in_list = bool(_ITEM.match(text, at)) or (in_list and (not code_may_begin or text[at] == " "))
        code_may_begin = False
        while (found := _HIDING.search(text, at)) and found.group() not in ("\n", ""):
            at = found.end()
            if found.group() == "<!--":
                close = text.find("-->", at)
                if close < 0:
                    return "".join([*kept, text[done:]])
                kept.append(text[done : found.start()])
                done = at = close + 3
        at = found.end() if found and found.group() else len(text)
    return "".join([*kept, text[done:]])


def _end_of_code(text: str, fence: re.Match[str]) -> int:
    """Where the line that closes a fence ends; a quote's or an item's code ends with these at the latest."""
    mark = fence[2] or fence[3]
    ends = rf"^[ \t>]*{mark[0]}{{{len(mark)},}}[ \t]*$"
    if fence[1].strip() or len(fence[1].expandtabs(4)) > 3:
        ends += r"|^(?=[^\s>])"
    closing = re.compile(ends, re.MULTILINE).search(text, fence.end())
    return closing.end() if closing else len(text)
