"""`spurbench report`: tables, figures and one page, from a dataset and the results on it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from spurbench.core import atomic
from spurbench.core.documents import read_bytes, read_json, validated
from spurbench.core.errors import SpurbenchError
from spurbench.dataset.manifest import Manifest, read_rows
from spurbench.dataset.quality import available, score
from spurbench.dataset.rows import Row
from spurbench.evaluation.files import result_files
from spurbench.evaluation.results import SCHEMA, Result
from spurbench.images.decode import decode_rgb
from spurbench.images.records import SPLITS, DatasetInfo, Split
from spurbench.images.sources import open_images
from spurbench.studies.ablation.results import Ablation
from spurbench.studies.contexts.study import study
from spurbench.studies.probe.results import PICTURE, Probe
from spurbench.studies.probe.tables import tables as probe_tables
from spurbench.studies.report import page, pictures, tables
from spurbench.studies.report.parts import KINDS, Kind, Picture, Section
from spurbench.studies.report.table import Table

log = logging.getLogger(__name__)

WITHOUT_WEIGHTS = "piqe"
"""A quality metric that needs none (Venkatanath et al. 2015); lower is better."""


def report(
    dataset: Path,
    results: Sequence[Path],
    output: Path,
    *,
    ablation: Path | None = None,
    probe: Path | None = None,
    metrics: Sequence[str] = (),
    images: int = 5,
    detector: str | None = None,
    device: torch.device,
) -> list[Path]:
    """Write the report of a dataset.

    Args:
        dataset: folder that ``spurbench build`` made.
        results: results of ``spurbench eval`` on it, JSONs or folders of them; those on other data
            are passed over.
        output: ``report.html``, and a CSV and LaTeX of each table, an SVG and PNG of each figure.
        ablation: ``ablation.json``, for its table.
        probe: ``probe.json`` of ``spurbench probe`` on the dataset, for its tables and its picture.
        metrics: quality metrics that pyiqa knows; none: those that the dataset has, or where it has
            no scores, one that needs no weights.
        images: of each class and split in the figures, the first by their sha256.
        detector: who says whether contexts show, see
            :func:`spurbench.studies.contexts.study.study`.
        device: where metrics are computed, and the detector runs.

    Returns:
        The files written.

    Raises:
        SpurbenchError: if there is no dataset, no result on it, or a file is damaged.
    """
    manifest, rows = Manifest.read(dataset), read_rows(dataset)
    info = open_images(str(dataset), decode=False).info
    found = _results(results, info)
    probed = _probe(probe, info) if probe is not None else None
    splits: dict[Split, Sequence[Row]] = {split: rows[split] for split in SPLITS}
    sections = [
        Section(
            "spurious",
            "Spurious accuracy",
            "Each image shows the spurious feature of a class and not its object. Spurious "
            "accuracy is the share of images that a classifier calls the class all the same: lower "
            "is better.",
            [tables.spurious_accuracy(found), tables.classifiers(found)],
            list(_figures(splits, found, images)),
        )
    ]
    if ablation is not None:
        brings = tables.ablation(validated(Ablation, read_json(ablation), str(ablation)))
        text = "The same generator made with and without each part of the method."
        sections.append(Section("parts", "What each part brings", text, [brings]))
    scores, notes = _scores(splits, [*manifest.quality], metrics, device)
    sections.append(
        Section(
            "looks",
            "Image quality",
            "How good the images look to a metric that needs no original to compare with.",
            [tables.quality(splits, scores, notes)],
        )
    )
    of_contexts, picture = study(manifest, rows, detector=detector, device=device)
    if picture is not None:
        caption = (
            "What was learnt, without a context and in each (the paper's Fig. 5): of every class "
            "the first noise, and how many of the panel call the image the class"
        )
        sections.append(
            Section(
                "places",
                "In other places",
                "What was learnt is asked for in other places, from the noise of images that were "
                "asked for without one. Does it still fool classifiers?",
                of_contexts,
                [Picture.of("contexts", caption, picture)],
            )
        )
    if probed is not None:
        sections.append(
            Section(
                "aspects",
                "Colour, shape or texture",
                "What makes the feature spurious? Images are edited, one aspect at a time, or "
                "sampled anew of other prompts, and classifiers are asked again. The more answers "
                "change, the more they hung on what was taken away.",
                *probed,
            )
        )
    files: dict[str, bytes] = {}
    for section in sections:
        for table in section.tables:
            files[f"{table.name}.csv"] = table.csv().encode()
            files[f"{table.name}.tex"] = table.latex().encode()
        for drawn in section.pictures:
            files |= {f"{drawn.name}.{kind}": content for kind, content in drawn.files.items()}
    files["report.html"] = page.render(manifest, info, sections).encode()
    for name, content in files.items():
        atomic.write_bytes(output / name, content)
    return [output / name for name in files]


def _probe(path: Path, info: DatasetInfo) -> tuple[list[Table], list[Picture]]:
    """The tables of a dataset's probe, and its picture, which lies beside it.

    Raises:
        SpurbenchError: if it is of other images, or a file is missing.
    """
    probed = Probe.read(path)
    if probed.dataset.fingerprint != info.fingerprint:
        raise SpurbenchError(
            f"{path} is a probe of other images ({probed.dataset.name}) than {info.name} holds; "
            "`spurbench probe` this dataset"
        )
    files: dict[Kind, bytes] = {}
    for kind in KINDS:
        beside = path.with_name(f"{PICTURE}.{kind}")
        try:
            files[kind] = read_bytes(beside)
        except FileNotFoundError:
            raise SpurbenchError(
                f"{beside} is missing; `spurbench probe` writes it beside {path.name}"
            ) from None
    caption = f"{probed.caption} (after the paper's Fig. 6)"
    return probe_tables(probed), [Picture(PICTURE, caption, files)]


def _results(paths: Sequence[Path], info: DatasetInfo) -> list[Result]:
    """Results on the dataset, one a classifier, in the order of their labels.

    Raises:
        SpurbenchError: if there is none, or two are of the same name.
    """
    found: dict[str, Result] = {}
    others = 0
    for file in result_files(paths, (SCHEMA,)):
        result = Result.read(file)
        if result.dataset.fingerprint != info.fingerprint:
            others += 1
            continue
        if result.label in found and found[result.label] != result:
            raise SpurbenchError(
                f"two results of {result.label} on this dataset; name the one that is meant: {file}"
            )
        found[result.label] = result
    if not found:
        raise SpurbenchError(
            f"no result on {info.name} in {', '.join(map(str, paths))} ({others} on other data); "
            "`spurbench eval --data` it first"
        )
    if others:
        log.info("%d results on other data are passed over", others)
    return [found[label] for label in sorted(found)]


def _scores(
    rows: Mapping[Split, Sequence[Row]],
    stored: Sequence[str],
    wanted: Sequence[str],
    device: torch.device,
) -> tuple[dict[str, Callable[[Row], float | None]], list[str]]:
    """The scores of references and generated images by metric, and what to say of them."""
    notes = []
    metrics = list(wanted) or [
        m for m in stored if any(r.quality.get(m) is not None for r in rows["generated"])
    ]
    if not metrics:
        metrics = [WITHOUT_WEIGHTS]
        lacking = (
            f"{', '.join(stored)}: no scores, its weights were not at hand; " if stored else ""
        )
        notes.append(f"{lacking}{WITHOUT_WEIGHTS} needs no weights (lower is better).")
    measured = [m for m in metrics if m not in stored or m in wanted]
    possible = available(measured, device) if measured else frozenset()
    scores: dict[str, Callable[[Row], float | None]] = {}
    for metric in metrics:
        if metric not in measured:
            scores[metric] = partial(_stored, metric)
        elif metric in possible:
            asked = [*(r for r in rows["real"] if r.is_reference), *rows["generated"]]
            values = score((decode_rgb(r.read()) for r in asked), metric, device)
            known = dict(zip((r.image_sha256 for r in asked), values, strict=True))
            scores[metric] = partial(_measured, known)
        else:
            notes.append(f"{metric} can't be computed here: pyiqa or its weights are missing.")
    return scores, notes


def _stored(metric: str, row: Row) -> float | None:
    return row.quality.get(metric)


def _measured(known: Mapping[str, float], row: Row) -> float | None:
    return known.get(row.image_sha256)


def _figures(
    rows: Mapping[Split, Sequence[Row]], results: Sequence[Result], count: int
) -> Sequence[Picture]:
    """Fig. 1 and 4, and the images on which classifiers disagree."""
    made = []
    columns = count * max(1, 6 // count)  # as many classes in a row as there is room for
    for split in SPLITS:
        images = pictures.asked(rows[split], results, split)
        if not images:
            continue
        made.append(
            Picture.of(
                f"answers-{split}",
                f"{split.capitalize()} images and what each classifier calls them, in colour where "
                f"it is the class (the paper's Fig. 1 and 4): the first {count} of each class by "
                "their sha256",
                pictures.answers_figure(pictures.first(images, count), columns),
            )
        )
        if split == "generated" and (chosen := pictures.disputed(images, 2 * count)):
            made.append(
                Picture.of(
                    "disagreement",
                    f"The {len(chosen)} generated images on which the classifiers disagree most: "
                    "nearest to half of them call it the class, then by the spread of its "
                    "probability",
                    pictures.answers_figure(chosen, columns),
                )
            )
    return made
