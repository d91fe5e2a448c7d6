from __future__ import annotations

import io
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from makers.measured import CLASSES, save_dataset
from makers.toy import save_noise_images
from spurbench.core.errors import SpurbenchError
from spurbench.images.decode import DamagedImageError, decode_rgb
from spurbench.images.sources import open_images, open_positives

HUMMINGBIRD = "spurious_class_094_hummingbird_component_2"
KOALA = "spurious_class_105_koala_component_3"


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def ramp(side: int = 16) -> np.ndarray:
    return np.tile(np.linspace(0, 255, side).astype(np.uint8), (side, 1))


def test_grey_palette_and_one_bit_become_rgb():
    grey = Image.fromarray(ramp())
    for image in (grey, grey.convert("P"), grey.convert("RGB").quantize(16)):
        decoded = decode_rgb(encoded(image))
        assert decoded.mode == "RGB"
        assert np.abs(np.asarray(decoded).astype(int) - ramp()[..., None]).max() <= 16
    one_bit = decode_rgb(encoded(grey.convert("1")))
    assert set(np.unique(np.asarray(one_bit))) == {0, 255}


def test_sixteen_bits_are_scaled_not_clipped():
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    decoded = np.asarray(decode_rgb(encoded(Image.fromarray(values))))
    assert decoded[0, 0, 0] == 0 and decoded[-1, -1, 0] == 255
    assert abs(int(decoded[8, 0, 0]) - 128) <= 1


def test_transparency_is_laid_on_white():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert np.asarray(decode_rgb(encoded(clear))).min() == 255
    half = Image.new("LA", (4, 4), (0, 128))
    assert abs(int(np.asarray(decode_rgb(encoded(half)))[0, 0, 0]) - 127) <= 1
    palette = Image.new("P", (4, 4), 0)
    assert np.asarray(decode_rgb(encoded(palette, transparency=0))).min() == 255


def test_cmyk_keeps_its_colours():
    red = Image.new("RGB", (16, 16), (200, 30, 40)).convert("CMYK")
    decoded = np.asarray(decode_rgb(encoded(red, "JPEG", quality=95)))[8, 8].astype(int)
    assert np.abs(decoded - [200, 30, 40]).max() < 12


def test_exif_orientation_is_applied():
    image = Image.new("RGB", (20, 10), "blue")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    assert decode_rgb(encoded(image, "JPEG", exif=exif)).size == (10, 20)


def test_a_bomb_is_damaged_without_being_decoded(monkeypatch):
    data = encoded(Image.new("L", (30, 20)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 599)  # Pillow itself only warns up to twice that
    with (
        pytest.warns(Image.DecompressionBombWarning),
        pytest.raises(DamagedImageError, match="too large"),
    ):
        decode_rgb(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
    assert decode_rgb(data).size == (30, 20)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_image_that_ends_early_is_damaged(kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    with pytest.raises(DamagedImageError):
        decode_rgb(data[: len(data) * 2 // 3])


# A DDS file of no known pixel format, for which Pillow raises NotImplementedError.
UNKNOWN_FORMAT = b"DDS " + struct.pack("<3I", 124, 0, 4) + struct.pack("<2I", 4, 0) + bytes(108)


@pytest.mark.parametrize("data", [b"", b"just text", b"\x89PNG\r\n\x1a\n", UNKNOWN_FORMAT])
def test_bytes_that_are_no_image_are_damaged(data):
    with pytest.raises(DamagedImageError) as caught:
        decode_rgb(data)
    assert "\n" not in str(caught.value)


def test_the_official_layout_gives_classes_in_natural_order(tmp_path):
    save_noise_images(tmp_path / "images" / HUMMINGBIRD, 11, 0)
    save_noise_images(tmp_path / "images" / KOALA, 2, 1)
    images = open_images(str(tmp_path))
    assert [r.class_index for r in images.records] == [94] * 11 + [105] * 2
    assert [Path(r.path).name for r in images.records[:11]] == [f"{i}.png" for i in range(11)]
    assert {r.source for r in images.records} == {"real"}
    inner = open_images(str(tmp_path / "images"), "real")
    assert inner.info.fingerprint == images.info.fingerprint


def test_the_fingerprint_sees_content_and_class_but_not_names(tmp_path):
    def fingerprint(root: Path) -> str:
        return open_images(str(root)).info.fingerprint

    save_noise_images(tmp_path / "a" / HUMMINGBIRD, 3, 0)
    first = fingerprint(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / HUMMINGBIRD / "0.png").rename(tmp_path / "b" / HUMMINGBIRD / "9.png")
    assert fingerprint(tmp_path / "b") == first
    (tmp_path / "b" / HUMMINGBIRD).rename(tmp_path / "b" / KOALA)
    assert fingerprint(tmp_path / "b") != first
    save_noise_images(tmp_path / "c" / HUMMINGBIRD, 3, 1)
    assert fingerprint(tmp_path / "c") != first


def test_damaged_files_are_named_and_others_ignored(tmp_path):
    folder = save_noise_images(tmp_path / HUMMINGBIRD, 2, 0)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "Thumbs.db").write_bytes(b"x")
    (folder / ".hidden.png").write_bytes(b"x")
    images = open_images(str(tmp_path))
    assert len(images.records) == 2
    assert [d.path for d in images.damaged] == [f"{HUMMINGBIRD}/broken.jpg"]


def test_faults_of_a_folder_are_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "mislaid" / "hummingbird").mkdir(parents=True)
    (tmp_path / "bare" / HUMMINGBIRD).mkdir(parents=True)
    bad = tmp_path / "bad" / HUMMINGBIRD
    bad.mkdir(parents=True)
    (bad / "0.png").write_text("text")
    (tmp_path / "file").write_text("x")
    said = {
        "empty": "it is empty",
        "mislaid": "found hummingbird",
        "bare": "holds no images",
        "bad": "all 1 images .* damaged",
        "file": "is a file",
        "nothing": "no folder at",
    }
    for name, message in said.items():
        with pytest.raises(SpurbenchError, match=message) as caught:
            open_images(str(tmp_path / name))
        assert "\n" not in str(caught.value)


def test_positives_go_by_wordnet_id_or_index(tmp_path):
    save_noise_images(tmp_path / "n01833805", 2, 0)
    save_noise_images(tmp_path / "105", 1, 1)
    save_noise_images(tmp_path / "something", 1, 2)
    images = open_positives(tmp_path)
    assert sorted(r.class_index for r in images.records) == [94, 94, 105]
    with pytest.raises(SpurbenchError, match="n01833805"):
        open_positives(tmp_path / "105")


def test_the_first_of_each_class_bring_their_own_positives_and_twins(tmp_path):
    whole = save_dataset(tmp_path / "d", images=4, positives=3, controls=True)
    some = whole.first(2)
    assert len(some.positives.records) == 2 * len(CLASSES)
    generated = {r.sha256 for r in some.records if r.source == "generated"}
    assert {twin.twin_of for twin in some.controls.records} == generated
    for part, of in (
        (some, whole),
        (some.positives, whole.positives),
        (some.controls, whole.controls),
    ):
        assert part.info.fingerprint != of.info.fingerprint
        assert part.info.name.endswith("(first 2 of each class)")
