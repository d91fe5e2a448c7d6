"""Labels, their agreement, and the server of the page."""

from __future__ import annotations

import random

import pytest
from sklearn.metrics import cohen_kappa_score

from makers.discovered import save_discovery
from spurbench.core.errors import SpurbenchError
from spurbench.discovery.supervise.labels import (
    Labels,
    Mark,
    Verdict,
    agreements,
    cohen_kappa,
    spurious_by_all,
)

SHA = "a" * 64


def verdict(person, component, said, index=94, **words):
    return Verdict(person=person, index=index, component=component, verdict=said, **words)


@pytest.fixture
def client(tmp_path):
    pytest.importorskip("httpx", reason="httpx is not installed")
    pytest.importorskip("starlette", reason="starlette is not installed")
    from starlette.testclient import TestClient

    from spurbench.discovery.supervise.app import app

    folder = save_discovery(tmp_path / "found")
    return TestClient(app(folder), base_url="http://127.0.0.1:8017")


def test_kappa_is_cohens():
    draw = random.Random(0)
    for _ in range(20):
        pairs = [(draw.choice("ynu"), draw.choice("yyn")) for _ in range(30)]
        assert cohen_kappa(pairs) == pytest.approx(cohen_kappa_score(*zip(*pairs, strict=True)))
    assert cohen_kappa([("y", "y"), ("n", "n")]) == 1
    assert cohen_kappa([("y", "y")] * 4) is None


def test_agreement_is_over_the_components_that_both_labelled():
    said = [verdict("anna", 1, "yes"), verdict("anna", 2, "no"), verdict("anna", 3, "no")]
    said += [verdict("bo", 2, "no"), verdict("bo", 3, "yes"), verdict("bo", 1, "yes", index=105)]
    (only,) = agreements([*said, verdict("cy", 9, "no")])
    assert (only.people, only.components, only.same) == (("anna", "bo"), 2, 0.5)
    assert only.kappa == pytest.approx(0.0)


def test_a_component_is_spurious_if_nobody_who_labelled_it_disagrees():
    said = [verdict("anna", 1, "yes"), verdict("bo", 1, "yes"), verdict("anna", 2, "yes")]
    said += [verdict("bo", 2, "unsure"), verdict("bo", 3, "yes"), verdict("anna", 4, "no")]
    assert list(spurious_by_all(said)) == [(94, 1), (94, 3)]


def test_labels_are_kept_by_person_and_the_last_word_counts(tmp_path):
    Labels(tmp_path / "l.sqlite").say(verdict("anna", 1, "no"))
    labels = Labels(tmp_path / "l.sqlite")
    labels.say(verdict("bo", 1, "no"))
    labels.say(verdict("anna", 1, "yes", feature="red 'flower'", noun="flower"))
    assert [(v.person, v.verdict) for v in labels.verdicts()] == [("anna", "yes"), ("bo", "no")]
    assert labels.verdicts()[0].feature == "red 'flower'"
    box = {"left": 0.1, "top": 0.2, "right": 0.5, "bottom": 0.9}
    labels.mark(Mark(person="anna", index=94, sha256=SHA, boxes=(box,)))
    labels.mark(Mark(person="bo", index=94, sha256=SHA, boxes=()))
    anna, bo = labels.marks()
    assert anna.boxes[0].bottom == 0.9 and bo.boxes == ()
    labels.mark(Mark(person="anna", index=94, sha256=SHA, boxes=None))
    assert [mark.person for mark in labels.marks()] == ["bo"]
    (tmp_path / "l.sqlite").write_bytes(b"no database" * 99)
    with pytest.raises(SpurbenchError, match="can't be kept"):
        Labels(tmp_path / "l.sqlite")


def test_the_server_tells_of_components_and_takes_labels(client):
    listed = client.get("/api/components").json()
    assert [(c["index"], c["component"]) for c in listed["components"]] == [
        (94, 1),
        (94, 2),
        (105, 1),
        (105, 2),
    ]
    shown = client.get("/api/component/94/2").json()
    assert (
        client.get(f"/picture/{shown['folder']}/{shown['pictures'][1]['heat']}").status_code == 200
    )
    said = verdict("anna", 2, "yes", feature="red flower").model_dump()
    assert client.post("/api/verdict", json=said).status_code == 200
    mark = {"person": "anna", "index": 94, "sha256": SHA, "boxes": []}
    assert client.post("/api/mark", json=mark).status_code == 200
    assert client.get("/api/labels?person=anna").json() == {"verdicts": [said], "marks": [mark]}
    assert client.get("/api/labels?person=bo").json() == {"verdicts": [], "marks": []}
    client.post("/api/verdict", json={**said, "person": "bo", "verdict": "no"})
    assert client.get("/api/agreement").json() == [
        {"people": ["anna", "bo"], "components": 1, "same": 0.0, "kappa": 0.0}
    ]


def test_the_server_refuses_what_is_wrong_in_one_line(client):
    said = verdict("anna", 1, "yes").model_dump()
    box = {"left": 0.5, "top": 0, "right": 0.5, "bottom": 1}
    for body, status in (
        ({**said, "verdict": "perhaps"}, 400),
        ({**said, "person": ""}, 400),
        ({**said, "feature": "two\nlines"}, 400),
        ({**said, "index": 7}, 404),
        ({**said, "component": 3}, 404),
    ):
        answer = client.post("/api/verdict", json=body)
        assert answer.status_code == status and "\n" not in answer.json()["error"]
    mark = {"person": "anna", "index": 94, "sha256": SHA, "boxes": [box]}
    assert client.post("/api/mark", json=mark).status_code == 400
    assert client.get("/api/component/94/3").status_code == 404
    assert not client.get("/api/labels?person=anna").json()["verdicts"]


def test_foreign_pages_can_neither_read_nor_write(client):
    said = verdict("anna", 1, "yes").model_dump_json()
    plain = {"content-type": "text/plain"}
    assert client.post("/api/verdict", content=said, headers=plain).status_code == 415
    foreign = {"host": "evil.example"}
    assert client.get("/api/components", headers=foreign).status_code == 400
    assert "default-src 'self'" in client.get("/").headers["content-security-policy"]


def test_nothing_but_pictures_is_given_out_of_the_folder(client):
    for path in (
        "/picture/094_hummingbird/component_01/..%2f..%2flabels.sqlite",
        "/picture/094_hummingbird/component_01/class.json",
        "/picture/%2e%2e/found/discovery.json",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
    ):
        assert client.get(path).status_code == 404, path


def test_a_folder_that_is_no_discovery_is_refused(tmp_path):
    from spurbench.discovery.supervise.app import app

    with pytest.raises(SpurbenchError, match=r"no discovery\.json"):
        app(tmp_path)
