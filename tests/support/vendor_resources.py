"""A mock of vendors' stored resources: files, batches, caches; other paths are echoed as JSON."""

from __future__ import annotations

import json
import re
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket


class Vendors:
    """One app for three vendors. `seen` holds method, path and headers of each request."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.queries: list[str] = []
        self.files: dict[str, bytes] = {}
        route = Route("/{rest:path}", self._any, methods=["GET", "POST", "DELETE", "PUT", "HEAD"])
        self.app = Starlette(routes=[WebSocketRoute("/v1/realtime", self._realtime), route])

    @property
    def keys(self) -> set[str]:
        """All received credentials."""
        names = ("authorization", "x-api-key", "x-goog-api-key")
        return {headers[name] for *_, headers in self.seen for name in names if name in headers}

    async def _any(self, request: Request) -> Response:
        path = request.url.path
        self.seen.append((request.method, path, dict(request.headers)))
        self.queries.append(request.url.query)
        if "x-goog-api-key" in request.headers or path.startswith(("/v1beta", "/upload")):
            return await self._google(request, path)
        if "x-api-key" in request.headers:
            return await self._anthropic(request, path)
        return await self._openai(request, path)

    async def _openai(self, request: Request, path: str) -> Response:
        if path == "/v1/files" and request.method == "POST":
            return JSONResponse(self._file(_file_in(await request.body())))
        if found := re.fullmatch(r"/v1/files/(.+)/content", path):
            return Response(self.files[found[1]], media_type="application/octet-stream")
        if found := re.fullmatch(r"/v1/files/(.+)", path):
            if request.method == "DELETE":
                del self.files[found[1]]
                return JSONResponse({"id": found[1], "object": "file", "deleted": True})
            return JSONResponse(self._file(self.files[found[1]], found[1]))
        if path == "/v1/files":
            data = [self._file(d, i) for i, d in self.files.items()]
            return JSONResponse({"object": "list", "data": data, "has_more": False})
        if path == "/v1/batches":
            body = await request.json()
            return JSONResponse(
                {"id": "batch_1", "object": "batch", "status": "validating", **body}
            )
        return JSONResponse({"error": {"message": f"Unknown: {path}"}}, 404)

    def _file(self, data: bytes, id: str = "") -> dict[str, Any]:
        id = id or f"file-{len(self.files) + 1}"
        self.files[id] = data
        return {
            "id": id,
            "object": "file",
            "bytes": len(data),
            "created_at": 1,
            "filename": "a.jsonl",
            "purpose": "batch",
            "status": "processed",
        }

    async def _anthropic(self, request: Request, path: str) -> Response:
        if path == "/v1/messages/batches" and request.method == "POST":
            return JSONResponse(self._batch())
        if path.endswith("/results"):
            lines = [{"custom_id": "a", "result": {"type": "canceled"}}] * 2
            text = "".join(json.dumps(line) + "\n" for line in lines)
            return Response(text, media_type="application/x-jsonl")
        if path.startswith("/v1/messages/batches/"):
            url = f"{request.url.scheme}://{request.url.netloc}{path}/results"
            return JSONResponse({**self._batch(), "processing_status": "ended", "results_url": url})
        if path == "/v1/messages/count_tokens":
            return JSONResponse({"input_tokens": 7})
        return JSONResponse({"type": "error", "error": {"type": "not_found_error"}}, 404)

    def _batch(self) -> dict[str, Any]:
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        return {
            "id": "msgbatch_1",
            "type": "message_batch",
            "processing_status": "in_progress",
            "request_counts": counts,
            "created_at": "2026-01-01T00:00:00Z",
            "expires_at": "2026-01-02T00:00:00Z",
        }

    async def _google(self, request: Request, path: str) -> Response:
        command = request.headers.get("x-goog-upload-command", "")
        if command == "start":
            host = request.headers["host"]
            url = f"http://{host}/upload/v1beta/files?upload_id=7&upload_protocol=resumable"
            return Response(b"", headers={"x-goog-upload-url": url})
        if "upload" in command:
            self.files["files/7"] = await request.body()
            about = {"name": "files/7", "sizeBytes": str(len(self.files["files/7"]))}
            headers = {"x-goog-upload-status": "final"}
            return JSONResponse({"file": {**about, "mimeType": "text/plain"}}, headers=headers)
        if path.endswith("/files/7"):
            return JSONResponse({"name": "files/7", "state": "ACTIVE"})
        if path.endswith("/cachedContents"):
            body = await request.json()
            return JSONResponse({"name": "cachedContents/1", "model": body["model"]})
        return JSONResponse({"error": {"code": 404, "status": "NOT_FOUND", "message": path}}, 404)

    async def _realtime(self, socket: WebSocket) -> None:
        headers = dict(socket.headers)
        self.seen.append(("WEBSOCKET", socket.url.path, headers))
        await socket.accept()
        model = socket.query_params["model"]
        session = {"type": "session.created", "event_id": "e1", "session": {"model": model}}
        await socket.send_json({**session, "session": {"type": "realtime", "model": model}})
        async for event in socket.iter_json():
            if event["type"] == "response.create":
                usage = {"total_tokens": 5, "input_tokens": 3, "output_tokens": 2}
                delta = {"type": "response.output_text.delta", "delta": "Hello", "event_id": "e2"}
                await socket.send_json(delta)
                done = {"id": "r1", "object": "realtime.response", "status": "completed"}
                response = {**done, "usage": usage}
                done_event = {"type": "response.done", "event_id": "e3", "response": response}
                await socket.send_json(done_event)


def _file_in(form: bytes) -> bytes:
    """The file of a multipart body."""
    boundary, _, rest = form.partition(b"\r\n")
    for part in rest.split(boundary):
        head, _, data = part.partition(b"\r\n\r\n")
        if b"filename=" in head:
            return data.removesuffix(b"\r\n")
    raise AssertionError("there is no file in it")
