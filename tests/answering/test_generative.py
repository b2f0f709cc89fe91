from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from m3rag.answering.generative import Generative
from m3rag.answering.openai_chat import OpenAIChat
from m3rag.answering.prompt import SENTINEL
from m3rag.answering.protocol import NO_ANSWER_TEXT, Message
from m3rag.errors import ConfigurationError, InputError, LLMError
from m3rag.testing.llm_server import LLMRequest, LLMServer
from m3rag.types import Answer, Chunk, Hit

PARIS = "Paris is the capital of France. It lies on the Seine."
BERLIN = "Berlin is the capital of Germany."
HITS = [
    Hit(Chunk("c1", "fr.pdf", PARIS, 10, 10 + len(PARIS), 2), 0.9),
    Hit(Chunk("c2", "de.txt", BERLIN, 0, len(BERLIN)), 0.8),
]


class Said:
    """A language model that says one thing, piece by piece."""

    name = "said"

    def __init__(self, *pieces: str) -> None:
        self.pieces = pieces
        self.asked: list[Sequence[Message]] = []

    def stream(self, messages: Sequence[Message]) -> Iterator[str]:
        self.asked.append(messages)
        yield from self.pieces

    def complete(self, messages: Sequence[Message]) -> str:
        return "".join(self.stream(messages))


def test_an_answer_has_checked_and_renumbered_citations() -> None:
    answer = Generative(Said("Berlin is Germany's capital [2], [7] Paris lies on the Seine [1].")).answer("q?", HITS)
    assert answer.text == "Berlin is Germany's capital [1], Paris lies on the Seine [2]."
    assert [(c.number, c.document_id, c.page) for c in answer.citations] == [(1, "de.txt", None), (2, "fr.pdf", 2)]
    assert answer.answered
    assert answer.hits == tuple(HITS)
    assert answer.support is None


def test_a_refusal_is_shown_plainly_and_keeps_the_passages() -> None:
    answer = Generative(Said(f"`{SENTINEL}`.")).answer("q?", HITS)
    assert answer == Answer(text=NO_ANSWER_TEXT, citations=(), hits=tuple(HITS), answered=False)


def test_thinking_is_neither_shown_nor_taken_for_the_answer() -> None:
    thinking = f"<think>Passage 2? If not, {SENTINEL} [2]."
    llm = Said(*thinking, "</think>", "\n\nIt lies ", "on the Seine [1].")
    answer = Generative(llm).answer("q?", HITS)
    assert (answer.text, [c.document_id for c in answer.citations]) == ("It lies on the Seine [1].", ["fr.pdf"])
    assert list(Generative(llm).stream("q?", HITS)) == ["It lies ", "on the Seine [1].", answer]
    with pytest.raises(LLMError, match="a model that thinks first may have used them up"):
        Generative(Said(*thinking)).answer("q?", HITS)
    assert not Generative(Said("<think>Hm.</think>", SENTINEL)).answer("q?", HITS).answered


def test_without_passages_the_model_is_not_asked() -> None:
    llm = Said("Paris.")
    assert not Generative(llm).answer("q?", []).answered
    assert [event.answered for event in Generative(llm).stream("q?", [])] == [False]
    assert llm.asked == []


def test_an_answer_without_marks_is_an_answer_without_citations() -> None:
    answer = Generative(Said("Paris [5].")).answer("q?", HITS)
    assert (answer.text, answer.citations, answer.answered) == ("Paris.", (), True)


@pytest.mark.parametrize("reply", ["[9]", "[7].", " [8] [9] "])
def test_a_reply_of_marks_of_no_passage_is_a_refusal(reply: str) -> None:
    refused = Answer(text=NO_ANSWER_TEXT, citations=(), hits=tuple(HITS), answered=False)
    assert Generative(Said(reply)).answer("q?", HITS) == refused
    assert list(Generative(Said(reply)).stream("q?", HITS))[-1] == refused


@pytest.mark.parametrize("reply", ["", " \n"])
def test_a_reply_of_nothing_is_an_error(reply: str) -> None:
    with pytest.raises(LLMError, match="said replied with nothing"):
        Generative(Said(reply)).answer("q?", HITS)


def test_a_quote_holds_nothing_that_was_cut_from_the_prompt() -> None:
    text = "Ducks swim on ponds. " * 20 + "Ducks lay twelve eggs."
    said = Said("Ducks lay twelve eggs [1].")
    hit = Hit(Chunk("c", "ducks.txt", text, 100, 100 + len(text)), 1.0)
    (citation,) = Generative(said, max_context_chars=200).answer("How many eggs?", [hit]).citations
    assert citation.quote in said.asked[0][1].content
    assert citation.quote == text[citation.start - 100 : citation.end - 100] != ""


def test_a_model_that_quotes_a_number_of_the_source_cites_nothing_by_it() -> None:
    text = "Acme's pump failed in every trial [2]."

    class Quotes(Said):
        def stream(self, messages: Sequence[Message]) -> Iterator[str]:
            prompt = messages[1].content
            yield prompt[prompt.index("Acme's") : prompt.index("\n</passage")] + " [1]"

    hits = [Hit(Chunk("c1", "acme.pdf", text, 0, len(text)), 1.0), HITS[0]]
    answer = Generative(Quotes()).answer("Which pump failed?", hits)
    assert answer.text == "Acme's pump failed in every trial (2). [1]"
    assert [(c.document_id, c.quote) for c in answer.citations] == [("acme.pdf", text)]


def test_marks_can_only_name_passages_that_were_shown() -> None:
    answer = Generative(Said("Berlin [2]."), max_context_chars=150).answer("q?", HITS)
    assert (answer.text, answer.citations) == ("Berlin.", ())


def test_the_stream_gives_pieces_and_then_the_answer() -> None:
    answerer = Generative(Said("No", "thing but Paris", " [1]", "."))
    *pieces, answer = answerer.stream("q?", HITS)
    assert "".join(pieces) == "Nothing but Paris [1]."
    assert len(pieces) >= 3
    assert answer == answerer.answer("q?", HITS)


@pytest.mark.parametrize("pieces", [("NOT", "_IN_", "DOCUMENTS"), (f" {SENTINEL}\n",)])
def test_a_refusal_streams_no_pieces(pieces: tuple[str, ...]) -> None:
    (answer,) = Generative(Said(*pieces)).stream("q?", HITS)
    assert not answer.answered


def test_a_short_reply_that_begins_like_a_refusal_is_streamed() -> None:
    piece, answer = Generative(Said("No", "t")).stream("q?", HITS)
    assert (piece, answer.text) == ("Not", "Not")


def test_blank_questions_and_impossible_limits_are_refused_at_once() -> None:
    with pytest.raises(InputError, match="blank"):
        Generative(Said("x")).answer(" ", HITS)
    with pytest.raises(InputError, match="blank"):
        Generative(Said("x")).stream("\n", HITS)
    with pytest.raises(ConfigurationError, match="count_tokens"):
        Generative(Said("x"), max_context_tokens=100)


def test_over_the_wire() -> None:
    def script(request: LLMRequest) -> str:
        return "Paris is the capital of France [1]." if PARIS in request.prompt else SENTINEL

    with LLMServer(script) as server, OpenAIChat("m", base_url=server.base_url) as llm:
        *pieces, answer = Generative(llm).stream("Capital of France?", HITS)
        refused = Generative(llm).answer("Capital of France?", HITS[1:])
    assert "".join(pieces) == answer.text == "Paris is the capital of France [1]."
    assert answer.citations[0].quote == "Paris is the capital of France."
    assert (answer.citations[0].start, answer.citations[0].end) == (10, 41)
    assert not refused.answered
