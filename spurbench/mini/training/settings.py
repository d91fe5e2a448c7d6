"""The size of everything that the embedded assets are trained with."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from spurbench.mini.training.base import BaseSettings
from spurbench.mini.training.classifiers import ORACLE, PANEL, ClassifierSettings
from spurbench.mini.training.decoder import DecoderSettings
from spurbench.mini.training.vae import TuningSettings, VAESettings

Part = Literal["base", "classifiers"]
PARTS: tuple[Part, ...] = ("base", "classifiers")

OF_BASE = ("captioned", "vae", "tuning", "base", "decoder")
"""The settings that the part ``base`` is trained with; the others are the classifiers'."""


@dataclass(frozen=True)
class AssetSettings:
    """The defaults make the committed assets."""

    captioned: int = 40_000
    biased_per_class: int = 2_000
    unbiased: int = 32_000
    validation_per_class: int = 100
    real_per_class: int = 75
    vae: VAESettings = field(default_factory=VAESettings)
    tuning: TuningSettings = field(default_factory=TuningSettings)
    base: BaseSettings = field(default_factory=BaseSettings)
    decoder: DecoderSettings = field(default_factory=DecoderSettings)
    panel: dict[str, ClassifierSettings] = field(default_factory=lambda: dict(PANEL))
    oracle: ClassifierSettings = ORACLE

    def of(self, part: Part) -> dict[str, Any]:
        """The settings of a part, as JSON values."""
        return {
            name: value
            for name, value in asdict(self).items()
            if (name in OF_BASE) == (part == "base")
        }
