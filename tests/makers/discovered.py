"""A discovery's folder as `discover` writes it, of nothing but noise."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from makers.toy import noise_images
from spurbench.classifiers.info import ClassifierInfo, Preprocessing
from spurbench.core.imagenet import imagenet_names, imagenet_wnids
from spurbench.discovery.documents import (
    CLASS,
    COMPONENTS,
    DISCOVERY,
    ClassFound,
    Component,
    Discovery,
    Feature,
    Listed,
    Picture,
    Settings,
    class_folder,
    write_listing,
)
from spurbench.discovery.neural_pca import Components, Moments


def save_discovery(folder: Path, classes: tuple[int, ...] = (94, 105), count: int = 2) -> Path:
    """Components of some classes, two pictures each."""
    folder.mkdir()
    discovery = Discovery(
        classifier=ClassifierInfo(
            spec="toy",
            name="toy <b>network</b>",
            source="folder",
            architecture="resnet10t",
            parameters=1,
            head="imagenet-1k",
            weights_sha256="0" * 64,
        ),
        preprocessing=Preprocessing(
            mode="whole",
            resize=(32,),
            crop=(32, 32),
            interpolation="bicubic",
            mean=(0, 0, 0),
            std=(1, 1, 1),
        ),
        images="nowhere",
        settings=Settings(components=count, top=2),
        versions={},
    )
    (folder / DISCOVERY).write_text(discovery.model_dump_json(by_alias=True))
    for index in classes:
        _save_class(folder / class_folder(index), index, count)
    return folder


def _save_class(folder: Path, index: int, count: int) -> None:
    folder.mkdir()
    paths = [f"{imagenet_wnids()[index]}/{i}.png" for i in range(2)]
    shas = [hashlib.sha256(path.encode()).hexdigest() for path in paths]
    components = []
    for number in range(1, count + 1):
        name = f"component_{number:02d}"
        (folder / name).mkdir()
        files = ["top_1.jpg", "heat_1.jpg", "top_2.jpg", "heat_2.jpg", "feature_grey.jpg"]
        for file, image in zip(files, noise_images(5, index + number), strict=True):
            image.save(folder / name / file)
        components.append(
            Component(
                number=number,
                variance=0.5 / number,
                sum=1.5,
                pictures=tuple(
                    Picture(
                        path=paths[i],
                        sha256=shas[i],
                        alpha=2.0 - i,
                        probability=0.5,
                        file=f"{name}/top_{i + 1}.jpg",
                        heat=f"{name}/heat_{i + 1}.jpg",
                    )
                    for i in range(2)
                ),
                features=(
                    Feature(
                        start="grey", alpha=3.0, probability=0.9, file=f"{name}/feature_grey.jpg"
                    ),
                ),
            )
        )
    found = ClassFound(
        index=index,
        wnid=imagenet_wnids()[index],
        name=imagenet_names()[index],
        images=2,
        damaged=(),
        components=tuple(components),
    )
    (folder / CLASS).write_text(found.model_dump_json(by_alias=True))
    write_listing(folder, tuple(Listed(path=p, sha256=s) for p, s in zip(paths, shas, strict=True)))
    moments = Moments(4)
    moments.add(np.eye(4)[:2])
    Components.of(moments, np.ones(4), count).save(folder / COMPONENTS, np.zeros((2, count)))
