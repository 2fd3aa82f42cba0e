"""A server on loopback that answers the official kaggle client as its API does, and keeps what arrives.

The client is sent here by its own settings: in its environment LOCALHOST it calls http://localhost, and this server is
the proxy by which it gets there; what it would send elsewhere ends here too, in an error.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Arrived:
    """Requests by name in the order of their arrival, and uploads: file name -> content."""

    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    users: set[str] = field(default_factory=set)
    port: int = 0

    @property
    def environment(self) -> dict[str, str]:
        """What makes the client call this server."""
        proxy = f"http://127.0.0.1:{self.port}"
        return {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", "HTTP_PROXY": proxy, "HTTPS_PROXY": proxy}

    def bodies(self, name: str) -> list[dict[str, Any]]:
        return [body for request, body in self.requests if request == name]

    def answer(self, name: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if name == "GetDatasetStatus":  # there is none of this name yet
            return 404, {"code": 404, "message": "Not found"}
        if name in ("StartBlobUpload", "StartSubmissionUpload"):
            file = body.get("name") or body["fileName"]
            return 200, {"token": f"token of {file}", "createUrl": f"http://localhost/upload/{file}"}
        known: dict[str, dict[str, Any]] = {
            "SaveKernel": {"ref": "/code/x", "url": "https://kaggle.invalid/code/x", "versionNumber": 1, "error": ""},
            "CreateDataset": {"ref": "x", "url": "https://kaggle.invalid/x", "status": "ok", "error": ""},
            "CreateCodeSubmission": {"message": "Successfully submitted", "ref": 1},
            "CreateSubmission": {"message": "Successfully submitted", "ref": 1},
        }
        if name in known:
            return 200, known[name]
        return 404, {"code": 404, "message": f"this server knows no {name}"}


@contextmanager
def kaggle_server() -> Iterator[Arrived]:
    """Serve until the block ends."""
    arrived = Arrived()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self._content() or b"{}")
            name = urlsplit(self.path).path.rsplit("/", 1)[1]
            arrived.requests.append((name, body))
            arrived.users.add(self.headers.get("Authorization", ""))
            self._reply(*arrived.answer(name, body))

        def do_PUT(self) -> None:
            arrived.files[urlsplit(self.path).path.removeprefix("/upload/")] = self._content()
            self._reply(200, {})

        def _content(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                return b"".join(self._chunks())
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def _chunks(self) -> Iterator[bytes]:
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()

        def _reply(self, status: int, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Nothing: what arrives is asserted, not printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    arrived.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield arrived
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
