from __future__ import annotations

import shutil
import threading
import time

import numpy as np
import pytest

from makers.files_server import serving
from spurbench.core import download as downloading
from spurbench.core.download import discard, download
from spurbench.core.errors import SpurbenchError

CONTENT = np.random.default_rng(0).bytes(300_000)
OTHER = np.random.default_rng(1).bytes(300_000)
LIMIT = 10**6


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(downloading, "PAUSE", 0.0)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "images.zip"


def leave_half(server, target) -> int:
    """A download that was given up half way; how much of it is there."""
    server.cuts = [100_000] + [0] * downloading.TRIES
    with pytest.raises(SpurbenchError, match="the same command goes on from"):
        download(server.url, target, limit=LIMIT)
    server.requests.clear()
    return target.stat().st_size


def test_a_file_arrives_whole_and_is_not_asked_for_again(target):
    with serving(CONTENT) as server:
        download(server.url, target, limit=LIMIT)
        assert target.read_bytes() == CONTENT
        download(server.url, target, limit=LIMIT)
        assert server.requests == [None]
    discard(target)
    assert not list(target.parent.iterdir())


def test_cut_connections_are_gone_on_with_where_they_broke_off(target):
    with serving(CONTENT, cuts=[100_000, 0, 50_000]) as server:
        download(server.url, target, limit=LIMIT)
        assert server.requests == [None, *[f"bytes={n}-" for n in (100_000, 100_000, 150_000)]]
    assert target.read_bytes() == CONTENT


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(target):
    with serving(CONTENT) as server:
        there = leave_half(server, target)
        download(server.url, target, limit=LIMIT)
        assert server.requests == [f"bytes={there}-"]
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("minds", [True, False], ids=["If-Range", "without If-Range"])
@pytest.mark.parametrize("changed", ["etag", "modified"])
def test_a_file_that_changed_in_between_is_never_mixed(target, minds, changed):
    first = (
        {"etag": '"1"', "modified": None}
        if changed == "etag"
        else {"etag": 'W/"1"', "modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
    )
    with serving(CONTENT, minds_if_range=minds, **first) as server:
        leave_half(server, target)
        server.content = OTHER
        if changed == "etag":
            server.etag = '"2"'
        else:
            server.modified = "Tue, 02 Jan 2024 00:00:00 GMT"
        download(server.url, target, limit=LIMIT)
    assert target.read_bytes() == OTHER


def test_a_file_that_shrank_in_between_is_never_mixed(target):
    with serving(CONTENT, minds_if_range=False) as server:
        leave_half(server, target)
        server.content = OTHER[:50_000]
        download(server.url, target, limit=LIMIT)
    assert target.read_bytes() == OTHER[:50_000]


@pytest.mark.parametrize(
    ("faults", "again"),
    [
        ({"ranges": False}, "bytes=100000-"),
        ({"etag": None}, None),
        ({"etag": 'W/"1"'}, None),
    ],
    ids=["no ranges", "no validator", "weak validator"],
)
def test_where_the_rest_can_t_be_had_for_sure_it_starts_over(target, faults, again):
    with serving(CONTENT, cuts=[100_000], **faults) as server:
        download(server.url, target, limit=LIMIT)
        assert server.requests == [None, again]
    assert target.read_bytes() == CONTENT


def test_what_another_address_left_is_not_gone_on_with(target):
    with serving(CONTENT) as first, serving(OTHER) as second:
        leave_half(first, target)
        download(second.url, target, limit=LIMIT)
        assert second.requests == [None]
    assert target.read_bytes() == OTHER


def test_a_length_that_promises_too_much_is_found_out(target):
    with serving(CONTENT, lies=10) as server:
        with pytest.raises(SpurbenchError, match="can't be had"):
            download(server.url, target, limit=LIMIT)
        assert len(server.requests) < 4 * downloading.TRIES


def test_a_file_of_unknown_length_arrives(target):
    with serving(CONTENT, says_length=False) as server:
        download(server.url, target, limit=LIMIT)
    assert target.read_bytes() == CONTENT


def test_a_server_that_is_out_for_a_moment_is_asked_again(target):
    with serving(CONTENT, statuses=[503, 500, 429]) as server:
        download(server.url, target, limit=LIMIT)
        assert len(server.requests) == 4
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (403, 1), (500, downloading.TRIES)])
def test_a_server_that_refuses_is_named_in_one_line(target, status, tries):
    with serving(CONTENT, statuses=[status] * 20) as server:
        with pytest.raises(SpurbenchError, match=f"answers {status}") as caught:
            download(server.url, target, limit=LIMIT)
        assert len(server.requests) == tries
    assert "\n" not in str(caught.value)
    assert not target.exists()


def test_nobody_there_and_no_address_are_one_line(target):
    with serving(CONTENT) as server:
        url = server.url
    with pytest.raises(SpurbenchError, match="can't be had"):
        download(url, target, limit=LIMIT)
    for wrong in (
        "file:///etc/passwd",
        "ftp://x/y",
        "nonsense",
        "http://[",
        "http://a b/",
        "http:///x",
        "",
    ):
        with pytest.raises(SpurbenchError, match="no address"):
            download(wrong, target, limit=LIMIT)
    assert not target.exists()


def test_redirects_are_followed_but_not_out_of_http(target):
    with serving(CONTENT) as server:
        server.redirects = {"/a": "/images.zip", "/b": "file:///etc/passwd", "/c": "ftp://x/y"}
        download(f"{server.endpoint}/a", target, limit=LIMIT)
        assert target.read_bytes() == CONTENT
        for path in ("/b", "/c"):
            with pytest.raises(SpurbenchError):
                download(f"{server.endpoint}{path}", target, limit=LIMIT)


def test_https_never_leads_to_http():
    request = downloading.urllib.request.Request("https://example.org/a")
    with pytest.raises(SpurbenchError, match="not https"):
        downloading._Redirects().redirect_request(request, None, 302, "", {}, "http://b.org/")


@pytest.mark.parametrize("says_length", [True, False])
def test_more_than_may_come_is_refused(target, says_length):
    with (
        serving(CONTENT, says_length=says_length) as server,
        pytest.raises(SpurbenchError, match=r"more than 0\.1 MB"),
    ):
        download(server.url, target, limit=100_000)
    assert not target.exists()


def test_a_disk_that_is_too_small_is_said_before_anything_is_written(target, monkeypatch):
    usage = shutil.disk_usage(target.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=500_000))
    with serving(CONTENT) as server:
        with pytest.raises(SpurbenchError, match=r"has 0.5 MB free, .* needs 0.6 MB"):
            download(server.url, target, limit=LIMIT, room=2)
        assert not target.exists()
        download(server.url, target, limit=LIMIT)


def test_a_server_that_says_nothing_more_is_left(target, monkeypatch):
    monkeypatch.setattr(downloading, "PATIENCE", 0.1)
    monkeypatch.setattr(downloading, "TRIES", 1)
    start = time.monotonic()
    with serving(CONTENT, slow=threading.Event()) as server:
        with pytest.raises(SpurbenchError, match="timed out"):
            download(server.url, target, limit=LIMIT)
        server.slow.set()
    assert time.monotonic() - start < 10
