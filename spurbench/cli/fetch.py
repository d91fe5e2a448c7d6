"""The command that gets photographs."""

from __future__ import annotations

from pathlib import Path

import click

from spurbench.cli.options import FOLDER
from spurbench.cli.terminal import say


@click.command()
@click.argument("what", type=click.Choice(["spurious-imagenet"]))
@click.option("--from", "url", help="Address of the archive. [default: its authors']")
@click.option(
    "--to",
    "folder",
    type=FOLDER,
    help="Folder of the class folders. [default: spurious-imagenet in SPURBENCH_HOME, or in the "
    "user's folder of data]",
)
@click.option("--sha256", metavar="HEX", help="Refuse an archive of another sha256.")
def fetch(what: str, url: str | None, folder: Path | None, sha256: str | None) -> None:
    """Get the official Spurious ImageNet: 100 folders of 75 photographs.

    The same command goes on after an interruption; what is there already is verified.
    """
    from spurbench.images import official

    place = official.fetch(folder, url=official.URL if url is None else url, sha256=sha256)
    record = place.fetched
    if place.is_new:
        say(f"Wrote {place.folder}, out of an archive of {record.bytes / 1e6:,.1f} MB.")
    else:
        say(f"{place.folder} is there; every file is as it was fetched on {record.date}.")
    say(f"sha256 of the archive: {record.sha256}")
    if official.fetched_folder() == place.folder:
        say("spurbench eval measures on it unless --data names another.")
    else:
        say(
            f"Measure on it: spurbench eval --data {place.folder}, or SPURBENCH_DATA={place.folder}"
        )
