"""A toy base model, whole before each test."""

from __future__ import annotations

import pytest
import torch

from makers.toy import save_toy_pipeline
from spurbench.diffusion.base import load_base

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory):
    return save_toy_pipeline(tmp_path_factory.mktemp("toy") / "base")


@pytest.fixture
def base(toy_folder):
    return load_base(str(toy_folder), revision=None, device=CPU)
