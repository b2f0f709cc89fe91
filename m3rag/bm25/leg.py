"""BM25Leg: BM25 over the chunks of a store, following its changes, with its filters."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from m3rag.bm25.backends import Backend, require_backend
from m3rag.bm25.entries import Changes, Contents, changes_to
from m3rag.bm25.file import BM25File, DamagedFileError
from m3rag.bm25.formula import Formula, Method
from m3rag.bm25.postings import best
from m3rag.bm25.searchable import Searchable
from m3rag.bm25.tokenizers import Tokenize, Tokenizer, word_tokenizer
from m3rag.errors import ConfigurationError, InputError
from m3rag.store.filters import parse_filter
from m3rag.store.parts import check_k
from m3rag.store.protocol import Filter, Store
from m3rag.types import Chunk

log = logging.getLogger(__name__)

PAGE = 2_000  # chunks read at a time: a store may look through all of its chunks for each page


class BM25Leg:
    """BM25 over a store's chunks, each as the encoder sees it: its headings, then its text.

    Scores are BM25's over the chunks that the store held at the last `sync`: the idf of tokens and
    the mean length are those of these chunks, whatever was there before. A filter decides which of
    them are found, not what they score, as in the other legs.

    Everything needed is in memory (about 2.5 KB for a chunk of 180 words). The file beside it saves
    tokenising anew: its content is derived from the store, so it may be deleted at any time, and one
    that is damaged, or of a Python or bm25s whose tokens may differ, is replaced with a warning in the
    log. Usable from several threads; several processes may share a file, each calls `sync`.

    Example:
        >>> from m3rag.store.memory import MemoryStore
        >>> from m3rag.testing import HashEncoder
        >>> leg = BM25Leg()
        >>> leg.sync(MemoryStore(HashEncoder().info))
        >>> leg.candidates("Do ducks swim?", k=10)
        []

    Args:
        path: The file to keep tokens in; it is made by `sync`. None to keep them in memory alone.
        tokenize: Splits a text into tokens; `word_tokenizer()` by default. With a file it must be a
            `Tokenizer`, whose name tells whether the file's tokens are its own.
        method: `lucene` or `okapi`, see `Formula`.
        k1: See `Formula`; this, `method` and `b` may differ from one use of a file to the next.
        b: See `Formula`.
        backend: `bm25s`, or `rank-bm25` which gives the same scores more slowly.
        timeout: Seconds to wait for another process that is writing to the file.

    Raises:
        ImportError: If the backend is not installed.
        ConfigurationError: If an option is out of range, or a file is to hold tokens without a name.
        InputError: If the path is a folder, or a file of something else.
        IndexMismatchError: If the file is of another tokenizer, or of a newer m3rag.
        StoreError: If the file cannot be opened.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        tokenize: Tokenize | None = None,
        method: Method = "lucene",
        k1: float = 1.5,
        b: float = 0.75,
        backend: Backend = "bm25s",
        timeout: float = 60.0,
    ) -> None:
        require_backend(backend)
        self._backend = backend
        self._formula = Formula(method=method, k1=k1, b=b)
        self._tokenize = tokenize or word_tokenizer()
        self._syncing = threading.Lock()
        self._preparing = threading.Lock()  # apart from the other, so that a search never waits for a sync
        self._contents: Contents | None = None
        self._searchable: Searchable | None = None
        self._file: BM25File | None = None
        if path is not None:
            self._open(Path(path).expanduser().absolute(), timeout)

    def __len__(self) -> int:
        """How many chunks are known."""
        return len(self._contents.entries) if self._contents else 0

    def sync(self, store: Store) -> None:
        """Make the leg equal to the chunks of a store.

        Where the store has a `revision` (a text that is another after every change), and it is that
        of the last `sync`, nothing is done. Otherwise all chunks are read and compared; only texts
        that are new are tokenised. What searches see changes at once, when all is done.

        Raises:
            IndexMismatchError: If another process has made the file anew with another tokenizer.
            StoreError: If the store or the file fails; the leg then stays as it was.
        """
        with self._syncing:
            # Read before the chunks: what is written meanwhile is found by the next call.
            revision = store.revision
            if self._contents is not None and revision is not None and revision == self._contents.revision:
                return
            try:
                self._contents = self._followed(store, revision)
            except DamagedFileError as error:
                self._replace(error)
                self._contents = self._followed(store, revision)

    def candidates(self, text: str, *, k: int, filter: Filter | None = None) -> list[tuple[str, float]]:
        """The best `k` chunks for a question: (chunk id, score), best first, ties by id.

        Only chunks that share a token with the question, and among them exactly the best that pass
        the filter.

        Raises:
            InputError: If `k` is no whole number above 0, the filter makes no sense, or `sync` was never called.
        """
        check_k(k)
        condition = parse_filter(filter)
        found = self._current()
        tokens = found.tokens(self._tokenize(text))
        if not tokens:
            return []
        rows = found.passing(found.postings.sharing(tokens), condition)
        scores = found.scores(tokens)
        return [(found.ids[row], float(scores[row])) for row in best(scores, rows, k)]

    def score(self, text: str, chunk_ids: Sequence[str]) -> dict[str, float]:
        """The score of the chunks named; 0.0 where nothing is shared, unknown ids are left out.

        Raises:
            InputError: If `sync` was never called.
        """
        found = self._current()
        rows = {id_: found.rows[id_] for id_ in chunk_ids if id_ in found.rows}
        tokens = found.tokens(self._tokenize(text))
        if not tokens:
            return dict.fromkeys(rows, 0.0)
        scores = found.scores(tokens)
        return {id_: float(scores[row]) for id_, row in rows.items()}

    def _open(self, path: Path, timeout: float) -> None:
        if not isinstance(self._tokenize, Tokenizer):
            raise ConfigurationError(
                f"tokens kept in {path} need a name: wrap the function as Tokenizer('my-words-1', function)"
            )
        self._file = BM25File(path, tokenizer=self._tokenize.name, timeout=timeout)
        try:
            contents = self._file.read()
        except DamagedFileError as error:
            self._replace(error)
        else:
            self._contents = contents if contents.generation is not None else None

    def _followed(self, store: Store, revision: str | None) -> Contents:
        """The contents that equal the store, written to the file."""
        contents = self._contents or Contents()
        while True:
            if self._file is not None and self._file.generation() != contents.generation:
                contents = self._file.read()  # another process has followed the store
            changes = changes_to(contents, _all_chunks(store), self._tokenize)
            written = self._written(changes, contents, revision)
            if written is not None:
                return written

    def _written(self, changes: Changes, contents: Contents, revision: str | None) -> Contents | None:
        """The contents after some changes; None if another process wrote to the file meanwhile."""
        if self._file is None:
            return changes.applied(contents, generation=None, revision=revision)
        if not changes and contents.generation is not None and revision == contents.revision:
            return contents
        generation = self._file.write(changes, after=contents, revision=revision)
        if generation is None:
            return None
        return changes.applied(contents, generation=generation, revision=revision)

    def _replace(self, error: DamagedFileError) -> None:
        assert self._file is not None
        log.warning("%s: it is made again from the store by the next sync", error)
        self._file.discard()
        self._contents = None

    def _current(self) -> Searchable:
        """What to search, prepared by the first search after a change."""
        with self._preparing:
            contents = self._contents
            if contents is None:
                raise InputError("the BM25 leg follows no store yet: call sync(store) before searching")
            if self._searchable is None or self._searchable.entries is not contents.entries:
                self._searchable = Searchable(contents, backend=self._backend, formula=self._formula)
            return self._searchable


def _all_chunks(store: Store) -> Iterator[Chunk]:
    cursor: str | None = None
    while True:
        page, cursor = store.scan(limit=PAGE, cursor=cursor)
        yield from page
        if cursor is None:
            return
