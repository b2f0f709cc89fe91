"""Errors as clients see them: `{"error": {"message", "remedy"}}`, the right status, never a traceback.

Below `/v1` they have what OpenAI's clients look for, too: `type`, `code` and `param`.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Scope

from m3rag.errors import (
    ConfigurationError,
    IndexLockedError,
    IndexMismatchError,
    IndexMissingError,
    InputError,
    LLMError,
    M3RagError,
    ModelError,
    ReadError,
    StoreError,
)

log = logging.getLogger("m3rag.server")

STATUSES: tuple[tuple[type[Exception], int, str | None], ...] = (
    (InputError, 400, None),
    (ReadError, 422, None),
    (IndexMissingError, 409, "Add a document first."),
    (IndexLockedError, 503, "End the other process that holds the index, or let it finish."),
    (IndexMismatchError, 503, "Start the server with the model of the index, or encode the index again."),
    (ConfigurationError, 400, None),
    (ModelError, 503, "Look at the server's settings: its model cannot be used."),
    (LLMError, 502, "Ask again; if it stays so, look at the language model's server."),
    (StoreError, 503, "Look at the server's log: its index cannot be used."),
    (ImportError, 501, "Install the extra that the message names where the server runs."),
    (M3RagError, 500, None),
)

METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
OPENAI_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}


class Refused(Exception):
    """A request that is answered with an error.

    Attributes:
        status: Of HTTP.
        message: What is wrong, for a person.
        remedy: What to do about it.
        headers: Further ones of the response.
        code: As OpenAI names what is wrong, where that is more than its status.
    """

    def __init__(
        self,
        status: int,
        message: str,
        remedy: str | None = None,
        *,
        headers: dict[str, str] | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.remedy = remedy
        self.headers = headers or {}
        self.code = code


def body_of(message: str, remedy: str | None = None) -> dict[str, Any]:
    """The JSON of an error."""
    return {"error": {"message": message, "remedy": remedy}}


def openai_body_of(
    status: int, message: str, remedy: str | None = None, *, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """The JSON of an error, with what OpenAI's clients look for."""
    kind = "server_error" if status >= 500 else OPENAI_TYPES.get(status, "invalid_request_error")
    of_openai = {"type": kind, "code": code or OPENAI_CODES.get(status), "param": param}
    return {"error": {**body_of(message, remedy)["error"], **of_openai}}


def told(error: Exception) -> tuple[int, str, str | None]:
    """Status, message and remedy of an error; of one that nobody meant, an id that the log has too."""
    if isinstance(error, Refused):
        return error.status, error.message, error.remedy
    for kind, status, remedy in STATUSES:
        if isinstance(error, kind):
            return status, printable(str(error)), remedy
    number = secrets.token_hex(4)
    log.error("error %s", number, exc_info=error)
    return 500, f"something failed in the server (error {number})", f"Look for {number} in the server's log."


def printable(text: str) -> str:
    """Text that can be sent: a file name may hold bytes that are no Unicode."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def about(name: str, message: str) -> str:
    """What is wrong with a file, as a sentence that names it."""
    if name in message:
        return printable(message)
    # Readers say it of the file (`is empty`), or of something else (`its name is ...`).
    of_another = message.partition(" ")[0] in ("the", "there", "its", "no")
    return printable(f"{name}{':' if of_another else ''} {message}")


def response_of(error: Exception, path: str = "") -> JSONResponse:
    """An error as the response of an address."""
    status, message, remedy = told(error)
    headers, code = (error.headers, error.code) if isinstance(error, Refused) else (None, None)
    return _response(path, status, message, remedy, headers=headers, code=code)


def _response(
    path: str,
    status: int,
    message: str,
    remedy: str | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    code: str | None = None,
    param: str | None = None,
) -> JSONResponse:
    if path.startswith("/v1/"):
        body = openai_body_of(status, message, remedy, code=code, param=param)
    else:
        body = body_of(message, remedy)
    return JSONResponse(body, status, headers=headers)


def install(app: FastAPI) -> None:
    """Answer with such errors wherever a route raises."""

    async def known(request: Request, error: Exception) -> JSONResponse:
        return response_of(error, request.scope["path"])

    async def http(request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, HTTPException):
            raise error
        if isinstance(cause := error.__cause__, OSError):  # FastAPI's, while it took a body
            return response_of(
                Refused(
                    507,
                    f"the server cannot take the request ({cause.strerror})",
                    "Make room where it keeps temporary files.",
                ),
                request.scope["path"],
            )
        if isinstance(cause, Refused):  # the guard's, while a body was read
            return response_of(cause, request.scope["path"])
        headers = error.headers
        if error.status_code == 405 and (methods := _methods(app, request.scope)):
            headers = {"allow": ", ".join(methods)}
        return _response(request.scope["path"], error.status_code, _sentence(error), headers=headers)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        problems: Sequence[Any] = error.errors() if isinstance(error, RequestValidationError) else ()
        told = "; ".join(map(_problem, problems[:MOST_PROBLEMS]))
        if len(problems) > MOST_PROBLEMS:
            told += f"; and {len(problems) - MOST_PROBLEMS} more"
        param = _place(problems[0]) if problems else None
        return _response(request.scope["path"], 422, told, "See /openapi.json for what is taken.", param=param)

    for kind in (Refused, M3RagError, ImportError):
        app.add_exception_handler(kind, known)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)


def _methods(app: FastAPI, scope: Scope) -> list[str]:
    # Starlette names those of the first route that has the path, of which there may be one for each.
    def taken(method: str) -> bool:
        return any(route.matches({**scope, "method": method})[0] is Match.FULL for route in app.routes)

    # What a mounted application refuses is its own: the mount takes everything.
    return [] if taken(scope["method"]) else [method for method in METHODS if taken(method)]


def _sentence(error: HTTPException) -> str:
    return {404: "there is nothing at this address", 405: "this address does not take that method"}.get(
        error.status_code, str(error.detail)
    )


MOST_PROBLEMS = 5
MOST_PLACE = 100
"""Characters of where a problem is: keys are the client's, and may be deep or long."""


OF_PYDANTIC = re.compile(r"[a-z-]+\[.+\]")
"""Which of several types was tried, in a place: `function-after[_sound(), str]`."""


def _problem(problem: Any) -> str:
    # What was sent is not repeated: it may be long, or a secret in the wrong place.
    return printable(f"{_place(problem) or 'the request'}: {problem['msg'].removeprefix('Value error, ')}")


def _place(problem: Any) -> str | None:
    if problem["type"] == "json_invalid":  # its place is a number of characters, which is no field's name
        return None
    parts = (str(part) for part in problem["loc"] if part != "body")
    where = printable(".".join(part for part in parts if not OF_PYDANTIC.fullmatch(part)))
    return (where if len(where) <= MOST_PLACE else where[:MOST_PLACE] + "...") or None
