"""Generate images of spurious features and measure which classifiers they fool."""

from __future__ import annotations

__version__ = "0.1.0"
