"""The page: a folder of static files, in a checkout or beside an installed wheel."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles

from m3rag._shared_data import shared_data

FOLDERS = (
    Path(__file__).parents[2] / "apps" / "chat" / "static",  # in a checkout
    *shared_data("chat"),
)


def static_folder() -> Path | None:
    """Where the page lies; None if it is not installed."""
    return next((folder for folder in FOLDERS if (folder / "index.html").is_file()), None)


def add_page(app: FastAPI) -> None:
    """Serve the page at `/` and its files below `/static`."""
    folder = static_folder()

    async def index() -> Response:
        if folder is None:
            return PlainTextResponse("This server has no page; its API is described at /openapi.json.\n")
        return FileResponse(folder / "index.html", media_type="text/html; charset=utf-8")

    app.add_api_route("/", index, methods=["GET", "HEAD"], include_in_schema=False)
    if folder is not None:
        app.mount("/static", StaticFiles(directory=folder), name="static")
