"""A broker and a web server that a soak takes down and brings back, and what arrived at them."""

from __future__ import annotations

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.runtime.events.broker import Mosquitto, Subscriber, free_port

Key = tuple[str, str]  # the id of a visit, and started or ended


class Hook:
    """A web server for `--webhook` that may be away for a while, always at the same port."""

    def __init__(self) -> None:
        self.port, self.arrived = free_port(), Counter[Key]()
        self._server: ThreadingHTTPServer | None = None
        self.start()

    def start(self) -> None:
        """Listen."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    def stop(self) -> None:
        """Finish the requests in hand and listen no more: later ones are refused."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        self._server = None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        arrived = self.arrived

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                arrived[body["id"], body["event"]] += 1
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        return Handler


class Receivers:
    """The broker with a subscriber, and the hook."""

    def __init__(self, broker: Mosquitto, topic: str) -> None:
        self.hook, self._broker = Hook(), broker
        self._subscriber = Subscriber(broker.port, pattern=f"{topic}/events")

    def stop(self) -> None:
        """Take both down."""
        self._broker.stop()
        self.hook.stop()

    def start(self) -> None:
        """Bring both back."""
        self._broker.start()
        self.hook.start()

    def close(self) -> None:
        """End both; the broker is its owner's."""
        self._subscriber.close()
        self.hook.stop()

    def arrived(self) -> dict[str, Counter[Key]]:
        """Return what arrived so far, by sink; a copy that the broker itself sent counts once."""
        records = [json.loads(payload) for _, payload in list(self._subscriber.messages)]
        return {
            "mqtt": Counter((record["id"], record["event"]) for record in records),
            "webhook": Counter(self.hook.arrived),
        }
