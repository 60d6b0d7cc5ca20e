"""A real HTTP server on the loopback that serves one file, well or badly."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Behaviour:
    """How one request is answered."""

    content: bytes
    tag: str | None = None  # its ETag
    date: str | None = None  # its Last-Modified
    ranges: bool = True
    if_range: bool = True  # False: gives a part of whatever it has now
    length: int | None = None  # what it claims instead of the truth
    stop_after: int | None = None  # bytes of the body, then the connection is closed
    hang_after: int | None = None  # bytes of the body, then nothing more comes
    chunked: bool = False
    status: int = 200
    redirect: str | None = None  # "": to itself


@dataclass
class FileServer:
    """Answers the first requests as `plan` says, and all later ones as its last entry says."""

    url: str
    plan: list[Behaviour]
    requests: list[dict[str, str]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def next(self, headers: dict[str, str]) -> Behaviour:
        self.requests.append(headers)
        return self.plan[min(len(self.requests), len(self.plan)) - 1]


@contextmanager
def serving(*plan: Behaviour, name: str = "set.tar.gz") -> Iterator[FileServer]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self, files.next(dict(self.headers)), files.released)

        def log_message(self, *_: object) -> None:
            pass

    with run_server(Handler) as url:
        files = FileServer(f"{url}/{name}", list(plan))
        try:
            yield files
        finally:
            files.released.set()


@contextmanager
def run_server(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on a free port of the loopback; its URL. Handlers that wait must be released before it ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def answer(handler: BaseHTTPRequestHandler, how: Behaviour, released: threading.Event) -> None:
    handler.close_connection = True
    validators = {key: value for key, value in (("ETag", how.tag), ("Last-Modified", how.date)) if value}
    span = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", "")) if how.ranges else None
    if span and how.if_range and handler.headers.get("If-Range") not in (None, *validators.values()):
        span = None
    start = int(span[1]) if span else 0
    if how.redirect is not None:
        handler.send_response(302)
        handler.send_header("Location", how.redirect or handler.path)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    if how.status != 200:
        handler.send_error(how.status)
        return
    if start and start >= len(how.content):
        handler.send_error(416)
        return
    body = how.content[start:]
    handler.send_response(206 if span else 200)
    for key, value in validators.items():
        handler.send_header(key, value)
    if span:
        handler.send_header("Content-Range", f"bytes {start}-{len(how.content) - 1}/{len(how.content)}")
    if how.chunked:
        handler.send_header("Transfer-Encoding", "chunked")
    else:
        handler.send_header("Content-Length", str(len(body) if how.length is None else how.length))
    handler.end_headers()
    sent = body[: how.stop_after] if how.hang_after is None else body[: how.hang_after]
    if how.chunked:
        for at in range(0, len(sent), 1000):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(sent[at : at + 1000]), sent[at : at + 1000]))
        if len(sent) == len(body):
            handler.wfile.write(b"0\r\n\r\n")
    else:
        handler.wfile.write(sent)
    handler.wfile.flush()
    if how.hang_after is not None:
        released.wait(60)
