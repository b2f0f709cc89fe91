"""What BM25 keeps of a store's chunks, and what changes when the store does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from m3rag.bm25.postings import Bag, bag_of
from m3rag.bm25.tokenizers import Tokenize
from m3rag.store.filters import filterable
from m3rag.types import Chunk


@dataclass(frozen=True, slots=True)
class Owner:
    """What filters look at: mostly the same for all chunks of a page or section, so kept once.

    Attributes:
        document_id: The chunk's document.
        metadata: What else filters look at (`m3rag.store.filters.filterable`), as JSON.
    """

    document_id: str
    metadata: str

    @classmethod
    def of(cls, chunk: Chunk) -> Owner:
        """The owner of a chunk."""
        return cls(chunk.document_id, json.dumps(dict(filterable(chunk))))

    def chunk(self) -> Chunk:
        """A chunk without a text, that a filter passes exactly if it passes the chunks of this owner."""
        return Chunk("", self.document_id, "", 0, 0, metadata=json.loads(self.metadata))


@dataclass(frozen=True, slots=True)
class Entry:
    """One chunk: its owner, its tokens, and the digest of the text they came from."""

    owner: Owner
    digest: bytes
    bag: Bag


@dataclass(frozen=True, slots=True)
class Contents:
    """All that is kept, at one moment.

    Attributes:
        generation: Names this very state of a file; None before any was written.
        revision: The store's, when it was last followed; None if it gave none.
        entries: By chunk id.
        vocabulary: Token to its id; ids count up from 0, in this order.
    """

    generation: str | None = None
    revision: str | None = None
    entries: Mapping[str, Entry] = field(default_factory=dict)
    vocabulary: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Changes:
    """What makes some contents equal to a store: `removed` goes, then `written` comes.

    Attributes:
        removed: Ids of chunks.
        written: Chunks that are new or other than before.
        vocabulary: Of the contents from then on; what it begins with is theirs before.
        renumbered: Whether it is another vocabulary: then all chunks go, and all there are come.
    """

    removed: Sequence[str]
    written: Mapping[str, Entry]
    vocabulary: Mapping[str, int]
    renumbered: bool = False

    def __bool__(self) -> bool:
        """Whether anything changes."""
        return bool(self.removed or self.written)

    def applied(self, contents: Contents, *, generation: str | None, revision: str | None) -> Contents:
        """The contents after them; the very entries where nothing changes."""
        if not self:
            return replace(contents, generation=generation, revision=revision)
        removed = set(self.removed)
        kept = {id_: entry for id_, entry in contents.entries.items() if id_ not in removed}
        return Contents(generation, revision, {**kept, **self.written}, self.vocabulary)


def changes_to(contents: Contents, chunks: Iterable[Chunk], tokenize: Tokenize) -> Changes:
    """Compare what is kept with the chunks of a store; only texts that are new are tokenised.

    Args:
        contents: What is kept.
        chunks: All that the store holds.
        tokenize: Splits `chunk.encoded_text`, the text that the encoder sees.
    """
    gone = set(contents.entries)
    bags = {entry.digest: entry.bag for entry in contents.entries.values()}
    owners = {entry.owner: entry.owner for entry in contents.entries.values()}
    vocabulary = dict(contents.vocabulary)
    written: dict[str, Entry] = {}
    for chunk in chunks:
        gone.discard(chunk.id)
        text = chunk.encoded_text
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        owner = Owner.of(chunk)
        owner = owners.setdefault(owner, owner)
        before = contents.entries.get(chunk.id)
        if before is not None and before.digest == digest and before.owner == owner:
            written.pop(chunk.id, None)
            continue
        if digest not in bags:
            bags[digest] = bag_of(tokenize(text), vocabulary)
        written[chunk.id] = Entry(owner, digest, bags[digest])
    changes = Changes(sorted(gone), written, vocabulary)
    # What only grows has tokens to spare from what went alone.
    return _renumbered(changes, contents) if gone or written.keys() & contents.entries.keys() else changes


def _renumbered(changes: Changes, contents: Contents) -> Changes:
    """The same changes with the tokens in use alone, where more than half of the vocabulary is of chunks that went."""
    entries = changes.applied(contents, generation=None, revision=None).entries
    bags = {entry.digest: entry.bag for entry in entries.values()}
    is_used = np.zeros(len(changes.vocabulary), bool)
    for bag in bags.values():
        is_used[bag[0]] = True
    if 2 * is_used.sum() >= len(is_used):
        return changes
    numbers = np.cumsum(is_used, dtype=np.int32) - 1
    bags = {digest: np.stack([numbers[bag[0]], bag[1]]) for digest, bag in bags.items()}
    vocabulary = {token: int(numbers[id_]) for token, id_ in changes.vocabulary.items() if is_used[id_]}
    written = {id_: replace(entry, bag=bags[entry.digest]) for id_, entry in entries.items()}
    return Changes(list(contents.entries), written, vocabulary, renumbered=True)
