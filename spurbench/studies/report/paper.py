"""What the paper printed, to stand beside what is measured."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from pydantic import Field

from spurbench.core.documents import Document, read_toml, validated

Pair = tuple[float, float]


class PaperClassifier(Document):
    """A column of Table 1."""

    classifier: str = Field(description="name of the weights, as results have it")
    classes: dict[int, Pair] = Field(description="per cent by class index: real, generated")


class Paper(Document):
    """The tables of arXiv 2402.08200."""

    source: str
    table1: tuple[PaperClassifier, ...]
    table2: dict[str, float] = Field(description="per cent by row of the ablation")
    table3: dict[int, Pair] = Field(description="TOPIQ-NR by class index: references, generated")

    def spurious_accuracy(self, classifier: str, index: int) -> Pair | None:
        """Shares on real and generated images, in [0, 1]; None where the paper has none."""
        for column in self.table1:
            if column.classifier == classifier and (printed := column.classes.get(index)):
                return round(printed[0] / 100, 4), round(printed[1] / 100, 4)
        return None


@cache
def paper() -> Paper:
    """The paper's tables, as they travel with the package."""
    path = Path(str(files("spurbench") / "studies" / "report" / "paper.toml"))
    return validated(Paper, read_toml(path), path.name)
