"""A coordinator's port: TLS, a clock, and what Flower's SuperLink answers to two questions."""

import ssl
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import time

KNOWN = 400, b'{"code":2003,"detail":"Invalid heartbeat interval."}'
UNKNOWN = 412, b'{"code":2004,"detail":"Failed to activate SuperNode."}'
REFUSED = 401, b'{"detail":"Invalid SuperNode authentication"}'


class Harbour:
    """Listens on a free port of this machine until it is closed."""

    def __init__(self, tls):
        self.registered, self.offset_s, self.requests = KNOWN, 0, []
        harbour = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                harbour.requests.append((self.path, dict(self.headers), body))
                asked = self.path.endswith("activate-node")
                status, said = harbour.registered if asked else REFUSED
                self.send_response_only(status)
                if harbour.offset_s is not None:
                    now = formatdate(time() + harbour.offset_s, usegmt=True)
                    self.send_header("Date", now)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *words):
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def address(self):
        return f"localhost:{self._server.server_address[1]}"

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
