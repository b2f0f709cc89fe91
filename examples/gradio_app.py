"""Chat over your documents in Gradio: `pip install gradio`, then `python examples/gradio_app.py FILE...`.

For a page with sources to click on, see `m3rag serve`; this one is for people who build with Gradio.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from m3rag import KnowledgeBase
from m3rag.answering import Turn


def turns(messages: Sequence[dict[str, Any]]) -> list[Turn]:
    """Gradio's messages as turns of a conversation: each question with the answer after it."""
    found, question = [], None
    for message in messages:
        text = message["content"]
        if isinstance(text, list):  # parts, in Gradio 6
            text = " ".join(part.get("text", "") for part in text)
        if message["role"] == "user":
            question = text
        elif question is not None:
            found.append(Turn(question, text.partition("\n\n```")[0]))
            question = None
    return found


def answer(kb: KnowledgeBase, question: str, messages: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The answer so far, again and again; in the end with the quotes behind it."""
    text = ""
    for event in kb.stream(question, history=turns(messages)):
        if isinstance(event, str):
            text += event
            yield text
            continue
        pages = {c.number: f", page {c.page}" if c.page else "" for c in event.citations}
        quotes = [f"[{c.number}] {c.document_id}{pages[c.number]}: {c.quote}" for c in event.citations]
        # Fenced: Gradio renders Markdown, and a document must not put images or links on the page.
        fenced = "\n".join(quotes).replace("```", "'''")
        yield f"{event.text}\n\n```\n{fenced}\n```" if quotes else event.text


def main() -> None:
    """Read the files named on the command line, and chat about them."""
    import gradio as gr  # noqa: PLC0415 - the functions above need none

    with KnowledgeBase("gradio.index") as kb:
        if sys.argv[1:]:
            kb.ingest(*sys.argv[1:])
        gr.ChatInterface(lambda question, history: (yield from answer(kb, question, history)), title="m3rag").launch()


if __name__ == "__main__":
    main()
