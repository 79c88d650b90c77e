"""A web server on this machine that misbehaves as it is told."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """A web server in threads. `answer(handler, path, try)` answers; counts the tries of each path."""

    def __init__(self, answer, host="127.0.0.1"):
        self.tries: dict[str, int] = {}
        self.over = threading.Event()  # lets go of those that never answer
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                site.tries[self.path] = site.tries.get(self.path, 0) + 1
                try:
                    answer(site, self, self.path, site.tries[self.path])
                except OSError:  # whoever asked has left
                    self.close_connection = True

            do_HEAD = do_GET

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.url = f"http://{host}:{self._server.server_port}"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def send(handler, data=b"", status=200, length=None, **headers):
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(data) if length is None else length))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(data)
        handler.wfile.flush()


def drop(handler):
    """Ends a connection in the middle."""
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)
