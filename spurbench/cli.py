"""The command line: parse, call, print."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spurbench import __version__
from spurbench.errors import SpurbenchError

if TYPE_CHECKING:
    from rich.table import Table

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Commands(click.Group):
    """A group whose commands end in one line, not in a traceback, unless ``--debug`` is given."""

    def invoke(self, context: click.Context) -> Any:
        debug = context.params.get("debug", False)
        try:
            return super().invoke(context)
        except (click.exceptions.Exit, click.Abort, click.ClickException):
            raise
        except SpurbenchError as error:
            if debug:
                raise
            raise click.ClickException(str(error)) from None
        except Exception as error:
            if debug:
                raise
            reason = next(iter(str(error).splitlines()), "")
            raise click.ClickException(
                f"{type(error).__name__}: {reason} (unexpected; --debug before the command shows "
                "where, please report it)"
            ) from error


@click.group(cls=_Commands, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="spurbench")
@click.option("--debug", is_flag=True, help="Show tracebacks and debug messages.")
@click.option("--quiet", "-q", is_flag=True, help="Show warnings and errors only.")
def main(debug: bool, quiet: bool) -> None:
    """Generate images of spurious features and measure which classifiers they fool.

    \b
    spurbench build --classes all                     make a dataset (embedded recipe, offline)
    spurbench eval --model resnet50 --data DATASET    measure a classifier on it
    spurbench leaderboard RESULTS                     rank classifiers
    """
    level = logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.WARNING, force=True)
    logging.getLogger("spurbench").setLevel(level)


def device_option(command: Callable[..., None]) -> Callable[..., None]:
    """``--device``, the same for every command that runs a model."""
    return click.option(
        "--device",
        default="auto",
        show_default=True,
        help="auto, cpu, cuda, cuda:N or mps. One that is asked for and missing is an error.",
    )(command)


@main.command()
@click.option(
    "--recipe",
    "recipe_name",
    default="mini",
    show_default=True,
    help="mini (embedded, offline), sd15 (the paper), or a folder with recipe.toml, classes.toml.",
)
@click.option(
    "--classes",
    "wanted",
    default="all",
    show_default=True,
    help="all, paper, or names and indices: hummingbird,565.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Real images in the Spurious ImageNet layout. [default: the recipe's own]",
)
@click.option("--base", help="Base model: hub id or folder. Short for --set base.model=...")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a recipe key; repeatable.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Dataset folder. [default: out/spurbench-RECIPE-VERSION]",
)
@click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where finished stages are kept. [default: .stages beside the output]",
)
@click.option("--version", "version", default="1.0.0", show_default=True, metavar="X.Y.Z")
@click.option("--seed", default=0, show_default=True, help="Global seed.")
@click.option("--force", is_flag=True, help="Start over: make every stage again.")
@device_option
def build(
    recipe_name: str,
    wanted: str,
    data: Path | None,
    base: str | None,
    overrides: tuple[str, ...],
    output: Path | None,
    work: Path | None,
    version: str,
    seed: int,
    force: bool,
    device: str,
) -> None:
    """Fine-tune per class, generate, check, and write a versioned dataset.

    The same command goes on after an interruption. A class that fails does not stop the others;
    the exit status is then 1.
    """
    from spurbench.build import BuildRequest
    from spurbench.build import build as run_build
    from spurbench.environment import choose_device
    from spurbench.recipe import read_recipe

    if base is not None:
        overrides = (*overrides, f"base.model={base}")
    recipe, registry, folder = read_recipe(recipe_name, overrides)
    classes = registry.select(wanted)
    chosen = choose_device(device)
    output = output or Path("out") / f"spurbench-{recipe.name}-{version}"
    click.echo(
        f"Recipe {recipe.name}: {recipe.description} {len(classes)} classes, "
        f"{recipe.sample.images} images each, on {chosen}."
    )
    _silence_libraries()
    built = run_build(
        BuildRequest(
            recipe=recipe,
            recipe_folder=folder,
            classes=classes,
            data=data,
            output=output,
            work=work or output.parent / ".stages" / recipe.name,
            version=version,
            seed=seed,
            device=chosen,
            force=force,
        )
    )
    _print(_stage_table(built.seconds))
    if built.failed:
        for name, reason in built.failed.items():
            click.echo(f"failed: {name}: {reason}", err=True)
    if built.complete:
        click.echo(f"{'Wrote' if built.written else 'Unchanged:'} {output}")
        click.echo(f'Load it: datasets.load_dataset("{output.resolve()}")')
    if built.failed:
        raise SpurbenchError(
            f"{len(built.failed)} of {len(classes)} classes failed: {', '.join(built.failed)}; "
            "the same command tries them again, finished stages are kept"
        )


def _stage_table(seconds: dict[tuple[str, str], tuple[float, bool]]) -> Table:
    from rich.table import Table

    stages = list(dict.fromkeys(stage for _, stage in seconds))
    table = Table(
        title="Seconds by stage (in brackets: taken from the store)", title_justify="left"
    )
    table.add_column("subject")
    for stage in stages:
        table.add_column(stage, justify="right")
    for subject in dict.fromkeys(subject for subject, _ in seconds):
        cells = []
        for stage in stages:
            spent, reused = seconds.get((subject, stage), (None, False))
            text = "" if spent is None else f"{spent:.1f}"
            cells.append(f"({text})" if reused else text)
        table.add_row(subject, *cells)
    totals = [
        sum(spent for (_, name), (spent, reused) in seconds.items() if name == stage and not reused)
        for stage in stages
    ]
    table.add_section()
    table.add_row("now", *(f"{total:.1f}" for total in totals))
    return table


@main.command()
@click.option("--recipe", "recipe_name", default="sd15", show_default=True, help="Whose registry.")
@click.option("--classes", "wanted", default="all", show_default=True, help="As in build.")
def classes(recipe_name: str, wanted: str) -> None:
    """List the (class, spurious feature) pairs."""
    from rich.table import Table

    from spurbench.recipe import read_recipe

    recipe, registry, _ = read_recipe(recipe_name)
    table = Table(title=f"{recipe.name}: {recipe.description}", title_justify="left")
    for heading in (
        "index",
        "wnid",
        "class",
        "spurious feature",
        "component",
        "noun",
        "kappa",
        "paper",
    ):
        table.add_column(heading, justify="right" if heading in {"index", "component"} else "left")
    for c in registry.select(wanted):
        kappa = "" if c.kappa is None else f"{c.kappa:g}"
        table.add_row(
            str(c.index),
            c.wnid,
            c.name,
            c.spurious_feature,
            str(c.component),
            c.noun,
            kappa,
            "yes" if c.paper else "",
        )
    _print(table)


def _print(*renderables: Any) -> None:
    """Print tables whole: in a pipe they are as wide as they need to be, not 80 columns."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    for renderable in renderables:
        console.print(renderable)


def _silence_libraries() -> None:
    """Loading bars of diffusers and transformers are noise between our own lines."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()
