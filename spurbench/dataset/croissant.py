"""Croissant metadata (MLCommons, version 1.0) with its responsible-AI vocabulary.

The fields are those of https://docs.mlcommons.org/croissant/docs/croissant-spec.html and
https://docs.mlcommons.org/croissant/docs/croissant-rai-spec.html.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import yaml

from spurbench.core.markdown import plain
from spurbench.core.resources import card_templates
from spurbench.dataset import card
from spurbench.dataset.rows import ANSWER, PartName, describe_columns, place

if TYPE_CHECKING:
    import jinja2

FILE = "croissant.json"

CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The specification's own, which its readers compare with."""

DATA_TYPES = {
    "string": "sc:Text",
    "int64": "sc:Integer",
    "class label": "sc:Integer",
    "float64": "sc:Float",
    "bool": "sc:Boolean",
}


def metadata(edition: card.Edition) -> dict[str, Any]:
    """The document, as JSON values.

    Every parquet file is listed with its hash; a record set per part (SPLIT, curated-SPLIT) reads
    the part's files from the folder that holds the document.
    """
    provenance = edition.provenance
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [
            "http://mlcommons.org/croissant/1.0",
            "http://mlcommons.org/croissant/RAI/1.0",
        ],
        "name": f"spurbench-{edition.name}",
        "version": edition.version,
        "description": "Images of spurious features: things that are not a class but make ImageNet "
        "classifiers answer it. Real ones, and new ones from a fine-tuned text-to-image model. "
        + plain(provenance.recipe["description"]),
        "keywords": ["spurious features", "robustness", "ImageNet", "synthetic images"],
        "license": [*card.licence_lines(provenance)],
        "citeAs": card.citations(),
        "isLiveDataset": False,
        **_responsible_ai(edition),
        "distribution": [*_files(edition), *_file_sets(edition)],
        "recordSet": [_record_set(part, edition) for part in edition.parts],
    }


def _responsible_ai(edition: card.Edition) -> dict[str, Any]:
    def render(template: jinja2.Template) -> str:
        return template.render(
            provenance=edition.provenance,
            recipe=edition.provenance.recipe,
            quality=edition.quality,
            configs={place(part)[0] for part in edition.parts},
        )

    return {
        name: render(text)
        if not isinstance(text, list)
        else [line for entry in text for line in render(entry).split("\n") if line]
        for name, text in _prose().items()
    }


@cache
def _prose() -> dict[str, jinja2.Template | list[jinja2.Template]]:
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    environment.filters["plain"] = plain
    prose = yaml.safe_load((card_templates() / "responsible_ai.yaml").read_text(encoding="utf-8"))
    return {
        name: environment.from_string(text)
        if isinstance(text, str)
        else [environment.from_string(entry) for entry in text]
        for name, text in prose.items()
    }


def _files(edition: card.Edition) -> Iterator[dict[str, Any]]:
    for facts in edition.parts.values():
        for path, digest in facts.files.items():
            yield {
                "@type": "cr:FileObject",
                "@id": path,
                "name": path,
                "contentUrl": path,
                "encodingFormat": "application/x-parquet",
                "sha256": digest,
            }


def _file_sets(edition: card.Edition) -> Iterator[dict[str, Any]]:
    for part in edition.parts:
        yield {
            "@type": "cr:FileSet",
            "@id": f"files-of-{part}",
            "name": f"files-of-{part}",
            "description": f"Parquet files of {part}.",
            "encodingFormat": "application/x-parquet",
            "includes": f"data/{part}-*.parquet",
        }


def _record_set(part: PartName, edition: card.Edition) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": part,
        "name": part,
        "description": f"The {edition.parts[part].rows} rows of {part}.",
        "field": [
            _field(part, name, kind, meaning)
            for name, (kind, meaning) in describe_columns(edition.quality).items()
        ],
    }


def _field(part: str, name: str, kind: str, meaning: str) -> dict[str, Any]:
    source: dict[str, Any] = {
        "fileSet": {"@id": f"files-of-{part}"},
        "extract": {"column": name},
    }
    field = {
        "@type": "cr:Field",
        "@id": f"{part}/{name}",
        "name": name,
        "description": meaning,
    }
    if kind == "image":
        source["transform"] = {"jsonPath": "bytes"}
        return {**field, "dataType": "sc:ImageObject", "source": source}
    if kind == "list of structs":
        return {
            **field,
            "repeated": True,
            "subField": [
                {
                    "@type": "cr:Field",
                    "@id": f"{part}/{name}/{key}",
                    "name": key,
                    "dataType": DATA_TYPES[kind_of],
                    "repeated": True,
                    "source": {**source, "transform": {"jsonPath": f"[*].{key}"}},
                }
                for key, kind_of in ANSWER.items()
            ],
        }
    return {**field, "dataType": DATA_TYPES[kind], "source": source}
