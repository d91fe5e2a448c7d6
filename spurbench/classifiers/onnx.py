"""Networks as ONNX files, ``onnx:FILE``, run by onnxruntime.

What the graph does not say is read from ``FILE.json`` or from the file's own metadata, both in
timm's words: ``pretrained_cfg`` (size, normalisation) and ``label_names``.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict

from spurbench.classifiers.folder import DataConfig, is_file
from spurbench.classifiers.names import name_of
from spurbench.classifiers.sources import OwnWeights, Source
from spurbench.core.documents import Document, read_json, validated
from spurbench.core.errors import SpurbenchError, reason
from spurbench.core.identity import file_sha256, fingerprint

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto

    from spurbench.classifiers.classifier import Loaded

log = logging.getLogger(__name__)


class Notes(Document):
    """What is said of a network beside its graph."""

    model_config = ConfigDict(extra="ignore")

    pretrained_cfg: DataConfig = DataConfig()
    label_names: tuple[str | int, ...] | None = None
    training_data: str | None = None


def _check(name: str) -> None:
    for package in ("onnxruntime", "onnx"):
        if importlib.util.find_spec(package) is None:
            raise SpurbenchError(f"onnx:{name} needs {package}; pip install 'spurbench[onnx]'")
    if not is_file(Path(name)):
        raise SpurbenchError(f"no ONNX file at {name}")


def _load(name: str, own: OwnWeights | None) -> Loaded:
    from spurbench.classifiers import timm
    from spurbench.classifiers.session import Session

    path = Path(name)
    model = _read(path)
    notes = _notes(path, model)
    data = notes.pretrained_cfg.model_dump(exclude_none=True)
    called = name_of(path)
    lacking = [key for key in ("mean", "std") if key not in data]
    if lacking:
        log.warning(
            "%s: no %s in %s or in its metadata; ImageNet's is taken",
            called,
            " and ".join(lacking),
            _sidecar(path).name,
        )
    files = [path, *_data_files(path, model)]
    output = _output(model, called)
    softmax = any(output in node.output and node.op_type == "Softmax" for node in model.graph.node)
    network = Session(path, called, output=output, ends_in_softmax=softmax)
    if network.size is not None:
        data["input_size"] = (3, *network.size)
    elif "input_size" not in data:
        log.warning("%s takes images of any size; it is measured at 224 x 224", called)
        data["input_size"] = (3, 224, 224)
    data = {"crop_pct": 1.0} | data
    hashes = [file_sha256(file) for file in files]
    return replace(
        timm.loaded(network, called, "ONNX", data),
        labels=notes.label_names,
        training_data=notes.training_data,
        weights_sha256=hashes[0] if len(hashes) == 1 else fingerprint(hashes),
        parameters=_count(model),
    )


def _count(model: ModelProto) -> int:
    """Numbers in its tensors, without sizes and positions, which are int64."""
    import onnx

    return sum(
        math.prod(tensor.dims)
        for tensor in model.graph.initializer
        if tensor.data_type != onnx.TensorProto.INT64
    )


def _read(path: Path) -> ModelProto:
    """The graph, without the weights that lie in other files."""
    import onnx

    try:
        return onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's errors have no common ancestor
        raise SpurbenchError(f"{path} is not an ONNX model: {reason(error)[:120]}") from None


def _output(model: ModelProto, name: str) -> str:
    """The output that holds the logits: the only one, or the one of that name."""
    names = [output.name for output in model.graph.output]
    if len(names) == 1 or "logits" in names:
        return names[0] if len(names) == 1 else "logits"
    raise SpurbenchError(f"{name} has several outputs, {', '.join(names)}; call one of them logits")


def _data_files(path: Path, model: ModelProto) -> list[Path]:
    """The files beside it that hold its weights, sorted.

    Raises:
        SpurbenchError: if it names one that does not lie in its folder, or is not there.
    """
    named = {
        entry.value
        for tensor in _tensors(model)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for name in named:
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or "\\" in name or ":" in name:
            raise SpurbenchError(f"{path} wants weights from {name[:80]}, outside its own folder")
    files = [path.parent / name for name in sorted(named)]
    for file in files:
        if not is_file(file):
            raise SpurbenchError(f"{path} has its weights in {file}, which is not there")
        if not file.resolve().is_relative_to(path.parent.resolve()):
            raise SpurbenchError(f"{path} wants weights from {file}, a link out of its own folder")
    return files


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    yield from _tensors_of(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _tensors_at(node)


def _tensors_of(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _tensors_at(node)


def _tensors_at(node: Any) -> Iterator[TensorProto]:
    """Those that a node holds, or the graphs in it."""
    for attribute in node.attribute:
        yield from (attribute.t, *attribute.tensors)
        for graph in (attribute.g, *attribute.graphs):
            yield from _tensors_of(graph)


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _notes(path: Path, model: ModelProto) -> Notes:
    """What ``FILE.json`` says, else the file's own metadata, where values are JSON."""
    sidecar = _sidecar(path)
    if is_file(sidecar):
        said = read_json(sidecar)
        if isinstance(said, Mapping) and not said.keys() & Notes.model_fields.keys():
            said = {"pretrained_cfg": said}  # timm's words for the images alone
        return validated(Notes, said, str(sidecar))
    said = {entry.key: entry.value for entry in model.metadata_props}
    try:
        known = {
            key: json.loads(said[key]) for key in ("pretrained_cfg", "label_names") if key in said
        }
    except json.JSONDecodeError as error:
        raise SpurbenchError(f"{path}: its metadata is not JSON: {error}") from None
    return validated(Notes, known | {"training_data": said.get("training_data")}, str(path))


def _files(name: str) -> list[Path]:
    path = Path(name)
    beside = [_sidecar(path)] if is_file(_sidecar(path)) else []
    return [path, *beside, *_data_files(path, _read(path))]


SOURCE = Source("onnx", _load, _check, _files)
