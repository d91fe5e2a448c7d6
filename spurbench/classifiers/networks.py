"""Networks of other libraries, made to answer with logits as all here do."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import normalize


def last_linear(network: nn.Module) -> nn.Linear | None:
    """The linear layer that was made last, which a classifier's logits come out of."""
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    return linear[-1] if linear else None


class Logits(nn.Module):
    """An image classifier of transformers, without what it says beside its logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (N, C) of normalised pixels (N, 3, height, width)."""
        # Some of its networks take views that pixels in channels-last order don't have.
        logits: Tensor = self.network(pixel_values=pixels.contiguous()).logits
        return logits


class ZeroShot(nn.Module):
    """An image tower, and a linear head whose rows are the classes' scaled text embeddings."""

    def __init__(self, tower: nn.Module, texts: Tensor) -> None:
        """Take a tower to embeddings (N, D), and texts (C, D): unit vectors times the scale."""
        super().__init__()
        self.tower = tower
        self.head = nn.Linear(texts.shape[1], texts.shape[0], bias=False)
        self.head.weight.data.copy_(texts)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (N, C): scaled cosines of the image's embedding with the texts'."""
        embedded = self.tower(pixels)
        if isinstance(embedded, tuple):  # CoCa's has its tokens beside it
            embedded = embedded[0]
        logits: Tensor = self.head(normalize(embedded, dim=-1))
        return logits
