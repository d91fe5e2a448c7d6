"""SpuFix (Neuhaus et al. 2023, section 5): logits without what spurious components add to them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from spurbench.classifiers.networks import last_linear
from spurbench.core.errors import SpurbenchError


class SpuFixed(nn.Module):
    """A network that ends in a linear layer, with contributions of some directions taken off.

    For each contribution r, logits[:, columns[r]] -= max(<phi, rows[r]> - offsets[r], 0).
    """

    def __init__(self, network: nn.Module, columns: Tensor, rows: Tensor, offsets: Tensor) -> None:
        """Take columns (R,) int64, rows (R, D) and offsets (R,) of D penultimate features."""
        super().__init__()
        self.network = network
        self.columns: Tensor
        self.rows: Tensor
        self.offsets: Tensor
        self.register_buffer("columns", columns)
        self.register_buffer("rows", rows.float())
        self.register_buffer("offsets", offsets.float())

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (N, C) of normalised pixels (N, 3, height, width)."""
        caught: list[Tensor] = []
        head = last_linear(self.network)
        assert head is not None, "read() has seen to it"
        hook = head.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
        try:
            logits: Tensor = self.network(pixels)
        finally:
            hook.remove()
        contributions = caught[0] @ self.rows.T - self.offsets
        return logits.index_add(1, self.columns, -contributions.clamp(min=0))


def read(network: nn.Module, file: Path) -> SpuFixed:
    """A network with the contributions that a file holds.

    Raises:
        SpurbenchError: if the file is damaged or does not fit the network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise SpurbenchError(f"{file} is damaged ({error}); mend the classifier again") from None
    head = last_linear(network)
    match tensors:
        case {"columns": columns, "rows": rows, "offsets": offsets} if head is not None:
            fits = (
                columns.dtype == torch.int64
                and rows.shape == (len(columns), head.in_features)
                and offsets.shape == (len(columns),)
                and bool(((columns >= 0) & (columns < head.out_features)).all())
            )
            if fits:
                return SpuFixed(network, columns, rows, offsets)
    raise SpurbenchError(f"{file} does not fit the network beside it; mend the classifier again")
