"""The orders: checked against the catalogue, priced with shipping, kept in PostgreSQL."""

import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import psycopg2

PORT = int(os.environ.get("PORT", "8080"))
CATALOGUE = os.environ.get("CATALOGUE_URL", "http://catalogue:8080")
SHIPPING = os.environ.get("SHIPPING_URL", "http://shipping:8080")
DRAIN_SECONDS = float(os.environ.get("DRAIN_SECONDS", "2"))
MOST_QUANTITY = 1000
LONGEST_BODY = 1 << 16

SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (
    id uuid PRIMARY KEY,
    product text NOT NULL,
    name text NOT NULL,
    quantity integer NOT NULL CHECK (quantity > 0),
    price integer NOT NULL,
    shipping integer,
    placed timestamptz NOT NULL DEFAULT now()
)
"""
COLUMNS = "id::text, product, name, quantity, price, shipping, to_char(placed AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"

leaving = threading.Event()


class Refused(Exception):
    """An answer to the client other than success."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Database:
    """Connections to PostgreSQL, made anew after it was away."""

    def __init__(self):
        self._lock = threading.Lock()
        self._idle = []
        self._has_schema = False

    def run(self, statement, values=()):
        """All rows; tried once more on a fresh connection, so statements must bear repetition."""
        for attempt in (1, 2):
            connection = None
            try:
                connection = self._take(fresh=attempt == 2)
                with connection, connection.cursor() as cursor:
                    cursor.execute(statement, values)
                    rows = cursor.fetchall() if cursor.description else []
                self._give_back(connection)
                return rows
            except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
                if connection is not None:
                    connection.close()
                if attempt == 2:
                    raise Refused(503, "the order book is away for a moment, please try again") from error
        return []

    def _take(self, fresh):
        with self._lock:
            if fresh:
                while self._idle:
                    self._idle.pop().close()
            if self._idle:
                return self._idle.pop()
        connection = psycopg2.connect(
            host=os.environ.get("POSTGRES_HOST", "database"),
            dbname=os.environ["POSTGRES_DB"],
            user=os.environ["POSTGRES_USER"],
            password=os.environ["POSTGRES_PASSWORD"],
            connect_timeout=3,
        )
        self._prepare(connection)
        return connection

    def _prepare(self, connection):
        with self._lock:
            if not self._has_schema:
                with connection, connection.cursor() as cursor:
                    cursor.execute("SELECT pg_advisory_xact_lock(20)")  # one replica at a time
                    cursor.execute(SCHEMA)
                self._has_schema = True

    def _give_back(self, connection):
        with self._lock:
            if len(self._idle) < 8:
                self._idle.append(connection)
                return
        connection.close()


database = Database()


def fetch(url, patience=0.0):
    """The JSON a neighbour answers, None for 404; asked again for `patience` seconds. Raises OSError, ValueError."""
    deadline = time.monotonic() + patience
    while True:
        try:
            with urllib.request.urlopen(url, timeout=3) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            if error.code < 500 or time.monotonic() > deadline:
                raise
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def place_order(wish):
    if not isinstance(wish, dict) or not isinstance(wish.get("product"), str):
        raise Refused(400, 'an order looks like {"product": "tea", "quantity": 2}')
    quantity = wish.get("quantity", 1)
    if not isinstance(quantity, int) or isinstance(quantity, bool) or not 1 <= quantity <= MOST_QUANTITY:
        raise Refused(400, f"quantity is a whole number from 1 to {MOST_QUANTITY}")
    try:
        product = fetch(f"{CATALOGUE}/products/{quote(wish['product'], safe='')}", patience=4)
    except (OSError, ValueError) as error:
        raise Refused(503, "the catalogue is away for a moment, please try again") from error
    if product is None:
        raise Refused(404, f"no such product: {wish['product']}")
    values = (
        str(uuid.uuid4()),
        product["id"],
        product["name"],
        quantity,
        product["price"] * quantity,
        shipping_cost(product, quantity),
    )
    database.run(
        "INSERT INTO orders (id, product, name, quantity, price, shipping) VALUES (%s, %s, %s, %s, %s, %s) "
        "ON CONFLICT (id) DO NOTHING",
        values,
    )
    return as_order(database.run(f"SELECT {COLUMNS} FROM orders WHERE id = %s", values[:1])[0])


def shipping_cost(product, quantity):
    """None while the shipping service is away: an order is worth more than its quote."""
    try:
        return fetch(f"{SHIPPING}/quote?grams={product.get('grams', 500) * quantity}")["cost"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"no shipping quote: {error!r}")
        return None


def as_order(row):
    names = ("id", "product", "name", "quantity", "price", "shipping", "placed")
    return dict(zip(names, row, strict=True))


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.guarded(self.get)

    def do_POST(self):
        self.guarded(self.post)

    def get(self):
        path = self.path.partition("?")[0].rstrip("/")
        if path == "/healthz":
            return self.answer(200, {"status": "ok"})
        if path == "/readyz":
            if leaving.is_set():
                raise Refused(503, "leaving")
            database.run("SELECT 1")
            return self.answer(200, {"ready": True})
        if path == "/orders":
            rows = database.run(f"SELECT {COLUMNS} FROM orders ORDER BY placed DESC LIMIT 50")
            return self.answer(200, [as_order(row) for row in rows])
        raise Refused(404, "no such page")

    def post(self):
        if self.path.partition("?")[0].rstrip("/") != "/orders":
            raise Refused(404, "no such page")
        try:
            length = int(self.headers.get("Content-Length", "0"))
        except ValueError as error:
            raise Refused(400, "Content-Length is not a number") from error
        if not 0 < length <= LONGEST_BODY:
            raise Refused(413 if length > 0 else 400, f"the body has 1 to {LONGEST_BODY} bytes")
        try:
            wish = json.loads(self.rfile.read(length))
        except ValueError as error:
            raise Refused(400, f"the body is not JSON: {error}") from error
        return self.answer(201, place_order(wish))

    def guarded(self, act):
        try:
            act()
        except Refused as refusal:
            self.answer(refusal.status, {"error": str(refusal)})
        except BrokenPipeError:
            print("the client has gone")

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
    print(f"orders listens on {PORT}")
    server.serve_forever(poll_interval=0.2)
    server.server_close()
    print("orders has ended")


if __name__ == "__main__":
    main()
