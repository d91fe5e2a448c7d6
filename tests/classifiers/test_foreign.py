"""Folders from elsewhere end in a line that says what they are."""

from __future__ import annotations

import json

import pytest

from makers.toy import save_toy_pipeline
from spurbench.classifiers.load import check_spec, load_classifier
from spurbench.core.errors import SpurbenchError

FOLDERS = {
    "sentence-transformers": {
        "config.json": {"model_type": "bert", "architectures": ["BertModel"]},
        "modules.json": [],
        "model.safetensors": "",
    },
    "PEFT adapter": {"adapter_config.json": {}, "adapter_model.safetensors": ""},
    "open_clip:ARCH=FILE": {"open_clip_config.json": {}, "open_clip_model.safetensors": ""},
    "TensorFlow": {"saved_model.pb": "", "variables/variables.index": ""},
    "Keras model": {
        "config.json": {"class_name": "F"},
        "model.weights.h5": "",
        "metadata.json": {},
    },
    "YOLO": {"args.yaml": "", "weights/best.pt": "", "results.csv": ""},
    "unpickled": {"config.json": {"model_type": "vit"}, "pytorch_model.bin": ""},
    "say onnx:FILE": {"config.json": {"model_type": "vit"}, "model.onnx": ""},
    "in parts": {
        "config.json": {"model_type": "vit"},
        "model.safetensors.index.json": {},
        "model-00001-of-00002.safetensors": "",
    },
    "Flax": {"config.json": {"model_type": "vit"}, "flax_model.msgpack": ""},
    "no config.json": {"README.md": ""},
    "no preprocessor_config.json": {
        "config.json": {"model_type": "vit"},
        "model.safetensors": "",
    },
    "key 'architecture' is missing": {"config.json": {}, "model.safetensors": ""},
    "is not valid JSON": {"config.json": "{", "model.safetensors": ""},
}


@pytest.mark.parametrize("said", FOLDERS)
@pytest.mark.parametrize("prefix", ["", "folder:", "transformers:"])
def test_a_folder_from_elsewhere_is_told_for_what_it_is(prefix, said, tmp_path):
    for name, content in FOLDERS[said].items():
        file = tmp_path / "theirs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(SpurbenchError) as caught:
        load_classifier(f"{prefix}{tmp_path / 'theirs'}")
    text = str(caught.value)
    if prefix != "folder:" or said != "no preprocessor_config.json":
        assert said in text
    assert "\n" not in text and "theirs" in text


def test_a_pipeline_makes_images_and_classifies_none(tmp_path):
    for spec in (str(save_toy_pipeline(tmp_path / "p")), f"transformers:{tmp_path / 'p'}"):
        with pytest.raises(SpurbenchError, match="holds a diffusers pipeline"):
            check_spec(spec)
