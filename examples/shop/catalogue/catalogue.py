"""The catalogue: products from a ConfigMap, read again when it changes."""

import json
import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PRODUCTS = Path(os.environ.get("PRODUCTS_FILE", "/etc/shop/products.json"))
PORT = int(os.environ.get("PORT", "8080"))
DRAIN_SECONDS = float(os.environ.get("DRAIN_SECONDS", "2"))

leaving = threading.Event()


class Products:
    """The file's content, by id; a broken new version leaves the old one standing."""

    def __init__(self, path):
        self._path = path
        self._lock = threading.Lock()
        self._read_at = None
        self._products = {}

    def all(self):
        with self._lock:
            changed = self._path.stat().st_mtime_ns
            if changed != self._read_at:
                try:
                    self._products = {product["id"]: product for product in json.loads(self._path.read_text())}
                except (ValueError, KeyError, TypeError) as error:
                    print(f"{self._path} cannot be used: {error!r}")
                self._read_at = changed
            return self._products


products = Products(PRODUCTS)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.partition("?")[0].rstrip("/")
        if path == "/healthz":
            return self.answer(200, {"status": "ok"})
        if path == "/readyz":
            ready = not leaving.is_set() and PRODUCTS.exists()
            return self.answer(200 if ready else 503, {"ready": ready})
        if path == "/products":
            return self.answer(200, list(products.all().values()))
        if path.startswith("/products/"):
            product = products.all().get(path.removeprefix("/products/"))
            return self.answer(200, product) if product else self.answer(404, {"error": "no such product"})
        return self.answer(404, {"error": "no such page"})

    def answer(self, status, value):
        body = json.dumps(value, ensure_ascii=False).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, form, *values):
        if self.path not in ("/healthz", "/readyz"):
            print(f"{self.command} {self.path} {values[1] if len(values) > 1 else ''}")


class Server(ThreadingHTTPServer):
    daemon_threads = False  # requests that have begun are finished
    request_queue_size = 128


def main():
    server = Server(("", PORT), Handler)

    def leave(*_):
        leaving.set()  # not ready any more: no new requests will be sent here soon
        threading.Thread(target=lambda: (time.sleep(DRAIN_SECONDS), server.shutdown())).start()

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    print(f"catalogue listens on {PORT}")
    server.serve_forever(poll_interval=0.2)
    server.server_close()
    print("catalogue has ended")


if __name__ == "__main__":
    main()
