"""Commands that find spurious features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spurbench.cli.options import device_option, engine_options
from spurbench.cli.tables import show
from spurbench.cli.terminal import say, silence_libraries
from spurbench.core.errors import SpurbenchError

if TYPE_CHECKING:
    from rich.table import Table

    from spurbench.discovery.discover import Discovered


class _RunsUnlessTold(click.Group):
    """A group whose command ``run`` need not be named: ``discover --model SPEC``."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        if arguments[:1] and arguments[0] not in (*self.commands, *context.help_option_names):
            arguments = ["run", *arguments]
        return super().parse_args(context, arguments)


@click.group(cls=_RunsUnlessTold)
def discover() -> None:
    """Find a classifier's spurious features.

    \b
    spurbench discover --model SPEC --images FOLDER    find components (short for discover run)
    spurbench discover supervise DISCOVERY             look at them in the browser and label them
    spurbench discover export DISCOVERY OUTPUT         classes.toml and references for build
    """


@discover.command()
@click.option("--model", "spec", required=True, metavar="SPEC[=CHECKPOINT]", help="As in eval.")
@click.option(
    "--images",
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Training images in ImageNet's layout: folders named by WordNet id or class index.",
)
@click.option(
    "--classes",
    default="all",
    show_default=True,
    help="all that there are images of, or names and indices: hummingbird,565.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("out/discovery"),
    show_default=True,
    help="The discovery's folder.",
)
@click.option(
    "--components",
    type=click.IntRange(1, 1000),
    default=10,
    show_default=True,
    help="Of each class, by falling variance.",
)
@click.option(
    "--top",
    type=click.IntRange(1, 100),
    default=8,
    show_default=True,
    help="Images that are shown of each component.",
)
@click.option(
    "--features/--no-features",
    default=True,
    show_default=True,
    help="Make components visible by maximising them: for adversarially robust classifiers.",
)
@click.option(
    "--radius",
    type=click.FloatRange(0, 1e4, min_open=True),
    help="L2 ball of that. [default: 30 for 224 x 224 pixels, scaled to the input]",
)
@click.option(
    "--preprocess",
    type=click.Choice(["whole", "model"]),
    default="whole",
    show_default=True,
    help="As in eval.",
)
@click.option("--batch-size", type=click.IntRange(min=1), help="[default: by the device]")
@engine_options
@device_option
def run(
    spec: str,
    images: Path,
    classes: str,
    output: Path,
    components: int,
    top: int,
    features: bool,
    radius: float | None,
    preprocess: Any,
    batch_size: int | None,
    engine: Any,
    workers: int | None,
    address: str | None,
    engine_options: Path | None,
    device: str,
) -> None:
    """Split each class's logit into neural PCA components, and show what they are.

    The same command goes on after an interruption. A class that fails does not stop the others;
    the exit status is then 1.
    """
    from spurbench.discovery.discover import DiscoveryRequest
    from spurbench.discovery.discover import discover as find
    from spurbench.discovery.documents import Settings

    settings = Settings(
        components=components, top=top, features=features, radius=radius, preprocess=preprocess
    )
    request = DiscoveryRequest.of(spec, images, classes=classes, output=output, settings=settings)
    silence_libraries()
    found = find(
        request,
        device=device,
        batch_size=batch_size,
        engine=engine,
        workers=workers,
        address=address,
        options=engine_options,
    )
    if found.done:
        show(_table(found))
        say(f"Look at them: spurbench discover supervise {output}")
    for name, why in found.failed.items():
        say(f"failed: {name}: {why}", error=True)
    if found.failed:
        raise SpurbenchError(
            f"{len(found.failed)} of {len(request.classes)} classes failed: "
            f"{', '.join(found.failed)}; the same command tries them again"
        )


@discover.command()
@click.argument("discovery", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8017,
    show_default=True,
    help="Of this machine alone; 0: any that is free.",
)
def supervise(discovery: Path, port: int) -> None:
    """Label components in the browser: spurious or not, and where the object is."""
    from spurbench.discovery.supervise.app import serve

    serve(discovery, port, lambda address: say(f"Open {address}  (end with Ctrl+C)"))


@discover.command()
@click.argument("discovery", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("output", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--pool",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Images in which candidates are looked for by their alpha: a folder in ImageNet's layout, "
    "of which a class's own images are left out, or of images.",
)
@click.option(
    "--confirm",
    multiple=True,
    metavar="SPEC[=CHECKPOINT]",
    help="Another classifier: does it call the candidates the class? Repeatable.",
)
@click.option(
    "--candidates",
    type=click.IntRange(min=1),
    default=75,
    show_default=True,
    help="Of each class, at most.",
)
@click.option(
    "--extends",
    metavar="RECIPE",
    help="Write a recipe.toml too, which is this embedded recipe with the pairs found: "
    "build --recipe OUTPUT.",
)
@device_option
def export(
    discovery: Path,
    output: Path,
    pool: Path | None,
    confirm: tuple[str, ...],
    candidates: int,
    extends: str | None,
    device: str,
) -> None:
    """Write components that all who labelled them call spurious to OUTPUT, for build --data."""
    silence_libraries()

    from spurbench.core.environment import choose_device

    chosen = choose_device(device)

    from spurbench.discovery import export as exporting

    written = exporting.export(
        discovery,
        output,
        pool=pool,
        confirm=confirm,
        count=candidates,
        extends=extends,
        device=chosen,
    )
    for pair in written.pairs:
        shares = "".join(f"; {name} calls {s:.0%} the class" for name, s in pair.called.items())
        by_all = "" if pair.by_all is None else f"; all do {pair.by_all}"
        say(f"{pair.folder}: {len(pair.candidates)} candidates{shares}{by_all}")
    say(f"Wrote {output}")


def _table(found: Discovered) -> Table:
    from rich.table import Table

    from spurbench.discovery.documents import read_class

    table = Table(title=f"Components in {found.output}", title_justify="left")
    for heading in ("class", "images", "damaged", "components", "their share of the variance"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for name in found.done:
        of = read_class(found.output / name)
        share = sum(component.variance for component in of.components)
        cells = (name, str(of.images), str(len(of.damaged)), str(len(of.components)))
        table.add_row(*cells, f"{share:.1%}")
    return table
