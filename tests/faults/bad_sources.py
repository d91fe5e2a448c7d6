"""Bad labels, ONNX files, folders of transformers, and weights of open_clip."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from faults.bad_documents import RAW_JSON
from faults.bad_models import evil
from faults.case import Case, executed
from faults.generate import as_json, changed, damaged, examples
from faults.world import ARCHITECTURE, World
from spurbench.core.imagenet import imagenet_wnids

Lay = Callable[[Path], object]

ODD_FILES: dict[str, Lay] = {
    "missing": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "a FIFO": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "empty": lambda path: path.touch(),
    "pickled": lambda path: path.write_bytes(evil(_run(path))),
}


def cases(world: World) -> Iterator[Case]:
    """For ``eval``, by source."""
    yield from _labels(world)
    yield from _graphs(world)
    yield from _onnx_files(world)
    yield from _folders(world, "transformers", world.vit)
    yield from _folders(world, "vlm", world.vlm)
    yield from _clips(world)


def _eval(world: World, model: str, *more: str) -> tuple[str, ...]:
    return ("eval", "--model", model, "--data", str(world.photographs), *more)


def _case(kind: str, name: str, arguments: tuple[str, ...], lay: Lay, takes: str = "any") -> Case:
    def prepare(folder: Path) -> None:
        lay(folder)

    return Case(kind, name, arguments, prepare, takes, ("out/", "cache/"), ("cache/",))


def _labels(world: World) -> Iterator[Case]:
    wnids = [*imagenet_wnids()]
    texts: dict[str, bytes] = {
        "999 lines": "\n".join(wnids[:999]).encode(),
        "1001 lines": "\n".join([*wnids, "x"]).encode(),
        "one line": b"n01833805",
        "a million lines": b"x\n" * 1_000_000,
        "one of 50 MB": b"x" * 50_000_000,
        "a gap": "\n".join([*wnids[:5], "", *wnids[6:]]).encode(),
        "one twice": "\n".join([*wnids[:999], wnids[0]]).encode(),
        "not UTF-8": b"\xff\xfe\n" * 1000,
        "UTF-16": "\n".join(wnids).encode("utf-16"),
        "NUL": b"\0\n" * 1000,
        "NUL and a line's end": "\r\n".join(wnids).encode() + b"\0",
        "indices out of range": "\n".join(map(str, range(1000, 2000))).encode(),
        "negative": "\n".join(map(str, range(-1000, 0))).encode(),
        "digits of others": "\n".join("²" for _ in range(1000)).encode(),
    }
    for odd in ("[/b]", "x\rError: forged", "\x1b[2J", "\u202egnp", "<script>alert(1)</script>"):
        texts[f"markup {odd!r}"] = "\n".join([*wnids[:5], odd, *wnids[6:]]).encode()
    for name, data in texts.items():
        lay = _written("labels.txt", data)
        arguments = _eval(world, str(world.model), "--labels", "labels.txt")
        # Of these every class of the data may have its output; then the rest is listed.
        yield _case("--labels", name, arguments, lay)
    few = {str(i): label for i, label in enumerate(wnids[:8])}
    documents = [*examples(changed(wnids[:8]), 4), *examples(changed(few), 4)]
    shifted = {str(i + 1): label for i, label in enumerate(wnids)}
    nested = {str(i): [[[label]]] for i, label in enumerate(wnids)}
    documents += [shifted, nested, {**dict(enumerate(wnids)), "²": "x"}]
    raw = [(f"change {i}", as_json(d).encode()) for i, d in enumerate(documents)]
    for name, data in [*raw, *RAW_JSON.items()]:
        arguments = _eval(world, str(world.model), "--labels", "labels.json")
        lay = _written("labels.json", data)
        yield _case("--labels", f"JSON, {name}", arguments, lay, "refused")
    for name, odd in ODD_FILES.items():
        for file in ("labels.txt", "labels.json"):
            arguments = _eval(world, str(world.model), "--labels", file)
            lay = lambda folder, odd=odd, file=file: odd(folder / file)  # noqa: E731
            yield _case("--labels", f"{file} is {name}", arguments, lay, "refused")
    for model in (f"vlm:{world.vlm}", "torchvision:resnet50", f"onnx:{world.onnx}"):
        arguments = _eval(world, model, "--labels", "labels.txt")
        yield _case("--labels", f"of {model[:5]}", arguments, _written("labels.txt", b"x\n" * 7))


def _run(path: Path) -> Path:
    """The folder of the command that ``path`` lies in."""
    return next(folder for folder in path.parents if folder.name == "run")


def _written(name: str, data: bytes) -> Lay:
    return lambda folder: (folder / name).write_bytes(data)


def _graph(
    nodes: list[Any],
    inputs: list[int | str | None] | None = None,
    outputs: list[Any] | None = None,
    held: list[Any] | None = None,
    kind: int = TensorProto.FLOAT,
) -> bytes:
    """An ONNX file without a check of whether it makes sense."""
    shape = [None, 3, 8, 8] if inputs is None else inputs
    graph = helper.make_graph(
        nodes,
        "bad",
        [helper.make_tensor_value_info("images", kind, shape)],
        outputs or [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        held or [],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    return made.SerializeToString()


def _graphs(world: World) -> Iterator[Case]:
    """Graphs that are sound ONNX, more or less, and no classifiers."""
    flat = helper.make_node("Flatten", ["images"], ["flat"])
    weights = numpy_helper.from_array(np.ones((192, 1000), np.float32), "w")
    odd = numpy_helper.from_array(np.ones((7, 1000), np.float32), "w")
    nan = numpy_helper.from_array(np.full((192, 1000), np.nan, np.float32), "w")
    infinite = numpy_helper.from_array(np.full((192, 1000), np.inf, np.float32), "w")
    product = helper.make_node("MatMul", ["flat", "w"], ["logits"])
    shape = numpy_helper.from_array(np.array([7, 1000], np.int64), "shape")
    huge = numpy_helper.from_array(np.array([10**6, 10**6], np.int64), "shape")
    lying = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[192, 10**12], raw_data=b"x")
    negative = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[-192, 1000])
    unknown = TensorProto(name="w", data_type=99, dims=[192, 1000], raw_data=b"x")

    def outside(place: str) -> TensorProto:
        tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[192, 1000])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=place)
        return tensor

    graphs: dict[str, bytes] = {
        "no nodes": _graph([]),
        "no output": _graph([flat], outputs=[]),
        "the images themselves": _graph([helper.make_node("Identity", ["images"], ["logits"])]),
        "one number an image": _graph(
            [helper.make_node("ReduceMean", ["images"], ["logits"], axes=[1, 2, 3], keepdims=0)]
        ),
        "one number": _graph([helper.make_node("ReduceMean", ["images"], ["logits"], keepdims=0)]),
        "another batch": _graph(
            [helper.make_node("Expand", ["flat0", "shape"], ["logits"])],
            held=[shape, numpy_helper.from_array(np.zeros((1, 1), np.float32), "flat0")],
        ),
        "a reshape that fails": _graph(
            [flat, helper.make_node("Reshape", ["flat", "shape"], ["logits"])], held=[shape]
        ),
        "4 TB": _graph([helper.make_node("ConstantOfShape", ["shape"], ["logits"])], held=[huge]),
        "weights that don't fit": _graph([flat, product], held=[odd]),
        "NaN": _graph([flat, product], held=[nan]),
        "infinite": _graph([flat, product], held=[infinite]),
        "weights of an absurd size": _graph([flat, product], held=[lying]),
        "weights of a negative size": _graph([flat, product], held=[negative]),
        "weights of an unknown type": _graph([flat, product], held=[unknown]),
        "classes as integers": _graph(
            [flat, product, helper.make_node("ArgMax", ["logits"], ["answer"])],
            outputs=[helper.make_tensor_value_info("answer", TensorProto.INT64, None)],
            held=[weights],
        ),
        "an operator of nobody": _graph([helper.make_node("Evil", ["images"], ["logits"])]),
        "a domain of nobody": _graph(
            [helper.make_node("Evil", ["images"], ["logits"], domain="evil")]
        ),
        "a circle": _graph([helper.make_node("Identity", ["logits"], ["logits"])]),
        "input of 2 dimensions": _graph([flat], inputs=[None, 8]),
        "input of one channel": _graph([flat, product], inputs=[None, 1, 8, 8], held=[weights]),
        "input of 0 x 0": _graph([flat, product], inputs=[None, 3, 0, 0], held=[weights]),
        "input of 10^6 x 10^6": _graph([flat, product], inputs=[None, 3, 10**6, 10**6]),
        "input of 1 x 100,000": _graph([flat, product], inputs=[None, 3, 1, 100_000]),
        "input of strings": _graph([flat], kind=TensorProto.STRING),
        "input of a batch of 10^6": _graph(
            [flat, product], inputs=[10**6, 3, 8, 8], held=[weights]
        ),
    }
    for place in ("../net.data", "/dev/zero", "/etc/passwd", "", ".", "a/../../x", "bad.onnx"):
        graphs[f"weights in {place!r}"] = _graph([flat, product], held=[outside(place)])
    classifies = {"input of a batch of 10^6"}
    for name, data in graphs.items():
        lay = _written("bad.onnx", data)
        takes = "any" if name in classifies or "bad.onnx" in name else "refused"
        yield _case("ONNX graph", name, _eval(world, "onnx:bad.onnx"), lay, takes)


def _onnx_files(world: World) -> Iterator[Case]:
    command = _eval(world, "onnx:bad.onnx")
    for i, data in enumerate(examples(damaged(world.onnx.read_bytes()), 8)):
        yield _case("ONNX file", f"damage {i}", command, _written("bad.onnx", data))
    for name, odd in ODD_FILES.items():
        lay = lambda folder, odd=odd: odd(folder / "bad.onnx")  # noqa: E731
        yield _case("ONNX file", name, command, lay, "refused")
    notes = {
        "pretrained_cfg": {"input_size": [3, 30, 30], "mean": [0.5] * 3, "std": [0.5] * 3},
        "label_names": ["n01833805", "n01882714"],
    }
    texts = [(f"change {i}", as_json(d)) for i, d in enumerate(examples(changed(notes), 10))]
    for name, data in [*((n, t.encode()) for n, t in texts), *RAW_JSON.items()]:

        def beside(folder: Path, data: bytes = data) -> None:
            shutil.copy(world.onnx, folder / "bad.onnx")
            (folder / "bad.onnx.json").write_bytes(data)

        yield _case("ONNX file", f"notes, {name}", command, beside)
    for name, odd in ODD_FILES.items():

        def odd_notes(folder: Path, odd: Lay = odd) -> None:
            shutil.copy(world.onnx, folder / "bad.onnx")
            odd(folder / "bad.onnx.json")

        yield _case("ONNX file", f"notes are {name}", command, odd_notes)
    for key, value in (
        ("pretrained_cfg", "{"),
        ("pretrained_cfg", "[" * 100_000),
        ("label_names", "1"),
        ("label_names", '["[/b]"]'),
        ("training_data", "x\nError: forged"),
    ):
        made = onnx.load(world.onnx)
        made.metadata_props.add(key=key, value=value)
        lay = _written("bad.onnx", made.SerializeToString())
        yield _case("ONNX file", f"metadata {key} {value[:12]!r}", command, lay)


def _folders(world: World, source: str, sound: Path) -> Iterator[Case]:
    """A folder of transformers with one file of another content."""
    command = _eval(world, f"{source}:bad")
    kind = f"{source} folder"

    def lay(file: str, odd: Lay) -> Lay:
        def laid(folder: Path) -> None:
            shutil.copytree(sound, folder / "bad")
            (folder / "bad" / file).unlink(missing_ok=True)
            odd(folder / "bad" / file)

        return laid

    documents = sorted(file.name for file in sound.glob("*config.json"))
    for file in documents:
        document = json.loads((sound / file).read_text(encoding="utf-8"))
        own = file == "config.json"
        bad = examples(changed(document), 10 if own else 5)
        made = [(f"change {i}", as_json(d).encode()) for i, d in enumerate(bad)]
        executing: dict[str, Any] = {
            "auto_map": dict.fromkeys(("AutoConfig", "AutoProcessor", "AutoModel"), "code.Evil"),
            "model_type": "evil",
            "num_labels": 10**9,
            "hidden_size": 10**9,
            "num_hidden_layers": 10**9,
            "image_size": 10**6,
            "patch_size": 0,
            "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True},
            "attn_implementation": "evil/kernels",
            "_name_or_path": "../../x",
            "base_model_name_or_path": "evil/x",
            "dtype": "float9",
        }
        if own:
            made += [(k, as_json({**document, k: v}).encode()) for k, v in executing.items()]
            made += RAW_JSON.items()
        for name, data in made:

            def write(path: Path, data: bytes = data) -> None:
                path.write_bytes(data)
                code = f"open({str(executed(_run(path)))!r}, 'w')\nEvil = 1\n"
                path.with_name("code.py").write_text(code)

            yield _case(kind, f"{file}, {name}", command, lay(file, write))
    weights = (sound / "model.safetensors").read_bytes()
    for i, data in enumerate(examples(damaged(weights), 5)):
        written = lambda path, data=data: path.write_bytes(data)  # noqa: E731
        yield _case(kind, f"weights, damage {i}", command, lay("model.safetensors", written))
    for file in ("config.json", "preprocessor_config.json", "model.safetensors"):
        for name, odd in ODD_FILES.items():
            yield _case(kind, f"{file} is {name}", command, lay(file, odd))
    for name, value in {
        "a file": lambda path: path.write_text("x"),
        "empty": lambda path: path.mkdir(),
        "a FIFO": os.mkfifo,
        "a link to itself": lambda path: path.symlink_to(path.name),
    }.items():
        whole = lambda folder, value=value: value(folder / "bad")  # noqa: E731
        yield _case(kind, f"the folder is {name}", command, whole, "refused")


def _clips(world: World) -> Iterator[Case]:
    command = _eval(world, f"open_clip:{ARCHITECTURE}=bad.safetensors")
    for i, data in enumerate(examples(damaged(world.clip.read_bytes()), 5)):
        yield _case("open_clip weights", f"damage {i}", command, _written("bad.safetensors", data))
    others = {"another network's": world.checkpoint.read_bytes()}
    for name, data in others.items():
        lay = _written("bad.safetensors", data)
        yield _case("open_clip weights", name, command, lay, "refused")
    for file in ("bad.safetensors", "bad.pt", "bad.bin"):
        for name, odd in ODD_FILES.items():
            arguments = _eval(world, f"open_clip:{ARCHITECTURE}={file}")
            lay = lambda folder, odd=odd, file=file: odd(folder / file)  # noqa: E731
            yield _case("open_clip weights", f"{file} is {name}", arguments, lay, "refused")

    def kept(data: bytes) -> Lay:
        """Text embeddings of an earlier run, damaged."""

        def lay(folder: Path) -> None:
            cache = folder / "cache" / "spurbench" / "text-embeddings"
            cache.parent.mkdir(parents=True)
            cache.write_bytes(data)

        return lay

    arguments = _eval(world, f"open_clip:{ARCHITECTURE}={world.clip}")
    yield _case("open_clip weights", "the cache is a file", arguments, kept(b"mine"), "mended")
