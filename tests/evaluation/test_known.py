from __future__ import annotations

from spurbench.evaluation import known
from spurbench.evaluation.members import Member


def test_an_embedded_classifier_is_known_by_its_own_files():
    keys = {name: known.key(Member.parse(f"mini:{name}")) for name in ("vit", "resnet_v1")}
    assert None not in keys.values() and len(set(keys.values())) == 2
    assert keys["vit"] == known.key(Member.parse("mini:vit"))


def test_what_would_have_to_be_fetched_is_not_known():
    assert known.key(Member.parse("resnet50.a1_in1k")) is None
