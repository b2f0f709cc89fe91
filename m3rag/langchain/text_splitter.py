"""M3TextSplitter: m3rag's chunking for LangChain."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from langchain_core.documents import BaseDocumentTransformer, Document

from m3rag.chunking import Chunker, Semantic, Strategy
from m3rag.chunking.chunker import SpanSource
from m3rag.chunking.counting import require_span_source, tokenizer_of
from m3rag.chunking.names import strategy_of
from m3rag.errors import InputError
from m3rag.langchain.model import listed
from m3rag.types import Chunk
from m3rag.types import Document as M3Document

if TYPE_CHECKING:
    from langchain_text_splitters import TextSplitter as Base
else:
    # What takes a splitter of LangChain's, as ParentDocumentRetriever does, comes with that package.
    try:
        from langchain_text_splitters import TextSplitter as Base
    except ModuleNotFoundError as error:
        if error.name != "langchain_text_splitters":
            raise
        Base = BaseDocumentTransformer


class M3TextSplitter(Base):
    """Documents to chunks by the tokens of the model that will encode them.

    Setup:
        ```bash
        pip install "m3rag[langchain]"
        ```

    Instantiate:
        ```python
        from m3rag.langchain import M3TextSplitter

        splitter = M3TextSplitter(model="BAAI/bge-m3", chunk_tokens=256)  # reads its tokenizer alone
        splitter = M3TextSplitter(encoder=knowledge_base.encoder, strategy="semantic")
        ```

    Use:
        ```python
        chunks = splitter.split_documents(loader.load())
        chunks = splitter.create_documents(["A text.", "Another."], [{"source": "a"}, {"source": "b"}])
        texts = splitter.split_text("A text.")
        ```

    Where `langchain_text_splitters` is installed it is one of its `TextSplitter`s, as `ParentDocumentRetriever` asks
    for; it has their methods without that package too. A chunk's metadata are its document's and `start_index`, where
    it stands in the document, exactly: `page_content == document.page_content[start_index : start_index +
    len(page_content)]`. A chunk of a document with an id has the id `<document id>#<version>-<number>`, the same for
    the same text and settings; without one it has none.
    White space around a chunk is not part of it, and a document of white space gives no chunk.

    Args:
        model: `mini`, a hub id or a checkpoint folder. By default `BAAI/bge-m3`.
        encoder: An encoder already loaded, to share its tokenizer; `semantic` needs one, and loads the model else.
        strategy: As for `m3rag.chunking.Chunker`.
        chunk_tokens: Most tokens of a chunk, as they count in its document. By itself a chunk that begins within a
            run without blanks, as of Chinese or Thai, may count one more.
        overlap_tokens: Most tokens that two chunks share; less than half of `chunk_tokens`.
        cache_folder: Where models from the hub are kept.
        local_files_only: Never ask the hub.

    Raises:
        ConfigurationError: If an option is out of range, or there is no such strategy.
        ModelError: If the model cannot be had.
        InputError: If both `model` and `encoder` are given.
    """

    def __init__(
        self,
        *,
        model: str | None = None,
        encoder: SpanSource | None = None,
        strategy: str | Strategy = "structure",
        chunk_tokens: int = 256,
        overlap_tokens: int = 32,
        cache_folder: str | None = None,
        local_files_only: bool = False,
    ) -> None:
        if model is not None and encoder is not None:
            raise InputError("encoder is already loaded: leave out model")
        self.chunker = Chunker(strategy=strategy, chunk_tokens=chunk_tokens, overlap_tokens=overlap_tokens)
        if Base is not BaseDocumentTransformer:
            super().__init__(chunk_tokens, overlap_tokens, self._count, add_start_index=True)
        self._spans: SpanSource
        if encoder is not None:
            self._spans = require_span_source(encoder)
        elif isinstance(strategy_of(strategy), Semantic):
            from m3rag.encoder.loaded import loaded  # noqa: PLC0415 - torch takes seconds

            self._spans = loaded(model or "BAAI/bge-m3", cache_folder=cache_folder, local_files_only=local_files_only)
        else:
            self._spans = tokenizer_of(
                model or "BAAI/bge-m3", cache_folder=cache_folder, local_files_only=local_files_only
            )

    def split_text(self, text: str) -> list[str]:
        """The chunks of one text, in order.

        Raises:
            InputError: If it is no string.
        """
        if not isinstance(text, str):
            raise InputError(f"text is a {type(text).__name__}, must be one string: create_documents takes several")
        return [chunk.text for chunk in self._chunks(text, "")]

    def create_documents(self, texts: list[str], metadatas: list[dict[Any, Any]] | None = None) -> list[Document]:
        """The chunks of several texts, those of the first text first.

        Args:
            texts: Any number of texts, which may come from a generator.
            metadatas: One dict a text; each chunk gets a copy.

        Raises:
            InputError: If `texts` is one string, or holds something that is none, or texts and metadata differ in
                number.
        """
        texts = listed(texts)
        if metadatas is not None and len(metadatas) != len(texts):
            raise InputError(f"there are {len(texts)} texts and {len(metadatas)} metadatas: give one a text")
        return self.split_documents(
            Document(page_content=text, metadata=metadata)
            for text, metadata in zip(texts, metadatas or [{} for _ in texts], strict=True)
        )

    def split_documents(self, documents: Iterable[Document]) -> list[Document]:
        """The chunks of documents, in their order; the documents stay as they are.

        Raises:
            InputError: If one is no Document.
        """
        return [chunk for document in documents for chunk in self._split(document)]

    def transform_documents(self, documents: Sequence[Document], **kwargs: Any) -> list[Document]:
        """As `split_documents`; the name that LangChain's pipelines call. Further options are refused.

        Raises:
            InputError: If there are any.
        """
        if kwargs:
            raise InputError(f"M3TextSplitter knows no option {', '.join(sorted(kwargs))}: set it up when it is made")
        return self.split_documents(documents)

    def _split(self, document: Document) -> list[Document]:
        if not isinstance(document, Document):
            raise InputError(f"a document is a {type(document).__name__}: create_documents splits texts")
        return [
            Document(
                id=chunk.id if document.id else None,
                page_content=chunk.text,
                # The chunker is given no metadata: what a chunk has is its parent's span.
                metadata={**deepcopy(document.metadata), **chunk.metadata, "start_index": chunk.start},
            )
            for chunk in self._chunks(document.page_content, document.id or "")
        ]

    def _count(self, text: str) -> int:
        return len(self._spans.word_spans(text))

    def _chunks(self, text: str, name: str) -> list[Chunk]:
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        return self.chunker.split(M3Document(name, text, digest), self._spans)
