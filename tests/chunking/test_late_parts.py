from __future__ import annotations

import numpy as np
import pytest

from m3rag.chunking import Chunker, late_parts
from m3rag.chunking.late import AT_ONCE
from m3rag.encoder.cache import MemoryCache
from m3rag.encoder.cached import CachedEncoder
from m3rag.encoder.encoder import M3Encoder
from m3rag.errors import ConfigurationError
from m3rag.output import M3Output
from m3rag.testing import HashEncoder
from m3rag.types import Document


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint):
    return M3Encoder(str(tiny_checkpoint), device="cpu", max_length=512)


def test_dense_vectors_are_late_and_the_rest_is_the_chunks_own(tiny, multilingual_texts):
    text = "\n\n \n".join(multilingual_texts[:6])
    chunks = Chunker(chunk_tokens=48, overlap_tokens=8, late=True).split(Document("d", text, "h"), tiny)
    assert 3 < len(chunks) < AT_ONCE
    told = []
    ((part, output),) = late_parts(chunks, tiny, on_part=lambda *counts: told.append(counts))
    assert part == chunks
    assert told == [(len(chunks), len(chunks))]
    late = tiny.encode_spans(text, [(c.start, c.end) for c in chunks])
    alone = tiny.encode_documents([c.encoded_text for c in chunks])
    assert np.allclose(output.dense, late.dense, atol=1e-4)
    assert not np.allclose(output.dense, alone.dense, atol=1e-2)
    assert np.array_equal(output.colbert, alone.colbert)
    assert (output.lexical != alone.lexical).nnz == 0
    assert [len(tiny.token_spans(c.encoded_text)) for c in chunks] == np.diff(output.offsets).tolist()


def test_a_long_document_comes_in_parts_whose_vectors_have_seen_what_stands_around(tiny, multilingual_texts):
    text = "\n\n".join(multilingual_texts)
    chunks = Chunker(chunk_tokens=64, overlap_tokens=0, late=True).split(Document("d", text, "h"), tiny)
    parts = list(late_parts(chunks, tiny))
    assert len(parts) > 2
    assert [chunk for part, _ in parts for chunk in part] == chunks
    output = M3Output.concatenate([output for _, output in parts])
    assert np.allclose(np.linalg.norm(output.dense, axis=1), 1, atol=1e-5)
    whole = tiny.encode_spans(text, [(c.start, c.end) for c in chunks])
    alone = tiny.encode_spans(text[chunks[70].start : chunks[70].end], [(0, len(chunks[70].text))])
    # Windows fall elsewhere, but each chunk has context: nearer to the whole document's than to its own alone.
    assert float(output.dense[70] @ whole.dense[70]) > float(output.dense[70] @ alone.dense[0])


def test_an_encoder_that_cannot_is_refused(tiny):
    chunks = Chunker().split(Document("d", "some text", "h"), HashEncoder())
    for encoder in (HashEncoder(), CachedEncoder(tiny, MemoryCache())):
        with pytest.raises(ConfigurationError, match=r"late chunking needs an M3Encoder, and .* is a \w+Encoder"):
            next(late_parts(chunks, encoder))
