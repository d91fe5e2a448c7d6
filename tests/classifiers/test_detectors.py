"""What a detector by text is asked for."""

from __future__ import annotations

from PIL import Image

from spurbench.classifiers.detectors import Owlv2Detector
from spurbench.recipe.classes import SpuriousClass

QUILL = SpuriousClass(
    index=749,
    wnid="n04033901",
    name="quill",
    spurious_feature="hand-written text",
    component=5,
    noun="page",
)


def test_a_class_is_looked_for_by_its_queries_and_else_by_name_and_feature():
    asked = []

    def detect(inputs, threshold):
        asked.extend(entry["candidate_labels"] for entry in inputs)
        assert threshold == 0, "a box below the pipeline's own threshold is no score of 0"
        return [[{"score": 0.1}, {"score": 0.3}], []]

    detector = Owlv2Detector.__new__(Owlv2Detector)
    detector._detect = detect
    images = [Image.new("RGB", (4, 4))] * 2
    assert detector.scores(images, QUILL, "object") == [0.3, 0.0]
    detector.scores(images, QUILL, "feature")
    queried = QUILL.model_copy(
        update={"object_query": "a quill pen", "feature_query": "handwritten text"}
    )
    detector.scores(images, queried, "object")
    detector.scores(images, queried, "feature")
    assert detector.context_scores(images, "on the beach") == [0.3, 0.0]
    assert asked[::2] == [
        ["a photo of a quill"],
        ["a photo of hand-written text"],
        ["a photo of a quill pen"],
        ["a photo of handwritten text"],
        ["a photo on the beach"],
    ]
