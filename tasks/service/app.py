"""The service's web interface: FastAPI in front of the queue.

Ray Serve is not used: with what is installed `from ray import serve` fails, since it needs packages
that Ray's other parts do not. A queue on disk does what is asked for without it: the web server
only writes rows, and the workers are those of a batch.
"""

import hmac
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse

from datasets.errors import UserError
from tasks.service.queue import DONE, ENDED, JobRecord, QueueFullError
from tasks.service.service import Service, TooLargeError, service_schema
from tasks.service.stage import UPLOAD

MOST_BODY = 1 << 20
"""Bytes of a request that describes a job."""
RETRY_AFTER_S = 30
TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/quicktime",
    ".mkv": "video/x-matroska",
    ".webm": "video/webm",
}
JOB_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": service_schema()}},
    }
}
FILE_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def make_app(service: Service, token: str = "", takes_webhooks: bool = True) -> FastAPI:
    """The web interface of a service.

    Args:
        service: what it shows.
        token: that requests must bring, as `Authorization: Bearer TOKEN`; empty: none.
        takes_webhooks: whether there is a secret to sign them with.
    """

    def authorised(authorization: str = Header("")) -> None:
        # Headers come as Latin-1, whatever was sent.
        given = authorization.encode("latin-1", "replace")
        if token and not hmac.compare_digest(given, f"Bearer {token}".encode()):
            raise HTTPException(401, "give Authorization: Bearer TOKEN with the service's token")

    app = FastAPI(
        title="latentsync-flows",
        summary="Lip-sync of videos: upload or name them, queue a job, fetch the result.",
        openapi_url="/openapi.json",
    )
    guarded = [Depends(authorised)]

    @app.exception_handler(UserError)
    def mistaken(_: Request, error: UserError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422)

    @app.exception_handler(QueueFullError)
    def full(_: Request, error: QueueFullError) -> JSONResponse:
        text = f"{service.settings.most_waiting} jobs wait already: try again later"
        return JSONResponse({"detail": text}, 429, {"Retry-After": str(RETRY_AFTER_S)})

    @app.exception_handler(TooLargeError)
    def too_large(_: Request, error: TooLargeError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 413)

    @app.get("/health")
    def health() -> dict[str, Any]:
        """Whether the service answers, and how many jobs wait."""
        return {"status": "ok", "waiting": service.queue.waiting()}

    @app.get("/schema", dependencies=guarded)
    def schema() -> dict[str, Any]:
        """The JSON schema of a job."""
        return service_schema()

    @app.post("/uploads", status_code=201, dependencies=guarded, openapi_extra=FILE_BODY)
    async def upload(request: Request, name: str = "") -> dict[str, Any]:
        """Take a file as the body of the request; `name` is what it is called elsewhere."""
        path = service.new_upload(name)
        count = await _save(request, path, service.settings.most_bytes)
        return {"source": f"{UPLOAD}{path.name}", "bytes": count}

    @app.post("/jobs", status_code=201, dependencies=guarded, openapi_extra=JOB_BODY)
    async def add(request: Request) -> dict[str, Any]:
        """Queue a job."""
        values = await _json(request)
        if values.get("webhook") and not takes_webhooks:
            raise UserError("this service has no secret to sign webhooks with: leave webhook out")
        return service.describe(await run_in_threadpool(service.add, values))

    @app.post("/estimate", dependencies=guarded, openapi_extra=JOB_BODY)
    async def estimate(request: Request) -> dict[str, Any]:
        """How long a job would take, as far as that is known."""
        values = await _json(request)
        return await run_in_threadpool(service.estimate, values)

    @app.get("/jobs", dependencies=guarded)
    def recent(count: int = 20) -> list[dict[str, Any]]:
        """The latest jobs, the newest first."""
        found = service.queue.recent(max(1, min(count, 200)))
        return [service.describe(each) for each in found]

    @app.get("/jobs/{identity}", dependencies=guarded)
    def show(identity: str) -> dict[str, Any]:
        """State, progress and result of a job."""
        return service.describe(_found(service, identity))

    @app.delete("/jobs/{identity}", dependencies=guarded)
    def cancel(identity: str) -> dict[str, Any]:
        """Cancel a job that has not ended."""
        _found(service, identity)
        service.cancel(identity)
        return service.describe(_found(service, identity))

    @app.get("/jobs/{identity}/result", dependencies=guarded, response_class=FileResponse)
    def result(identity: str) -> FileResponse:
        """The video that a job has made."""
        record = _found(service, identity)
        path = service.place(record.id).output(record.job)
        if record.state != DONE:
            word = "ended without one" if record.state in ENDED else "is not done yet"
            raise HTTPException(409, f"job {identity} has no result: it {word} ({record.state})")
        if not path.is_file():
            raise HTTPException(410, f"the result of job {identity} is not kept any longer")
        return FileResponse(
            path, media_type=TYPES[path.suffix], filename=f"{identity}{path.suffix}"
        )

    return app


def _found(service: Service, identity: str) -> JobRecord:
    record = service.queue.get(identity)
    if record is None:
        raise HTTPException(404, f"there is no job {identity!r}")
    return record


async def _limited(request: Request, most: int) -> AsyncIterator[bytes]:
    """The body of a request in pieces; refused once it is larger than allowed."""
    text = f"the body has more than {most:,} bytes, which is as much as is taken"
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > most:
        raise HTTPException(413, text)
    count = 0
    async for piece in request.stream():
        count += len(piece)
        if count > most:
            raise HTTPException(413, text)
        yield piece


async def _json(request: Request) -> dict[str, Any]:
    body = b"".join([piece async for piece in _limited(request, MOST_BODY)])
    try:
        found = json.loads(body)
    except ValueError as error:
        raise UserError(f"the body is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise UserError("the body must be a JSON object, see /schema")
    return found


async def _save(request: Request, path: Path, most: int) -> int:
    """Write the body of a request to a file, which is there when it is whole."""
    unfinished, count = path.with_name(f".{path.name}.part"), 0
    try:
        with unfinished.open("wb") as file:
            async for piece in _limited(request, most):
                file.write(piece)
                count += len(piece)
        if not count:
            raise UserError("the body is empty: send the file as the body of the request")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return count
