"""Documents: list, upload, delete, and their source to look at."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response, UploadFile

from m3rag.server.engine import Engine
from m3rag.server.errors import Refused
from m3rag.server.jobs import unknown_job
from m3rag.server.names import upload_name
from m3rag.server.uploads import PARTIAL, PIECE

MOST_FILES = 200

DocumentId = Annotated[str, Query(min_length=1, max_length=4000)]
Number = Annotated[int, Query(ge=1, le=1_000_000)]
Offset = Annotated[int, Query(ge=0, le=10**12)]


def routes(engine: Engine) -> APIRouter:
    """The routes over an engine."""
    router = APIRouter(prefix="/api", tags=["documents"])

    @router.get("/documents")
    async def list_documents() -> dict[str, Any]:
        """All documents, and the uploads that are on their way."""
        documents = await asyncio.to_thread(engine.documents)
        return {"documents": documents, "jobs": engine.jobs.all()}

    @router.post("/documents", status_code=202)
    async def upload(files: list[UploadFile]) -> dict[str, Any]:
        """Take files; each becomes a job, to be asked for at `/api/jobs/{id}`. The same name replaces.

        Where only the first of them can be taken, the jobs of the others have failed already.
        """
        if len(files) > MOST_FILES:
            raise Refused(413, f"more than {MOST_FILES} files at once", "Send them in parts.")
        most = int(engine.settings.max_upload_mb * 1e6)
        too_large = [file.filename or "" for file in files if (file.size or 0) > most]
        if too_large:
            raise Refused(413, f"{upload_name(too_large[0])} is larger than {most / 1e6:,.1f} MB", "Split it.")
        jobs: list[dict[str, Any]] = []
        for file in files:
            try:
                jobs.append(await asyncio.to_thread(_keep, engine, file))
            except Refused as refused:
                if not jobs:
                    raise
                left = [upload_name(one.filename or "") for one in files[len(jobs) :]]
                return {"jobs": [*jobs, *(engine.jobs.refused(name, refused.message) for name in left)]}
        return {"jobs": jobs}

    @router.get("/jobs/{job_id}")
    async def job(job_id: str) -> dict[str, Any]:
        """The state of an upload."""
        found = engine.jobs.get(job_id)
        if found is None:
            raise unknown_job()
        return found

    @router.post("/jobs/{job_id}/retry", status_code=202)
    async def retry(job_id: str) -> dict[str, Any]:
        """Try an upload again whose job has `can_retry`: the server has died over it too often."""
        return await asyncio.to_thread(engine.jobs.retry, job_id)

    @router.delete("/jobs/{job_id}", status_code=204)
    async def forget(job_id: str) -> Response:
        """Forget an upload that has ended; one that could be tried again is discarded."""
        await asyncio.to_thread(engine.jobs.forget, job_id)
        return Response(status_code=204)

    @router.delete("/documents", status_code=204)
    async def delete(document_id: DocumentId) -> Response:
        """Remove a document."""
        await asyncio.get_running_loop().run_in_executor(engine.removals, engine.remove, document_id)
        return Response(status_code=204)

    @router.get("/source")
    async def source(document_id: DocumentId) -> dict[str, Any]:
        """The text of a document, and where its pages begin."""
        return await asyncio.to_thread(engine.source, document_id)

    @router.get("/page/image", response_class=Response, responses={200: {"content": {"image/png": {}}}})
    async def image(document_id: DocumentId, page: Number) -> Response:
        """A page of a PDF as a picture."""
        path = await asyncio.to_thread(engine.pdf, document_id)
        return Response(await engine.pages.image(path, page), media_type="image/png")

    @router.get("/page/rectangles")
    async def rectangles(document_id: DocumentId, page: Number, start: Offset, end: Offset) -> dict[str, Any]:
        """Where a passage stands on a page, in fractions of the page from its top left."""
        if end < start:
            raise Refused(400, f"a passage cannot end at {end} before it starts at {start}")
        path = await asyncio.to_thread(engine.pdf, document_id)
        return {"rectangles": await engine.pages.rectangles(path, page, start, end)}

    return router


def _keep(engine: Engine, file: UploadFile) -> dict[str, Any]:
    """An upload from where the form's parser has put it to its place, and into the queue."""
    name = upload_name(file.filename or "")
    path = engine.uploads.new(name)
    partial = path.parent / PARTIAL
    try:
        with partial.open("wb") as out:
            while piece := file.file.read(PIECE):
                out.write(piece)
        return engine.jobs.add(name, path, partial=partial)
    except OSError as error:
        engine.uploads.discard(Path(path))
        raise Refused(507, f"{name} cannot be kept ({error.strerror})", "See the setting serve.data.") from None
    except Refused:
        engine.uploads.discard(path)
        raise
