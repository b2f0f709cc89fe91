"""What a Qdrant server, or the way to it, can refuse: as our errors, each with its remedy and without secrets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from m3rag.errors import IndexLockedError, IndexMissingError, M3RagError, StoreError

_TOO_SLOW = ("DEADLINE_EXCEEDED", 408, 504)
_NO_ACCESS = ("UNAUTHENTICATED", "PERMISSION_DENIED", 401, 403)
_MISSING = ("NOT_FOUND", 404)
_TOO_LARGE = ("OUT_OF_RANGE", 413)
_BUSY = ("RESOURCE_EXHAUSTED", 429)


@contextmanager
def named_errors(place: str, collection: str) -> Iterator[None]:
    """Turn what the client raises into a StoreError that names the place and the remedy.

    Args:
        place: Where the server is, without user, password or key.
        collection: The collection that was asked for.

    Raises:
        IndexMissingError: If the server has no such collection.
        IndexLockedError: If a folder of local mode is open elsewhere.
        StoreError: In every other case.
    """
    try:
        yield
    except M3RagError:
        raise
    except Exception as error:
        raise _named(error, place, collection) from error


def _named(error: Exception, place: str, collection: str) -> StoreError:
    if isinstance(error, ResponseHandlingException | json.JSONDecodeError):
        return _of_connection(getattr(error, "source", error), place)
    if isinstance(error, UnexpectedResponse):
        # Redirects and pages of a proxy are answers, too, and not of Qdrant.
        told = error.content[:300].decode(errors="replace")
        return _of_status(error.status_code or 0, told, place, collection)
    if isinstance(error, ResourceExhaustedResponse):
        return _of_status(429, f"try again in {error.retry_after_s} s; {error}", place, collection)
    code = getattr(error, "code", None)
    if callable(code):  # of gRPC, whose stubs do not name their error
        details = str(getattr(error, "details", str)())
        unreachable = code().name == "UNAVAILABLE"
        return _unreachable(details, place) if unreachable else _of_status(code().name, details, place, collection)
    return _of_local_mode(error, place, collection)


def _of_local_mode(error: Exception, place: str, collection: str) -> StoreError:
    if isinstance(error, RuntimeError) and "already accessed" in str(error):
        return IndexLockedError(f"the index at {place} is in use by another client: close it (or stop that process)")
    if isinstance(error, ValueError) and str(error) == f"Collection {collection} not found":
        return _of_status(404, "", place, collection)
    return StoreError(f"the collection {collection!r} at {place} failed ({type(error).__name__}): {error}")


def _of_connection(source: Exception, place: str) -> StoreError:
    if isinstance(source, httpx.TimeoutException) and not isinstance(source, httpx.ConnectTimeout):
        return _of_status(408, "", place, "")
    if isinstance(source, httpx.TransportError):
        return _unreachable(str(source) or type(source).__name__, place)
    return StoreError(
        f"what answers at {place} does not speak Qdrant's protocol ({type(source).__name__}): check the url and port"
    )


def _unreachable(told: str, place: str) -> StoreError:
    return StoreError(
        f"no Qdrant server can be reached at {place} ({told}): start it, or check the url, port and network"
    )


def _of_status(status: int | str, told: str, place: str, collection: str) -> StoreError:
    told = f": {told}" if told else ""
    if status in _NO_ACCESS:
        return StoreError(
            f"the Qdrant server at {place} refused the api key ({status}): give api_key one that may write "
            f"the collection {collection!r}"
        )
    if status in _MISSING:
        return IndexMissingError(
            f"there is no collection {collection!r} at {place}: make it with QdrantStore.create, "
            f"or check the name and url{told}"
        )
    if status in _TOO_SLOW:
        return StoreError(
            f"the Qdrant server at {place} did not answer in time: try again, or give a longer timeout; "
            f"a write may have happened, writing it again does no harm{told}"
        )
    if status in _TOO_LARGE:
        return StoreError(
            f"the Qdrant server at {place} takes no request of this size: raise its service.max_request_size_mb, "
            f"or store smaller chunks and metadata{told}"
        )
    if status in _BUSY:
        return StoreError(f"the Qdrant server at {place} has reached a limit of its own: wait and try again{told}")
    return StoreError(f"the Qdrant server at {place} refused a request on {collection!r} ({status}){told}")
