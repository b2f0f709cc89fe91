"""Documents to chunks: token-exact, cut where the text itself pauses, every chunk a span of its document."""

from m3rag.chunking.chunker import CHUNKING_VERSION, CONTEXT_TOKENS, Chunker, SpanSource, document_version
from m3rag.chunking.fixed import Fixed
from m3rag.chunking.late import late_parts
from m3rag.chunking.parents import RESERVED, parent_of, siblings, widened
from m3rag.chunking.semantic import Semantic
from m3rag.chunking.sentence_window import SentenceWindow
from m3rag.chunking.small_to_big import SmallToBig
from m3rag.chunking.strategy import Cut, Material, Strategy
from m3rag.chunking.structure import Structure

__all__ = [
    "CHUNKING_VERSION",
    "CONTEXT_TOKENS",
    "RESERVED",
    "Chunker",
    "Cut",
    "Fixed",
    "Material",
    "Semantic",
    "SentenceWindow",
    "SmallToBig",
    "SpanSource",
    "Strategy",
    "Structure",
    "document_version",
    "late_parts",
    "parent_of",
    "siblings",
    "widened",
]
