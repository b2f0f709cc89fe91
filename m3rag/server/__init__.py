"""The server: REST, OpenAI's protocol, MCP and the page, over one `KnowledgeBase`.

`pip install "m3rag[app]"`. Names load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3rag._lazy import lazy_names

if TYPE_CHECKING:
    from m3rag.server.app import create_app
    from m3rag.server.run import serve

__all__ = ["create_app", "serve"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {"create_app": "m3rag.server.app", "serve": "m3rag.server.run"},
    extras={"m3rag.server.app": ("fastapi", "app")},
)
