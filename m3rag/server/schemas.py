"""What requests may hold; unknown fields are refused."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from m3rag.answering import Turn
from m3rag.retrieval import Mode, SearchOptions

MOST_QUESTION = 10_000
MOST_HITS = 100
MOST_CONDITIONS = 10_000
"""Keys and values of a filter, at all levels."""


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is blank: ask something in words")
    return text


def _sound(text: str) -> str:
    # pydantic looks for it only where a length is set.
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair, which is no text: leave it out") from None
    return text


Sound = Annotated[str, AfterValidator(_sound)]
Question = Annotated[str, Field(min_length=1, max_length=MOST_QUESTION), AfterValidator(_not_blank)]


class Body(BaseModel):
    """A request's JSON."""

    model_config = ConfigDict(extra="forbid")


class ErrorDetail(BaseModel):
    """What went wrong, and what to do about it."""

    message: str
    remedy: str | None
    type: Annotated[str | None, Field(description="as OpenAI names it, below /v1")] = None
    code: Annotated[str | None, Field(description="as OpenAI names it, below /v1")] = None
    param: Annotated[str | None, Field(description="where in the request, below /v1")] = None


class ErrorBody(BaseModel):
    """Every response that is an error."""

    error: ErrorDetail


def _not_wide(filter: dict[str, JsonValue]) -> dict[str, JsonValue]:
    waiting: list[JsonValue] = [filter]
    seen = 0
    while waiting:
        value = waiting.pop()
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        for text in value if isinstance(value, dict) else [value]:
            if isinstance(text, str):
                _sound(text)
        seen += len(inside)
        if seen > MOST_CONDITIONS:
            raise ValueError(f"has more than {MOST_CONDITIONS:,} keys and values: ask in parts")
        waiting.extend(inside)
    return filter


class Looking(Body):
    """How to search; what is left out is as the server is set up."""

    k: Annotated[int, Field(ge=1, le=MOST_HITS)] | None = None
    mode: Mode | None = None
    weights: Annotated[str, Field(max_length=100)] | None = None
    filter: Annotated[dict[str, JsonValue], AfterValidator(_not_wide)] | None = None

    def options(self) -> SearchOptions:
        """As keywords of a search."""
        return {"k": self.k, "mode": self.mode, "weights": self.weights, "filter": self.filter or None}


class SearchBody(Looking):
    """A search."""

    query: Question
    explain: bool = False


class TurnBody(Body):
    """One turn of the conversation so far."""

    question: Annotated[str, Field(max_length=MOST_QUESTION)]
    answer: Annotated[str, Field(max_length=100_000)]


class AskBody(Looking):
    """A question to be answered."""

    question: Question
    history: Annotated[list[TurnBody], Field(max_length=100)] = []

    def turns(self) -> list[Turn]:
        """The conversation."""
        return [Turn(turn.question, turn.answer) for turn in self.history]


class HighlightsBody(Body):
    """Which words of a chunk matched a question."""

    query: Question
    chunk_id: Annotated[str, Field(max_length=1000)]


class FeedbackBody(Body):
    """What somebody thinks of an answer. Of several with one id the last holds; `none` takes them back."""

    id: Annotated[str, Field(max_length=100)]
    question: Annotated[str, Field(max_length=MOST_QUESTION)]
    answer: Annotated[str, Field(max_length=100_000)]
    rating: Literal["up", "down", "none"]
    comment: Annotated[str, Field(max_length=5_000)] = ""


class FurtherLegs(Body):
    """Which representations an embedding brings beside the dense vector."""

    lexical: bool = False
    colbert: bool = False


def _no_tokens(given: object) -> object:
    if isinstance(given, list) and any(isinstance(one, int | list) for one in given):
        raise ValueError(
            "holds tokens, which are another model's: send text (with LangChain: check_embedding_ctx_length=False)"
        )
    return given


Texts = Annotated[list[str], Field(min_length=1, max_length=2048)]


class EmbeddingsBody(Body):
    """OpenAI's request for embeddings, with `m3rag` as an extension."""

    input: Annotated[str | Texts, BeforeValidator(_no_tokens)]
    model: str = ""
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None
    input_type: Annotated[
        Literal["query", "document"], Field(description="which prefix texts get, for models that know prefixes")
    ] = "document"
    m3rag: FurtherLegs = FurtherLegs()


class ContentPart(BaseModel):
    """A part of a message; only text is taken."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One message of OpenAI's chat."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None

    @property
    def text(self) -> str:
        """What it says."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content or ())


class StreamOptions(BaseModel):
    """What a stream brings beside the answer."""

    include_usage: bool | None = None


class ChatBody(BaseModel):
    """OpenAI's request for a chat completion; what is said about sampling is passed over, as others do.

    `m3rag` is an extension: how to search.
    """

    model: str = ""
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=200)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    m3rag: Looking = Looking()


class RerankDocument(BaseModel):
    """A document to be ranked, as Cohere may have it."""

    text: Sound


def _not_raw(given: bool | None) -> bool | None:
    if given:
        raise ValueError("the scores of this model are no logits, of which there could be raw ones: leave it out")
    return given


class RerankBody(Body):
    """A request to rank documents, in the shapes of Cohere, Jina and TEI; how long a text may be is the model's."""

    query: Question
    documents: Annotated[list[Sound | RerankDocument], Field(min_length=1, max_length=1000)] | None = None
    texts: Annotated[list[Sound], Field(min_length=1, max_length=1000)] | None = Field(
        default=None, description="as TEI names the documents"
    )
    model: str = ""
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool | None = None
    return_text: Annotated[bool | None, Field(description="as TEI names return_documents")] = None
    raw_scores: Annotated[bool | None, AfterValidator(_not_raw), Field(description="only false")] = None
    truncate: Annotated[bool | None, Field(description="passed over: what is too long is cut at its end")] = None
    truncation_direction: Literal["right", "Right"] | None = None
    max_tokens_per_doc: Annotated[int | None, Field(description="passed over")] = None
    rank_fields: list[Literal["text"]] | None = None
    user: Annotated[str | None, Field(description="passed over")] = None
    mode: Mode | None = None
    weights: Annotated[str, Field(max_length=100)] | None = None
