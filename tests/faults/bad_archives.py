"""Bad archives of photographs, servers that break off, and what is at hand and can't be used."""

from __future__ import annotations

import json
import os
import random
import stat
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from faults.archive import IMAGES, URL, served
from faults.bad_documents import RAW_JSON
from faults.case import Case
from faults.generate import as_json, changed, damaged, examples
from faults.world import World
from makers.photographs import official_archive, with_entries, without

FOLDER = "images/spurious_class_094_hummingbird_component_2"
FETCH = ("fetch", "spurious-imagenet", "--from", URL, "--to", "f")
RECORD = {
    "schema": "spurbench.fetched/1",
    "url": URL,
    "bytes": 1,
    "sha256": "1" * 64,
    "images": "2" * 64,
    "date": "2024-02-13T00:00:00+00:00",
}


def cases(world: World) -> Iterator[Case]:
    """Archives, servers, earlier fetches, and an evaluation of what is at hand."""
    yield from _archives()
    yield from _servers()
    yield from _earlier()
    yield from _at_hand(world)


def _archives() -> Iterator[Case]:
    sound = official_archive(IMAGES)
    link = zipfile.ZipInfo(f"{FOLDER}/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    device = zipfile.ZipInfo(f"{FOLDER}/device.png")
    device.external_attr = (stat.S_IFCHR | 0o777) << 16
    held: dict[str, tuple[zipfile.ZipInfo | str, bytes]] = {
        name: (name, b"x")
        for name in (
            "../OUTSIDE.png",
            "/OUTSIDE.png",
            "images/../../OUTSIDE.png",
            "..\\OUTSIDE.png",
            "C:\\OUTSIDE.png",
            f"{FOLDER}/0.png",
            f"{FOLDER}/2.png",
            f"{FOLDER}/IMAGE\nError: forged.png",
            f"{FOLDER}/\x1b[2J.png",
            f"again/{FOLDER}/0.png",
            f"{FOLDER}/{'n' * 400}.png",
            "images/spurious_class_²_x_component_1/0.png",
            "images/spurious_class_001_goldfish_component_1/0.png",
        )
    }
    held |= {"a link": (link, b"/etc/passwd"), "a device": (device, b"")}
    held |= {"a bomb": (f"{FOLDER}/bomb.png", bytes(200_000_000))}
    archives: dict[str, bytes] = {
        "empty": b"",
        "HTML": b"<html>No such share</html>",
        "no entries": b"PK\x05\x06" + bytes(18),
        "a class lacks": without(sound, FOLDER),
        "an image lacks": without(sound, f"{FOLDER}/1.png"),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's, of a name twice
        archives |= {name: with_entries(sound, entry) for name, entry in held.items()}
    # Half way and at the directory at its end, where a zip archive can be hurt most.
    archives |= {f"damage {i}": d for i, d in enumerate(examples(damaged(sound), 8))}
    for i in range(6):
        at = random.Random(i).randrange(len(sound) - 30_000, len(sound))
        archives[f"bit {i} of its directory"] = (
            sound[:at] + bytes([sound[at] ^ 1 << i % 8]) + sound[at + 1 :]
        )
    lasting = ("damage", "bit")  # which may meet a comment, a date, or what is no image
    for name, data in archives.items():
        yield Case(
            "archive",
            repr(name[:60]),
            FETCH,
            takes="any" if name.startswith(lasting) else "refused",
            output=("f/", "f.json"),
            before=served(data),
        )


def _servers() -> Iterator[Case]:
    sound = official_archive(IMAGES)
    faults: dict[str, dict[str, Any]] = {
        "404": {"statuses": [404]},
        "403 after a cut": {"cuts": [1000], "statuses": []},
        "500 for ever": {"statuses": [500] * 50},
        "503 twice": {"statuses": [503, 503]},
        "a status of no file": {"statuses": [204] * 50},
        "416": {"statuses": [416] * 50},
        "cut at once, for ever": {"cuts": [0] * 50},
        "cut thrice": {"cuts": [1000, 2000, 3000]},
        "cut, and no ranges": {"cuts": [1000, 2000], "ranges": False},
        "cut, and no validator": {"cuts": [1000], "etag": None},
        "a weak validator": {"cuts": [1000], "etag": 'W/"1"'},
        "a length too large": {"lies": 1000},
        "a length too small": {"lies": -1000},
        "an absurd length": {"lies": 10**15},
        "no length": {"says_length": False},
        "no length, and cut": {"says_length": False, "cuts": [1000] * 50},
        "to a file": {"redirects": {"/images.zip": "file:///etc/passwd"}},
        "to itself": {"redirects": {"/images.zip": "/images.zip"}},
        "to nowhere": {"redirects": {"/images.zip": "http://[/"}},
        "to FTP": {"redirects": {"/images.zip": "ftp://x/y"}},
    }
    for name, settings in faults.items():
        yield Case(
            "server",
            name,
            FETCH,
            output=("f/", "f.json"),
            keeps=(".f.zip",),  # what arrived, to go on from
            before=served(sound, **settings),
        )


def _earlier() -> Iterator[Case]:
    """What an earlier fetch is said to have left."""
    sound = official_archive(IMAGES)

    def lying(file: str, data: bytes) -> Callable[[Path], None]:
        def lay(folder: Path) -> None:
            (folder / file).write_bytes(data)
            if file == ".f.zip.json":
                (folder / ".f.zip").write_bytes(b"PK junk")

        return lay

    state = {"url": URL, "etag": '"1"', "modified": None, "length": len(sound)}
    for file, document in (("f.json", RECORD), (".f.zip.json", state)):
        texts = [(f"change {i}", as_json(d)) for i, d in enumerate(examples(changed(document), 6))]
        for name, data in [*((n, t.encode()) for n, t in texts), *RAW_JSON.items()]:
            yield Case(
                "earlier fetch",
                f"{file}, {name}",
                FETCH,
                lying(file, data),
                output=("f/", "f.json"),
                before=served(sound),
            )
    places: dict[str, Callable[[Path], object]] = {
        "a file": lambda path: path.write_text("mine"),
        "somebody's folder": lambda path: (path.mkdir(), (path / "mine").write_text("mine")),
        "a FIFO": os.mkfifo,
        "a link to itself": lambda path: path.symlink_to(path.name),
        "a dangling link": lambda path: path.symlink_to("nowhere"),
    }
    for file in ("f", "f.json", ".f.zip", ".f.zip.json"):
        for name, lay in places.items():
            yield Case(
                "earlier fetch",
                f"{file} is {name}",
                FETCH,
                lambda folder, file=file, lay=lay: lay(folder / file) and None,
                output=("f/", "f.json", "nowhere"),
                before=served(sound),
            )


def _at_hand(world: World) -> Iterator[Case]:
    """``eval`` without ``--data``."""
    bare = ("eval", "--model", str(world.model))
    manifest = json.loads((world.dataset / "spurbench.json").read_text(encoding="utf-8"))

    def built(data: bytes) -> Callable[[Path], None]:
        def lay(folder: Path) -> None:
            (folder / "out" / "toy").mkdir(parents=True)
            (folder / "out" / "toy" / "spurbench.json").write_bytes(data)

        return lay

    texts = [(f"change {i}", as_json(d)) for i, d in enumerate(examples(changed(manifest), 6))]
    older = as_json({**manifest, "schema": "spurbench.dataset/1"})
    wild = as_json({**manifest, "version": "9" * 5000 + ".0.0"})
    texts += [("of an older spurbench", older), ("an absurd version", wild), ("alone", "{}")]
    for name, data in [*((n, t.encode()) for n, t in texts), *RAW_JSON.items()]:
        yield Case("at hand", f"a manifest, {name}", bare, built(data), takes="refused")

    def named(value: str) -> Callable[[], None]:
        return lambda: os.environ.__setitem__("SPURBENCH_DATA", value)

    for value in (
        "/",
        "nowhere",
        "/dev/zero",
        "x\nError: forged",
        "x" * 5000,
        "a/b",
        " ",
        "\udcff",
    ):
        before = named(value)
        yield Case(
            "at hand", f"SPURBENCH_DATA {value[:20]!r}", bare, takes="refused", before=before
        )

    def fetched(data: bytes) -> Callable[[Path], None]:
        def lay(folder: Path) -> None:
            (folder / "home" / "spurious-imagenet").mkdir(parents=True)
            (folder / "home" / "spurious-imagenet.json").write_bytes(data)

        return lay

    for name, data in (("an empty folder", as_json(RECORD).encode()), ("no record", b"junk")):
        yield Case("at hand", f"fetched: {name}", bare, fetched(data), takes="refused")
    for name, lay in {
        "nothing": lambda folder: None,
        "out is a file": lambda folder: (folder / "out").write_text("mine"),
        "out is a link to itself": lambda folder: (folder / "out").symlink_to("out"),
        "a manifest is a FIFO": lambda folder: (
            (folder / "out" / "x").mkdir(parents=True),
            os.mkfifo(folder / "out" / "x" / "spurbench.json"),
        ),
        "a manifest is a folder": lambda folder: (folder / "out" / "x" / "spurbench.json").mkdir(
            parents=True
        ),
    }.items():
        for more in ((), ("--split", "generated"), ("--config", "curated", "--json")):
            arguments = (*bare, *more)
            prepare = lambda folder, lay=lay: lay(folder) and None  # noqa: E731
            yield Case("at hand", f"{name} {' '.join(more)}", arguments, prepare, takes="refused")
