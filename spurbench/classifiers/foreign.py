"""Folders from elsewhere: what is in one that no source can read, and what to do about it."""

from __future__ import annotations

from pathlib import Path

from spurbench.core.errors import SpurbenchError

_AS_ONNX = "export it as ONNX and say onnx:FILE"
_AS_SAFETENSORS = (
    "its weights would have to be unpickled, which runs what is in them; load them where you trust "
    "them and save them as model.safetensors (save_pretrained does so)"
)

# What a folder is, whatever else lies in it, by a file that gives it away.
_CERTAIN = (
    ("model_index.json", "it holds a diffusers pipeline, which makes images and classifies none"),
    ("modules.json", "it holds a model of sentence-transformers, which has no classes"),
    (
        "adapter_config.json",
        "it holds a PEFT adapter; save the whole network after merge_and_unload()",
    ),
)
# What it is where it has no model.safetensors; the surest signs first.
_LIKELY = (
    ("open_clip_config.json", "it is open_clip's; say open_clip:ARCH=FILE with its weights"),
    ("saved_model.pb", f"it holds a TensorFlow model; {_AS_ONNX}"),
    ("keras_metadata.pb", f"it holds a Keras model; {_AS_ONNX}"),
    ("*.weights.h5", f"it holds a Keras model; {_AS_ONNX}"),
    ("*.keras", f"it holds a Keras model; {_AS_ONNX}"),
    ("*.h5", f"it holds a Keras or TensorFlow model; {_AS_ONNX}"),
    ("flax_model.msgpack", "it holds Flax weights; save them as model.safetensors"),
    ("*.onnx", "it holds an ONNX model; say onnx:FILE"),
    ("*.safetensors.index.json", "its weights are in parts; save them as one model.safetensors"),
    ("*.gguf", "it holds GGUF weights; save them as model.safetensors"),
    ("weights/*.pt", f"it looks like a training run of ultralytics (YOLO); {_AS_ONNX}"),
    ("*.bin", _AS_SAFETENSORS),
    ("*.pt", _AS_SAFETENSORS),
    ("*.pth", _AS_SAFETENSORS),
    ("*.ckpt", _AS_SAFETENSORS),
)


def refuse(folder: Path) -> None:
    """Say what a folder holds, if it is no classifier's in safetensors.

    Raises:
        SpurbenchError: if it is known what it holds instead.
    """
    try:
        if not folder.is_dir():
            return
        readable = (folder / "model.safetensors").is_file()
        for pattern, said in _CERTAIN if readable else _CERTAIN + _LIKELY:
            if next(folder.glob(pattern), None) is not None:
                raise SpurbenchError(f"{folder} can't be read: {said}")
    except (OSError, ValueError):  # no path at all, or one that may not be read
        return
