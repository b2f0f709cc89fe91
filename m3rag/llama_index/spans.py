"""A span of LlamaIndex's instrumentation around what is done piece by piece.

`dispatcher.span` ends a span when its function returns, which of a generator is before it has begun.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.dispatcher import active_instrument_tags
from llama_index_instrumentation.events.span import SpanDropEvent
from llama_index_instrumentation.span import active_span_id


@contextmanager
def open_span(name: str, function: Callable[..., Any], *arguments: Any) -> Iterator[None]:
    """A span below the one that is active, and active itself until the current context is left.

    It is to be entered in a context of its own: the last piece may be taken in another one, where what was active
    before cannot be restored. What is left before its end ends the span without an error.

    Args:
        name: Of the span, behind that of the class.
        function: A bound method, and
        *arguments: what it is called with: the span's input.
    """
    dispatcher = get_dispatcher(function.__module__)
    instance = getattr(function, "__self__", None)
    span: dict[str, Any] = {
        "id_": f"{type(instance).__name__}.{name}-{uuid4()}",
        "bound_args": inspect.signature(function).bind(*arguments),
        "instance": instance,
    }
    parent = active_span_id.get()
    active_span_id.set(span["id_"])
    dispatcher.span_enter(**span, parent_id=parent, tags=active_instrument_tags.get())
    try:
        yield
    except GeneratorExit:
        dispatcher.span_exit(**span)
        raise
    except BaseException as error:
        dispatcher.event(SpanDropEvent(span_id=span["id_"], err_str=str(error)))
        dispatcher.span_drop(**span, err=error)
        raise
    dispatcher.span_exit(**span)
