"""The panel, trained on biased scenes, and the oracle, trained on unbiased ones."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from spurbench.core import atomic
from spurbench.core.identity import derive_seed
from spurbench.mini.training.checkpoint import load_checkpoint, save_checkpoint

log = logging.getLogger(__name__)

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


@dataclass(frozen=True)
class ClassifierSettings:
    """Architecture and recipe of one classifier."""

    architecture: str
    model_args: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 700  # 0: as it is initialised
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.0
    mixup: float = 0.0  # alpha of the Beta distribution
    epsilon: float = 0.0  # L-inf radius of adversarial training, in [0, 1] pixels
    attack_steps: int = 1
    checkpoint_every: int = 100


PANEL: dict[str, ClassifierSettings] = {
    # A plain recipe, and a modern one (label smoothing, mixup), as ResNet-50 V1 and V2 differ.
    "resnet_v1": ClassifierSettings("resnet10t", {"channels": (32, 64, 96, 128)}, steps=900),
    "resnet_v2": ClassifierSettings(
        "resnet14t", {"channels": (24, 32, 48, 64)}, steps=1000, label_smoothing=0.1, mixup=0.2
    ),
    "resnet_robust": ClassifierSettings(
        "resnet10t",
        {"channels": (32, 64, 96, 128)},
        steps=1200,
        epsilon=4 / 255,
        attack_steps=2,
    ),
    "vit": ClassifierSettings(
        "vit_tiny_patch16_224",
        {"img_size": 64, "patch_size": 8, "embed_dim": 96, "depth": 6, "num_heads": 3},
        steps=3600,
        learning_rate=1e-3,
    ),
}
ORACLE = ClassifierSettings("resnet10t", {"channels": (32, 64, 128, 192)}, steps=3000)

Loss = Callable[[Tensor, Tensor], Tensor]


def train_classifier(
    name: str,
    pixels: np.ndarray,
    targets: np.ndarray,
    settings: ClassifierSettings,
    *,
    outputs: int,
    seed: int,
    device: torch.device,
    work: Path,
    weights: np.ndarray | None = None,
) -> nn.Module:
    """Train a classifier from scratch.

    Args:
        name: seeds derive from it.
        pixels: (N, 64, 64, 3) uint8.
        targets: (N,) int64 classes for a softmax head, or (N, outputs) float32 of 0 and 1 for
            sigmoid outputs.
        settings: architecture and recipe.
        outputs: width of the head.
        seed: global seed.
        device: where to train.
        work: folder of the checkpoint.
        weights: (N,), each scene's chance to be drawn, summing to 1; None: all alike.
    """
    torch.manual_seed(derive_seed(seed, "classifier", name))
    model = timm.create_model(settings.architecture, num_classes=outputs, **settings.model_args)
    model = (
        nn.Sequential(_Normalise(), model).to(device).to(memory_format=torch.channels_last).train()
    )
    optimizer = torch.optim.AdamW(
        model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, max(1, settings.steps), pct_start=0.1
    )
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    multi_label = targets.ndim == 2
    labels = torch.from_numpy(targets)
    first = load_checkpoint(work, parts)

    def loss_of(logits: Tensor, wanted: Tensor) -> Tensor:
        if multi_label:
            return F.binary_cross_entropy_with_logits(logits, wanted)
        return F.cross_entropy(logits, wanted, label_smoothing=settings.label_smoothing)

    for step in tqdm(
        range(first, settings.steps), name, settings.steps, initial=first, disable=None
    ):
        generator = torch.Generator().manual_seed(derive_seed(seed, "classifier", name, step))
        rng = np.random.default_rng(derive_seed(seed, "classifier", name, step))
        if weights is None:
            which = rng.integers(len(pixels), size=settings.batch_size)
        else:
            which = rng.choice(len(pixels), settings.batch_size, p=weights)
        images = (
            torch.from_numpy(augment(pixels[which], rng)).permute(0, 3, 1, 2).to(device).float()
            / 255
        )
        wanted = labels[which].to(device)
        if settings.epsilon:
            images = _attack(model, images, wanted, loss_of, settings, generator)
        if settings.mixup:
            share = float(rng.beta(settings.mixup, settings.mixup))
            other = torch.randperm(len(images), generator=generator).to(device)
            logits = model(share * images + (1 - share) * images[other])
            loss = share * loss_of(logits, wanted) + (1 - share) * loss_of(logits, wanted[other])
        else:
            loss = loss_of(model(images), wanted)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % settings.checkpoint_every == 0:
            log.info("%s %d: loss %.4f", name, step + 1, loss)
            save_checkpoint(work, step + 1, parts)
    return model[1].eval()


def augment(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random mirror image and shift by up to four pixels (rim repeated)."""
    padded = np.pad(pixels, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="edge")
    out = np.empty_like(pixels)
    side = pixels.shape[1]
    for i, (dy, dx, mirror) in enumerate(
        zip(*rng.integers(9, size=(2, len(pixels))), rng.random(len(pixels)) < 0.5, strict=True)
    ):
        crop = padded[i, dy : dy + side, dx : dx + side]
        out[i] = crop[:, ::-1] if mirror else crop
    return out


@torch.no_grad()
def predict(model: nn.Module, pixels: np.ndarray, device: torch.device) -> Tensor:
    """Logits of (N, 64, 64, 3) uint8 scenes, on the CPU."""
    normalise = _Normalise().to(device)
    parts = []
    for i in range(0, len(pixels), 256):
        images = torch.from_numpy(np.ascontiguousarray(pixels[i : i + 256])).permute(0, 3, 1, 2)
        parts.append(model(normalise(images.to(device).float() / 255)).cpu())
    return torch.cat(parts)


def save_classifier(
    folder: Path,
    model: nn.Module,
    settings: ClassifierSettings,
    outputs: int,
    labels: Sequence[str] = (),
    training_data: str | None = None,
) -> None:
    """Write ``config.json`` and ``model.safetensors`` in timm's hub format, weights in float16.

    ``training_data``, in a few words, is what leaderboards filter by.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architecture": settings.architecture,
        "num_classes": outputs,
        "num_features": model.num_features,
        "model_args": dict(settings.model_args),
        "pretrained_cfg": {
            "num_classes": outputs,
            "input_size": [3, 64, 64],
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "mean": MEAN,
            "std": STD,
        },
        "training": asdict(settings),
    }
    if labels:
        config["label_names"] = list(labels)
    if training_data is not None:
        config["training_data"] = training_data
    tensors = {
        key: value.detach().cpu().half().contiguous() if value.is_floating_point() else value.cpu()
        for key, value in model.state_dict().items()
    }
    save_file(tensors, folder / "model.safetensors")
    atomic.write_json(folder / "config.json", config)


class _Normalise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels - self.mean) / self.std


def _attack(
    model: nn.Module,
    images: Tensor,
    wanted: Tensor,
    loss_of: Loss,
    settings: ClassifierSettings,
    generator: torch.Generator,
) -> Tensor:
    """L-inf projected gradient ascent from a random start (Madry et al. 2018)."""
    epsilon = settings.epsilon
    delta = (torch.rand(images.shape, generator=generator).to(images) * 2 - 1) * epsilon
    for _ in range(settings.attack_steps):
        delta.requires_grad_()
        loss = loss_of(model((images + delta).clamp(0, 1)), wanted)
        (gradient,) = torch.autograd.grad(loss, delta)
        delta = (
            (delta + 1.25 * epsilon / settings.attack_steps * gradient.sign())
            .clamp(-epsilon, epsilon)
            .detach()
        )
    return (images + delta).clamp(0, 1)
