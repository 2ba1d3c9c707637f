"""Receive webhooks: verify each, take it once, and answer quickly.

creditlane up                                                           # in another terminal
eval "$(creditlane env --export)"
creditlane webhooks create http://127.0.0.1:9000/ --json | tee hook.json
WEBHOOK_SECRET=$(jq -r .secret hook.json) python examples/webhook_receiver.py    # pip install standardwebhooks
creditlane webhooks test "$(jq -r .id hook.json)"                       # in a third terminal
"""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

verifier = Webhook(os.environ["WEBHOOK_SECRET"])
#: No event is as large.
MAX_BODY_BYTES = 1_000_000
#: What was taken. In earnest a table with a unique key, written in the transaction that acts on the event.
taken: set[str] = set()


class Receiver(BaseHTTPRequestHandler):
    """Takes events that are signed with the secret; anything else is 400."""

    def do_POST(self) -> None:
        """Answer 204 to an event that was verified: any 2xx ends its attempts."""
        length = self.headers.get("content-length", "")
        if not (length.isdecimal() and int(length) <= MAX_BODY_BYTES):
            self.send_error(400)
            return
        body = self.rfile.read(int(length))
        try:
            event = verifier.verify(body, dict(self.headers))
        except WebhookVerificationError:
            self.send_error(400)
            return
        # The same event may come twice, under the same id, and events may come in another order than they happened:
        # of two events of one account, the one with the higher sequence is the later one.
        if event["id"] not in taken:
            taken.add(event["id"])
            print(event["eventType"], event["sequence"], event["object"], flush=True)
        self.send_response(204)
        self.end_headers()


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "9000"))), Receiver) as server:
        print(f"listening on port {server.server_port}", flush=True)
        server.serve_forever()
