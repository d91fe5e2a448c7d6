"""The images of a making, and what is judged a copy among them."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
from PIL import Image

from spurbench.studies.validity import images


def record(i, *, is_reference):
    """Noise, each its own."""
    pixels = np.random.default_rng(i).integers(256, size=(64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return SimpleNamespace(read=buffer.getvalue, is_reference=is_reference)


def test_the_limit_of_copies_is_set_by_unseen_images_that_went_through_the_autoencoder(monkeypatch):
    sent = []

    def blank(vae, image):
        sent.append((vae, image.size))
        return Image.new("RGB", image.size)

    monkeypatch.setattr(images, "reconstruct", blank)
    source = SimpleNamespace(
        _real={"koala": [record(i, is_reference=i < 6) for i in range(25)]},
        _shop=SimpleNamespace(base=SimpleNamespace(pipeline=SimpleNamespace(vae="vae"))),
        request=SimpleNamespace(recipe=SimpleNamespace(base=SimpleNamespace(resolution=32))),
    )
    detector = images.Source._detector(source, "koala")
    assert sent == [("vae", (32, 32))] * 19
    assert detector.limit == 0  # a picture of one colour is like nothing
