from __future__ import annotations

import hashlib

import torch
from torch import nn

from spurbench.core.identity import weights_sha256
from spurbench.diffusion.base import _update


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.arange(12.0).reshape(3, 4))
        self.register_buffer("n", torch.arange(3))
        self.register_buffer("h", torch.ones(2, dtype=torch.bfloat16))


def test_published_hashes_of_weights_stay_what_they_were():
    """Results name classifiers, and datasets their base, by these; computed before they moved."""
    assert weights_sha256(Net().state_dict()) == (
        "51613a657febc1f5d07b75fab92403683d8216789989a528360c4e18daba8d47"
    )
    digest = hashlib.sha256()
    _update(digest, "unet", Net())
    assert digest.hexdigest() == "867638ddc349f74eddb88121e5d9daf32c88c5dd1bd39096b4baa2f1d4237f41"


def test_the_hash_sees_names_types_shapes_and_values_but_not_the_order():
    state = {"a": torch.zeros(2, 3), "b": torch.ones(2)}
    same = weights_sha256({"b": torch.ones(2), "a": torch.zeros(2, 3)})
    assert weights_sha256(state) == same
    others = [
        {"a": torch.zeros(2, 3), "c": torch.ones(2)},
        {"a": torch.zeros(3, 2), "b": torch.ones(2)},
        {"a": torch.zeros(2, 3, dtype=torch.int32), "b": torch.ones(2)},
        {"a": torch.zeros(2, 3), "b": torch.tensor([1.0, 2.0])},
    ]
    assert len({same, *map(weights_sha256, others)}) == 5
    turned = torch.arange(6.0).reshape(2, 3)
    assert weights_sha256({"a": turned.T}) == weights_sha256({"a": turned.T.contiguous()})
