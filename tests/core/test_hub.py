from __future__ import annotations

import http.server
import socket
import threading

import pytest
from huggingface_hub import constants

from spurbench.core import hub


@pytest.fixture(autouse=True)
def untouched(monkeypatch):
    """Whatever a test switches is switched back."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_hub_that_does_not_answer_leaves_the_cache(monkeypatch, caplog):
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed_port()}")
    hub.use_cache_if_unreachable()
    assert constants.HF_HUB_OFFLINE is True
    hub.use_cache_if_unreachable()
    assert caplog.text.count("only what is cached") == 1


@pytest.mark.parametrize("status", [200, 404])
def test_a_hub_that_answers_is_used(status, monkeypatch):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        hub.use_cache_if_unreachable()
        server.shutdown()
    assert constants.HF_HUB_OFFLINE is False
