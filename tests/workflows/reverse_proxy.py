"""A small reverse proxy: a server below a path of another one, as Open OnDemand's ``rnode``."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PREFIX = '/rnode/node1/8765'


@contextmanager
def reverse_proxy(port: int) -> Iterator[tuple[str, list[str]]]:
    """Pass on what is asked below the prefix to a port of this computer, without the prefix.

    Gives the address of the proxy, and a list of the paths that were asked for elsewhere.
    """
    astray: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'

        def do_GET(self) -> None:
            if not self.path.startswith(f'{PREFIX}/'):
                if self.path == '/favicon.ico':  # which a browser asks for by itself
                    self.send_response(204)
                    self.end_headers()
                    return
                astray.append(self.path)
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get('Content-Length', 0)))
            # The name of the node takes the place of that of the portal.
            headers = {**self.headers, 'Host': f'127.0.0.1:{port}', 'Connection': 'close'}
            server = HTTPConnection('127.0.0.1', port)
            server.request(self.command, self.path.removeprefix(PREFIX), body, headers)
            answer = server.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ('connection', 'transfer-encoding', 'content-length'):
                    self.send_header(name, value)
            self.send_header('Content-Length', str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *words: object) -> None: ...

    proxy = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    thread = threading.Thread(target=proxy.serve_forever)
    thread.start()
    yield f'http://localhost:{proxy.server_address[1]}{PREFIX}/', astray
    proxy.shutdown()
    proxy.server_close()
    thread.join()
