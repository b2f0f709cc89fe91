"""A reply without the thinking before it, which some servers leave in the text between `<think>` and `</think>`."""

from __future__ import annotations

OPEN = "<think>"
CLOSE = "</think>"


class ThinkingFilter:
    """Takes a reply in pieces and gives out, also in pieces, what the model says to the reader.

    Thinking counts where it begins the reply: in an answer the same letters are text. White space before
    the first word is left out too.
    """

    def __init__(self) -> None:
        self._held: str | None = ""  # what may still be, or become, thinking; None once the answer has begun
        self._thinks = False

    def feed(self, piece: str) -> str:
        """Take the next piece; returns what is answer of it, often nothing."""
        if self._held is None:
            return piece
        self._held += piece
        while True:
            if self._thinks:
                before, found, after = self._held.partition(CLOSE)
                if not found:
                    self._held = before[-len(CLOSE) :]
                    return ""
                self._held = after
            self._held = self._held.lstrip()
            self._thinks = self._held.startswith(OPEN)
            if not self._thinks:
                break
            self._held = self._held[len(OPEN) :]
        if OPEN.startswith(self._held):
            return ""
        answer, self._held = self._held, None
        return answer

    def finish(self) -> str:
        """The reply is over; returns what was held back and is no thinking."""
        return "" if self._thinks else self._held or ""


def without_thinking(reply: str) -> str:
    """A whole reply without the thinking before it; empty where it never came to an answer."""
    answer = ThinkingFilter()
    return answer.feed(reply) + answer.finish()
