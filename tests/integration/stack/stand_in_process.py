"""Stands in for one of the four processes: answers GET /health with 200 and its environment, ends on SIGTERM."""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        fraud = {name: value for name, value in os.environ.items() if name.startswith("FRAUD_")}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"pid": os.getpid(), "environment": fraud}).encode())


port = os.environ["FRAUD_API_PORT" if sys.argv[1] == "api" else "FRAUD_OPS_PORT"]
HTTPServer(("127.0.0.1", int(port)), Answer).serve_forever()
