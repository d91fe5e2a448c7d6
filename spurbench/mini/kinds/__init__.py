"""The generic kinds and their sub-families; one sub-family of each is a planted feature.

A drawing fills about the square [-1, 1] x [-1, 1] of its pen.
"""

from __future__ import annotations

from spurbench.mini.drawing import Draw
from spurbench.mini.kinds import flags, flowers, fountains, houses, trees, walls

KINDS: dict[str, dict[str, Draw]] = {
    "flower": flowers.SUBFAMILIES,
    "wall": walls.SUBFAMILIES,
    "fountain": fountains.SUBFAMILIES,
    "house": houses.SUBFAMILIES,
    "flag": flags.SUBFAMILIES,
    "tree": trees.SUBFAMILIES,
}
"""Kind to sub-family to how it is drawn; the first sub-family is the planted feature."""
