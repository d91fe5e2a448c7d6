"""An ONNX graph as a network: onnxruntime behind the face of a module."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from spurbench.core.errors import SpurbenchError, reason

log = logging.getLogger(__name__)

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class Session(nn.Module):
    """A graph from normalised images to logits.

    It runs where the images are: on the CPU with as many threads as torch, on CUDA if onnxruntime
    can. torch knows of no parameters in it.

    Attributes:
        size: (height, width) of its input, pixels; None where the graph leaves them open.
    """

    def __init__(self, path: Path, name: str, *, output: str, ends_in_softmax: bool) -> None:
        """Read a graph.

        Args:
            path: the ONNX file.
            name: what to call it in messages.
            output: name of the output to answer with.
            ends_in_softmax: whether that gives probabilities, whose logarithms are logits.

        Raises:
            SpurbenchError: if onnxruntime can't run it, or it does not take a batch of images.
        """
        super().__init__()
        self._path, self._name = path, name
        self._output, self._ends_in_softmax = output, ends_in_softmax
        self._sessions = {CPU: self._open(CPU)}
        inputs = self._sessions[CPU].get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in _TYPES:
            listed = ", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs)
            raise SpurbenchError(f"{name} takes {listed}; it is to take one batch of float images")
        self._input, self._type = inputs[0].name, _TYPES[inputs[0].type]
        batch, *shape = (side if isinstance(side, int) else None for side in inputs[0].shape)
        self._batch = batch
        self._channels_last = shape[2] == 3 and shape[0] != 3
        height, width = shape[:2] if self._channels_last else shape[1:]
        self.size = (height, width) if height and width else None

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (N, C) of normalised pixels (N, 3, height, width), on the CPU."""
        session = self._session(CUDA if pixels.is_cuda else CPU)
        images = pixels.permute(0, 2, 3, 1) if self._channels_last else pixels
        values = np.ascontiguousarray(images.cpu().numpy(), dtype=self._type)
        size = self._batch or len(values)
        logits = torch.cat(
            [self._run(session, values[i : i + size], size) for i in range(0, len(values), size)]
        )
        # A probability that underflows is not less than the smallest number there is.
        return logits.clamp_min(torch.finfo().tiny).log() if self._ends_in_softmax else logits

    def _run(self, session: onnxruntime.InferenceSession, images: np.ndarray, size: int) -> Tensor:
        """Answers to as many images as the graph takes at a time, or fewer."""
        lacking = np.zeros((size - len(images), *images.shape[1:]), images.dtype)
        (answers,) = session.run([self._output], {self._input: np.concatenate([images, lacking])})
        return torch.from_numpy(answers[: len(images)]).float()

    def _session(self, provider: str) -> onnxruntime.InferenceSession:
        if provider not in self._sessions:
            there = provider in onnxruntime.get_available_providers()
            session = self._open(provider) if there else self._sessions[CPU]
            if provider not in session.get_providers():
                log.warning("%s: onnxruntime has no CUDA here; it runs on the CPU", self._name)
            self._sessions[provider] = session
        return self._sessions[provider]

    def _open(self, provider: str) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.log_severity_level = 3  # errors, which are raised as well
        try:
            return onnxruntime.InferenceSession(
                self._path, options, providers=[*{provider: None, CPU: None}]
            )
        except Exception as error:  # onnxruntime's errors have no common ancestor
            raise SpurbenchError(f"{self._path} can't be run: {reason(error)[:200]}") from None
