from __future__ import annotations

from spurbench.studies.ablation.report import classes_at_or_above_real, render_markdown
from spurbench.studies.ablation.results import Ablation

MEASURES = {
    "spurious_accuracy": 0.5,
    "consistently_spurious": 0.25,
    "object_absent": 1.0,
    "feature_present": None,
    "novelty": 0.875,
    "diversity": 0.1234,
}
SECONDS = {"seconds": 61.4}
ALONE = {"mean": 0.5, "low": None, "high": None}
DIFFERENCE = {"mean": -0.25, "low": -0.5, "high": 0.0}


def _found(name: str, description: str) -> dict:
    compared = {"seeds": [0.5], "spurious_accuracy": ALONE, "against_baseline": DIFFERENCE}
    known = {**MEASURES, **SECONDS}
    return {
        "name": name,
        "description": description,
        "overrides": ["sfsl.kappa=0"],
        "summary": {
            key: None if value is None else {"mean": value, "low": 0.0, "high": 1.0}
            for key, value in known.items()
        },
        "against_baseline": dict.fromkeys(known, DIFFERENCE),
        "classifiers": {"vit": compared, "robust": compared},
        "parts": {"phi": compared, "panel": compared},
        "classes": {"koala": known, "gondola": known | {"spurious_accuracy": 0.4}},
        "seeds": {"0": {"koala": known, "gondola": known}},
    }


DOCUMENT = {
    "schema": "spurbench.ablation/2",
    "recipe": "toy",
    "overrides": [],
    "baseline": "plain",
    "seeds": [0],
    "device": "cpu",
    "feature_space": "features",
    "classifiers": {"vit": "panel", "robust": "phi"},
    "unseen": [],
    "versions": {"torch": "2"},
    "real": {
        "classes": {"koala": MEASURES, "gondola": MEASURES},
        "mean": MEASURES,
        "classifiers": {"vit": 0.75, "robust": 0.25},
        "parts": {"phi": 0.25, "panel": 0.75},
    },
    "rows": [_found("plain", "no <b>"), _found("more", "+ more")],
}

TABLES = """
| row | spurious accuracy | consistently spurious | object absent | feature present | novelty | \
diversity | seconds | against baseline | classes |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| real images | 50.0 | 25.0 | 100.0 |  | 87.5 | 0.123 |  |  |  |
| no &lt;b&gt; | 50.0 [0.0, 100.0] | 25.0 [0.0, 100.0] | 100.0 [0.0, 100.0] |  | 87.5 [0.0, 100.0] \
| 0.123 [0.000, 1.000] | 61 [0, 1] |  | 1/2 |
| + more | 50.0 [0.0, 100.0] | 25.0 [0.0, 100.0] | 100.0 [0.0, 100.0] |  | 87.5 [0.0, 100.0] \
| 0.123 [0.000, 1.000] | 61 [0, 1] | -25.0 [-50.0, 0.0] | 1/2 |
| spurious accuracy | koala | gondola |
| --- | ---: | ---: |
| real images | 50.0 | 50.0 |
| no &lt;b&gt; | 50.0 | 40.0 |
| + more | 50.0 | 40.0 |
| spurious accuracy | robust (phi) | vit (panel) | phi, against baseline | panel, against baseline |
| --- | ---: | ---: | ---: | ---: |
| real images | 25.0 | 75.0 |  |  |
| no &lt;b&gt; | 50.0 | 50.0 |  |  |
| + more | 50.0 | 50.0 | -25.0 [-50.0, 0.0] | -25.0 [-50.0, 0.0] |
"""


def test_a_document_is_rendered_as_its_tables():
    ablation = Ablation.model_validate(DOCUMENT)
    assert ablation.as_json() == DOCUMENT
    text = render_markdown(ablation)
    assert "\n".join(line for line in text.splitlines() if line.startswith("|")) == TABLES.strip()


def test_the_number_of_classes_at_or_above_real():
    ablation = Ablation.model_validate(DOCUMENT)
    assert [classes_at_or_above_real(ablation.real, row) for row in ablation.rows] == [1, 1]
    assert (
        classes_at_or_above_real(
            ablation.real, ablation.rows[0].model_copy(update={"classes": ablation.real.classes})
        )
        == 2
    )
