"""Bad model folders and checkpoints, among them those that would execute code."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from faults.bad_documents import RAW_JSON
from faults.case import Case, executed
from faults.generate import as_json, changed, damaged, examples
from faults.world import World

EVIL = "evil.pth"


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> Any:
        return (os.mkdir, (self.marker,))


def cases(world: World) -> Iterator[Case]:
    """Folders by their configuration, by their weights; detectors; checkpoints."""
    yield from _configurations(world)
    yield from _weights(world)
    yield from _checkpoints(world)


def _configurations(world: World) -> Iterator[Case]:
    config = json.loads((world.model / "config.json").read_text(encoding="utf-8"))
    arguments = config["model_args"]
    evil = {"file": EVIL}
    executing: dict[str, dict[str, Any]] = {
        "checkpoint_path": {"model_args": {**arguments, "checkpoint_path": EVIL}},
        "pretrained_cfg.file": {
            "model_args": {**arguments, "pretrained": True, "pretrained_cfg": evil}
        },
        "pretrained_cfg.url": {
            "model_args": {
                **arguments,
                "pretrained": True,
                "pretrained_cfg": {"url": f"file:///proc/self/cwd/{EVIL}"},
            }
        },
        "pretrained_cfg.state_dict": {
            "model_args": {**arguments, "pretrained": True, "pretrained_cfg": {"state_dict": {}}}
        },
        "pretrained_cfg_overlay": {
            "model_args": {**arguments, "pretrained": True, "pretrained_cfg_overlay": evil}
        },
        "pretrained": {"model_args": {**arguments, "pretrained": True}},
        "cache_dir": {"model_args": {**arguments, "cache_dir": "../../cache"}},
        "scriptable": {"model_args": {**arguments, "scriptable": True}},
        "exportable": {"model_args": {**arguments, "exportable": True}},
        "block": {"model_args": {**arguments, "block": "os.system"}},
        "architecture hf-hub": {"architecture": "hf-hub:o/n"},
        "architecture local-dir": {"architecture": "local-dir:.", "model_args": {}},
        "file in its own pretrained_cfg": {
            "pretrained_cfg": {**config["pretrained_cfg"], "file": EVIL}
        },
        "custom_load": {
            "pretrained_cfg": {**config["pretrained_cfg"], "custom_load": True, "file": EVIL}
        },
    }
    for name, changes in executing.items():
        lay = _folder(world.model, as_json({**config, **changes}).encode())
        for kind, command in (("eval", world_eval(world)), ("select", _select(world))):
            yield Case("model that executes", f"{kind} {name}", command, lay, output=("out/",))
        detector = json.loads((world.recipe / "detector" / "config.json").read_text())
        lay = _folder(world.recipe / "detector", as_json({**detector, **changes}).encode())
        yield Case(
            "model that executes",
            f"detector {name}",
            _build(world, "check.object_detector=model"),
            lay,
            output=("o/", ".stages/"),
            keeps=(".stages/",),
        )
    preprocessing = {
        "std 0": {"std": [0, 0, 0]},
        "std negative": {"std": [-1.0, 1.0, 1.0]},
        "std of two": {"std": [1.0, 1.0]},
        "mean text": {"mean": "abc"},
        "mean 10^400": {"mean": [10**400, 0, 0]},
        "interpolation nonsense": {"interpolation": "nonsense"},
        "crop_pct 0": {"crop_pct": 0},
        "crop_pct -1": {"crop_pct": -1},
        "crop_pct 1e-9": {"crop_pct": 1e-9},
        "crop_mode": {"crop_mode": "nonsense"},
        "input 0": {"input_size": [3, 0, 0]},
        "input one channel": {"input_size": [1, 32, 32]},
        "input 10^6": {"input_size": [3, 10**6, 10**6]},
        "input text": {"input_size": "big"},
        "input none": {"input_size": None},
    }
    for name, changes in preprocessing.items():
        made = {**config, "pretrained_cfg": {**config["pretrained_cfg"], **changes}}
        lay = _folder(world.model, as_json(made).encode())
        yield Case("model config.json", name, world_eval(world), lay, output=("out/",))
    texts = [
        (f"change {i}", as_json(m).encode()) for i, m in enumerate(examples(changed(config), 50))
    ]
    for name, data in (*texts, *RAW_JSON.items()):
        lay = _folder(world.model, data)
        yield Case("model config.json", name, world_eval(world), lay, output=("out/",))


def world_eval(world: World) -> tuple[str, ...]:
    return ("eval", "--model", "model", "--data", str(world.photographs))


def _select(world: World) -> tuple[str, ...]:
    return ("select", "--panel", "model", "--data", str(world.photographs))


def _build(world: World, override: str) -> tuple[str, ...]:
    build = ("build", "--recipe", str(world.recipe), "--classes", "hummingbird")
    return (*build, "--output", "o", "--set", override)


def _folder(sound: Path, config: bytes) -> Callable[[Path], None]:
    def lay(folder: Path) -> None:
        shutil.copytree(sound, folder / "model")
        (folder / "model" / "config.json").write_bytes(config)
        (folder / EVIL).write_bytes(evil(folder))
        (folder / "model" / EVIL).write_bytes(evil(folder))

    return lay


def evil(folder: Path) -> bytes:
    """A torch file whose unpickling leaves a mark."""
    buffer = io.BytesIO()
    torch.save({"state_dict": {"x": Payload(executed(folder))}}, buffer)
    return buffer.getvalue()


def _weights(world: World) -> Iterator[Case]:
    state = load_file(world.model / "model.safetensors")
    name, first = next((k, v) for k, v in state.items() if v.is_floating_point())
    nan, infinite = torch.full_like(first, torch.nan), torch.full_like(first, torch.inf)
    changes: dict[str, dict[str, torch.Tensor]] = {
        "NaN": {**state, name: nan},
        "infinite": {**state, name: infinite},
        "wrong shape": {**state, name: first[:1].contiguous()},
        "empty": {},
        "one tensor less": {k: v for k, v in state.items() if k != name},
        "integers": {k: v.to(torch.int64) for k, v in state.items()},
    }
    for title, made in changes.items():
        for kind, command in (("eval", world_eval(world)), ("select", _select(world))):
            yield Case(
                "model weights",
                f"{kind} {title}",
                command,
                _weighing(world, made),
                output=("out/",),
            )
    sound = (world.model / "model.safetensors").read_bytes()
    raw = [*examples(damaged(sound), 14), b"", b"\xff" * 8 + b"{}", _pickled_protocol_zero()]
    for i, data in enumerate(raw):

        def lay(folder: Path, data: bytes = data) -> None:
            shutil.copytree(world.model, folder / "model")
            (folder / "model" / "model.safetensors").write_bytes(data)

        yield Case("model weights", f"bytes {i}", world_eval(world), lay, output=("out/",))

    def fifo(folder: Path) -> None:
        shutil.copytree(world.model, folder / "model")
        (folder / "model" / "model.safetensors").unlink()
        os.mkfifo(folder / "model" / "model.safetensors")

    yield Case("model weights", "a FIFO", world_eval(world), fifo)


def _weighing(world: World, state: dict[str, torch.Tensor]) -> Callable[[Path], None]:
    def lay(folder: Path) -> None:
        shutil.copytree(world.model, folder / "model")
        save_file(state, folder / "model" / "model.safetensors")

    return lay


def _pickled_protocol_zero() -> bytes:
    return pickle.dumps({"a": 1}, protocol=0)


def _checkpoints(world: World) -> Iterator[Case]:
    def command(file: str) -> tuple[str, ...]:
        return ("eval", "--model", f"test_resnet={file}", "--data", str(world.photographs))

    def payload(folder: Path) -> Payload:
        return Payload(executed(folder))

    def pickled(folder: Path) -> bytes:
        return pickle.dumps(payload(folder))

    def legacy(folder: Path) -> bytes:
        buffer = io.BytesIO()
        torch.save({"x": payload(folder)}, buffer, _use_new_zipfile_serialization=False)
        return buffer.getvalue()

    def zipped(folder: Path) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(payload(folder)))
            archive.writestr("archive/version", "3\n")
        return buffer.getvalue()

    def scripted(folder: Path) -> bytes:
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), buffer)
        return buffer.getvalue()

    for suffix in ("pth", "pt", "bin", "safetensors"):
        for name, make in (
            ("torch", evil),
            ("pickle", pickled),
            ("legacy", legacy),
            ("zip", zipped),
        ):
            yield Case(
                "checkpoint that executes",
                f"{name}.{suffix}",
                command(f"bad.{suffix}"),
                _made(f"bad.{suffix}", make),
            )
    yield Case("checkpoint", "TorchScript", command("bad.pt"), _made("bad.pt", scripted))

    def saved(value: Any) -> Callable[[Path], bytes]:
        buffer = io.BytesIO()
        torch.save(value, buffer)
        return lambda folder: buffer.getvalue()

    for name, value in {
        "a list": [1],
        "a number": 1,
        "nothing in it": {},
        "no tensors": {"state_dict": {"a": 1}},
        "keys that are numbers": {1: torch.zeros(1)},
        "others' tensors": {"a": torch.zeros(3)},
        "nested in itself": {"state_dict": {"model": {"x": torch.zeros(1)}}},
        "sparse": {"a": torch.zeros(3).to_sparse()},
        "complex": {"a": torch.zeros(3, dtype=torch.complex64)},
    }.items():
        yield Case("checkpoint", name, command("bad.pth"), _made("bad.pth", saved(value)))
    sound = world.checkpoint.read_bytes()
    for i, data in enumerate(examples(damaged(sound), 12)):
        made = _made("bad.safetensors", lambda folder, data=data: data)
        # An edited weight is another weight; no one can tell.
        yield Case("checkpoint", f"bytes {i}", command("bad.safetensors"), made, output=("out/",))
    for name, lay in {
        "missing": lambda folder: None,
        "a folder": lambda folder: (folder / "bad.pth").mkdir(),
        "a FIFO": lambda folder: os.mkfifo(folder / "bad.pth"),
        "a device": lambda folder: (folder / "bad.pth").symlink_to("/dev/zero"),
        "a link to itself": lambda folder: (folder / "bad.pth").symlink_to("bad.pth"),
    }.items():
        yield Case("checkpoint", name, command("bad.pth"), lay)


def _made(name: str, make: Callable[[Path], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(make(folder)) and None
