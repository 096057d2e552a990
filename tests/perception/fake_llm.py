"""A server that speaks OpenAI's chat completions, well or badly, as a test says."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeServer:
    """Answers each request with the next of `replies`, the last one again and again; keeps what it heard."""

    def __init__(self):
        self.replies, self.heard, self.stop = [], [], threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.heard.append((self.path, dict(self.headers), body))
                reply = outer.replies.pop(0) if len(outer.replies) > 1 else outer.replies[0]
                reply(self, body)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def close(self):
        self.stop.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def sends(status, content, **headers):
    """A reply of that status; content: text, or what becomes JSON."""
    data = (content if isinstance(content, str) else json.dumps(content)).encode()

    def reply(handler, body):
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    return reply


def says(content, finish="stop", **message):
    """A chat completion."""
    message = {"role": "assistant", "content": content, **message}
    return sends(200, {"choices": [{"index": 0, "message": message, "finish_reason": finish}]})


def fails(status, message="it went wrong", **headers):
    return sends(status, {"error": {"message": message, "type": "error"}}, **headers)
