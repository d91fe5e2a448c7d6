from __future__ import annotations

import asyncio
import html
import json
import re
import sqlite3

import pytest

pytest.importorskip("starlette", reason="extra serve is not installed")
httpx = pytest.importorskip("httpx", reason="httpx is not installed")

from makers.survey import links, made_survey, served  # noqa: E402
from spurbench.core.errors import SpurbenchError  # noqa: E402
from spurbench.studies.survey.design import Survey  # noqa: E402
from spurbench.studies.survey.server import application, of_this_origin  # noqa: E402
from spurbench.studies.survey.store import FILE, Answer, Committer, Store, read  # noqa: E402

HOST = "http://survey.test"
OWN = {"Origin": HOST, "Sec-Fetch-Site": "same-origin"}


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    made_survey(folder, raters=3)
    return folder / "survey"


def ask(folder, *requests):
    """Responses to (method, address, settings) of the application, without a network."""

    async def all_of():
        transport = httpx.ASGITransport(app=application(folder))
        async with httpx.AsyncClient(transport=transport, base_url=HOST) as client:
            return [await client.request(m, a, **settings) for m, a, settings in requests]

    return asyncio.run(all_of())


def post(token, answers, **headers):
    settings = {"json": answers, "headers": {**OWN, **headers}}
    return "POST", f"/r/{token}/answers", settings


def one(position, grade, revision=1):
    return {"position": position, "grade": grade, "revision": revision}


def test_an_answer_is_there_when_it_is_confirmed_and_the_page_resumes(survey):
    token = links(survey)[0]["token"]
    saved, page = ask(survey, post(token, [one(0, 4), one(1, 2)]), ("GET", f"/r/{token}", {}))
    assert saved.status_code == 200
    assert saved.json() == [one(0, 4), one(1, 2)]
    (given,) = re.findall(r'data-answers="([^"]*)"', page.text)
    assert json.loads(html.unescape(given)) == {"0": [4, 1], "1": [2, 1]}
    assert read(survey / FILE, Survey.read(survey).id)[0] == [Answer(**a) for a in saved.json()]


def test_sent_twice_or_late_an_answer_changes_nothing(survey):
    token = links(survey)[1]["token"]
    replies = ask(
        survey,
        post(token, [one(3, 2, 1)]),
        post(token, [one(3, 2, 1)]),
        post(token, [one(3, 5, 2)]),
        post(token, [one(3, 2, 1)]),  # late
        post(token, [one(3, 1, 2)]),  # of another tab
    )
    assert [reply.json()[0]["grade"] for reply in replies] == [2, 2, 5, 5, 5]


def test_no_link_is_found_without_its_token(survey):
    token = links(survey)[0]["token"]
    wrong = ["0" * 32, token[:-1], token.upper(), "1", f"{token}x", "..%2Fr"]
    for reply in ask(survey, *[("GET", f"/r/{w}", {}) for w in wrong], post("0" * 32, [])):
        assert reply.status_code == 404 and "data-token" not in reply.text
    image = Survey.read(survey).items[0].image
    names = [f"{image}.jpg", "survey.json", "..%2F..%2Fsurvey.json", "..%2F..%2Flinks.csv"]
    replies = ask(survey, *[("GET", f"/images/{name}", {}) for name in names])
    assert [reply.status_code for reply in replies] == [200, 404, 404, 404]
    outside = ask(survey, ("GET", "/survey.json", {}), ("GET", "/links.csv", {}), ("GET", "/", {}))
    assert [reply.status_code for reply in outside] == [404, 404, 200]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.test", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://evil.test"},
        {"Origin": "http://evil.survey.test"},
        {"Origin": "http://survey.test:81"},
        {"Origin": HOST, "Sec-Fetch-Site": "cross-site"},
        {"Origin": HOST, "Sec-Fetch-Site": "same-site"},
        {"Origin": HOST, "Sec-Fetch-Site": "none"},
        {"Origin": "null"},
        {"Origin": ""},
        {},
    ],
    ids=str,
)
def test_other_origins_cant_post(survey, headers):
    token = links(survey)[2]["token"]
    settings = {"json": [one(0, 1)], "headers": headers}
    (reply,) = ask(survey, ("POST", f"/r/{token}/answers", settings))
    assert reply.status_code == 403
    assert 2 not in read(survey / FILE, Survey.read(survey).id)


def test_behind_a_proxy_with_tls_the_page_can_post():
    headers = {"origin": "https://survey.test", "host": "survey.test"}
    assert of_this_origin(headers)


def test_nothing_allows_other_origins_and_no_script_but_its_own(survey):
    token = links(survey)[0]["token"]
    preflight = {"Origin": "https://evil.test", "Access-Control-Request-Method": "POST"}
    replies = ask(
        survey,
        ("GET", f"/r/{token}", {}),
        ("GET", "/nowhere", {}),
        ("GET", "/survey.js", {}),
        ("OPTIONS", f"/r/{token}/answers", {"headers": preflight}),
        post(token, []),
    )
    for reply in replies:
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "same-origin"
        assert not [name for name in reply.headers if name.startswith("access-control")]
        assert "set-cookie" not in reply.headers
    assert replies[3].status_code == 405
    page = replies[0].text
    assert re.findall(r"<script[^>]*>", page) == ['<script src="../survey.js" defer>']
    assert not re.search(r"\son\w+=|style=|javascript:", page)


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        ('[{"position": 0, "grade": 6, "revision": 1}]', "application/json", 400),
        ('[{"position": 0, "grade": 0, "revision": 1}]', "application/json", 400),
        ('[{"position": 0, "grade": 2.5, "revision": 1}]', "application/json", 400),
        ('[{"position": 0, "grade": true, "revision": 1}]', "application/json", 400),
        ('[{"position": 17, "grade": 2, "revision": 1}]', "application/json", 400),
        ('[{"position": -1, "grade": 2, "revision": 1}]', "application/json", 400),
        ('[{"position": 0, "grade": 2, "revision": 1, "name": "x"}]', "application/json", 400),
        ("{", "application/json", 400),
        ("[" * 50_000, "application/json", 400),
        ("[]" + " " * 70_000, "application/json", 413),
        ('[{"position": 0, "grade": 2, "revision": 1}]', "text/plain", 415),
    ],
)
def test_what_is_no_answer_is_refused(survey, body, kind, status):
    token = links(survey)[2]["token"]
    settings = {"content": body, "headers": {**OWN, "Content-Type": kind}}
    (reply,) = ask(survey, ("POST", f"/r/{token}/answers", settings))
    assert reply.status_code == status
    assert 2 not in read(survey / FILE, Survey.read(survey).id)


def test_what_is_not_committed_is_not_confirmed(survey, monkeypatch):
    token = links(survey)[2]["token"]

    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Store, "save", full)
    first, second = ask(survey, post(token, [one(0, 3)]), post(token, [one(0, 3)]))
    assert first.status_code == second.status_code == 503


def test_a_failed_commit_leaves_none_of_its_answers(tmp_path):
    store = Store(tmp_path / FILE, "a")
    bad = Answer.model_construct(position=1, grade=9, revision=1)
    with pytest.raises(sqlite3.IntegrityError):
        store.save([(0, [Answer(position=0, grade=3, revision=1)]), (1, [bad])])
    assert store.everything() == {}
    store.save([(1, [Answer(position=0, grade=3, revision=1)])])
    assert store.of(1) == {0: (3, 1)}


def test_what_arrives_together_is_committed_together_and_everyone_hears(tmp_path):
    store = Store(tmp_path / FILE, "a")
    commits = []
    save = store.save
    store.save = lambda requests: commits.append(len(requests)) or save(requests)

    async def crowd():
        committer = Committer(store)
        answers = [[Answer(position=0, grade=1 + i % 5, revision=1)] for i in range(100)]
        heard = await asyncio.gather(*(committer.save(i, a) for i, a in enumerate(answers)))
        assert heard == answers

    asyncio.run(crowd())
    assert sum(commits) == 100 and len(commits) <= 3
    assert len(store.everything()) == 100


def test_answers_to_another_survey_are_not_mixed_in(tmp_path):
    Store(tmp_path / FILE, "a").close()
    with pytest.raises(SpurbenchError, match="another survey"):
        Store(tmp_path / FILE, "b")
    Store(tmp_path / FILE, "a").close()
    (tmp_path / "text").write_text("no database, and longer than its header" * 9)
    with pytest.raises(SpurbenchError, match="can't be opened"):
        Store(tmp_path / "text", "a")


def test_killed_in_the_middle_it_has_all_that_it_confirmed_and_nothing_of_anyone(tmp_path):
    made_survey(tmp_path, raters=2)
    folder = tmp_path / "survey"
    confirmed = {}
    with served(folder) as server:
        own = {"Origin": server.address, "User-Agent": "Somebody/1.0"}
        with httpx.Client(base_url=server.address, headers=own) as client:
            for rater, link in enumerate(links(folder)):
                for position in range(6):
                    answer = one(position, 1 + position % 5)
                    reply = client.post(f"/r/{link['token']}/answers", json=[answer])
                    assert reply.status_code == 200
                    confirmed[rater, position] = answer["grade"]
        said = server.kill()
    kept = read(folder / FILE, Survey.read(folder).id)
    assert {(r, a.position): a.grade for r, given in kept.items() for a in given} == confirmed
    assert said == ""  # no request is logged
    stored = b"".join(path.read_bytes() for path in folder.glob(f"{FILE}*"))
    assert b"Somebody" not in stored and b"127.0.0.1" not in stored
    assert not [row["token"] for row in links(folder) if row["token"].encode() in stored]
    connection = sqlite3.connect(folder / FILE)
    columns = {
        column[1]
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for column in connection.execute(f"PRAGMA table_info({table})")
    }
    assert columns == {"id", "rater", "position", "grade", "revision"}
