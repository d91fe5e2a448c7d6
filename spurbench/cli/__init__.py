"""The command line: parse, call, print."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spurbench import __version__
from spurbench.core.errors import SpurbenchError

if TYPE_CHECKING:
    from rich.table import Table

    from spurbench.build.plan import Plan
    from spurbench.evaluation.compare import Comparison
    from spurbench.evaluation.results import ClassResult, Result, Summary

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
            if isinstance(error, OSError) and error.filename and error.strerror:
                raise click.ClickException(f"{error.filename}: {error.strerror}") from error
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
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("spurbench")
    logger.handlers = [handler]
    logger.setLevel(level)


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
@click.option(
    "--previous",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The version before: its changelog goes on, and says what changed.",
)
@click.option("--note", help="For the changelog: what is new.")
@click.option("--seed", default=0, show_default=True, help="Global seed.")
@click.option("--force", is_flag=True, help="Start over: make every stage again.")
@click.option("--dry-run", is_flag=True, help="Print the plan and its cost; touch no weights.")
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
    previous: Path | None,
    note: str | None,
    seed: int,
    force: bool,
    dry_run: bool,
    device: str,
) -> None:
    """Fine-tune per class, generate, check, and write a versioned dataset.

    The same command goes on after an interruption. A class that fails does not stop the others;
    the exit status is then 1.
    """
    from spurbench.build.build import BuildRequest
    from spurbench.build.build import build as run_build
    from spurbench.core.environment import choose_device
    from spurbench.recipe.load import read_recipe

    if base is not None:
        overrides = (*overrides, f"base.model={base}")
    recipe = read_recipe(recipe_name, overrides)
    classes = recipe.classes.select(wanted)
    chosen = choose_device(device)
    output = output or Path("out") / f"spurbench-{recipe.name}-{version}"
    click.echo(
        f"Recipe {recipe.name}: {recipe.description} Classes: {len(classes)}, "
        f"images each: {recipe.sample.images}, device: {chosen}."
    )
    _silence_libraries()
    if dry_run:
        from spurbench.build.plan import plan

        _print(*_plan_tables(plan(recipe, classes)))
        return
    built = run_build(
        BuildRequest(
            recipe=recipe,
            classes=classes,
            data=data,
            output=output,
            work=work or output.parent / ".stages" / recipe.name,
            version=version,
            seed=seed,
            device=chosen,
            force=force,
            previous=previous,
            note=note,
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


@main.command()
@click.option(
    "--recipe", default="mini", show_default=True, help="With an ablation.toml beside it."
)
@click.option("--rows", "wanted_rows", default="", help="Names of rows, by comma. [default: all]")
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Builds of each row: seeds 0, 1, ...",
)
@click.option("--classes", "wanted", default="all", show_default=True, help="As in build.")
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="As in build.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a recipe key in every row; repeatable.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of datasets and tables. [default: out/ablation-RECIPE]",
)
@click.option(
    "--unseen",
    multiple=True,
    metavar="SPEC",
    help="Measure a classifier that had no part in the images too; as --model of eval; repeatable.",
)
@device_option
def ablate(
    recipe: str,
    wanted_rows: str,
    seeds: int,
    wanted: str,
    data: Path | None,
    overrides: tuple[str, ...],
    output: Path | None,
    unseen: tuple[str, ...],
    device: str,
) -> None:
    """Compare variations of a recipe over several seeds: table, plot, samples.

    The rows are those of the recipe's ablation.toml. The same command goes on after an
    interruption.
    """
    from spurbench.core.environment import choose_device
    from spurbench.recipe.load import read_recipe
    from spurbench.studies.ablation.ablate import ablate as run_ablation
    from spurbench.studies.ablation.plan import AblationRequest, read_plan
    from spurbench.studies.ablation.report import render_markdown

    names = [name.strip() for name in wanted_rows.split(",") if name.strip()]
    base = read_recipe(recipe, overrides)
    request = AblationRequest(
        recipe=recipe,
        plan=read_plan(recipe, names),
        overrides=overrides,
        classes=base.classes.select(wanted),
        data=data,
        seeds=range(seeds),
        output=output or Path("out") / f"ablation-{base.name}",
        device=choose_device(device),
        unseen=unseen,
    )
    click.echo(
        f"Recipe {base.name}: {len(request.plan.rows)} rows, {seeds} seeds, "
        f"{len(request.classes)} classes, device: {request.device}."
    )
    _silence_libraries()
    document = run_ablation(request)
    click.echo(render_markdown(document))
    click.echo(f"Wrote ablation.json, ablation.md, ablation.png, samples.png to {request.output}")


def _plan_tables(planned: Plan) -> tuple[Table, str]:
    from rich.table import Table

    from spurbench.build.plan import GIGA, TERA

    table = Table(
        title=f"Plan, by the architecture of {planned.architecture}", title_justify="left"
    )
    table.add_column("stage")
    table.add_column("runs", justify="right")
    table.add_column("each")
    table.add_column("TFLOP", justify="right")
    table.add_column("disk, GB", justify="right")
    for stage in planned.stages:
        table.add_row(
            stage.name,
            str(stage.runs),
            stage.work,
            f"{stage.operations / TERA:,.1f}",
            f"{stage.disk / GIGA:,.2f}",
        )
    table.add_section()
    table.add_row(
        "all",
        "",
        "",
        f"{sum(stage.operations for stage in planned.stages) / TERA:,.1f}",
        f"{sum(stage.disk for stage in planned.stages) / GIGA:,.2f}",
    )
    costs = planned.costs
    return table, (
        f"Per sample, TFLOP: U-Net {costs.unet.forward / TERA:.3g}, with backward "
        f"{costs.unet.training / TERA:.3g}; VAE encode {costs.encode / TERA:.3g}, decode "
        f"{costs.decode.forward / TERA:.3g}, with backward {costs.decode.training / TERA:.3g}.\n"
        f"Memory at the peak of fine-tuning: about {planned.memory / GIGA:.1f} GB, and what the "
        f"device's context takes. Checkpoint while a class is fine-tuned: "
        f"{planned.checkpoint / GIGA:.1f} GB."
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

    from spurbench.recipe.load import read_recipe

    recipe = read_recipe(recipe_name)
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
    for c in recipe.classes.select(wanted):
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


@main.command(name="eval")
@click.option(
    "--model",
    "specs",
    multiple=True,
    metavar="SPEC[=CHECKPOINT]",
    help="timm name, torchvision:ARCH.WEIGHTS, robustbench:NAME, hf-hub:OWNER/NAME, mini:NAME "
    "(embedded panel), or a folder in timm's hub format; repeatable.",
)
@click.option(
    "--panel",
    "panel_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file with a list `classifiers` of such SPECs.",
)
@click.option("--data", required=True, help="Spurious ImageNet folder, built dataset or hub id.")
@click.option(
    "--split",
    type=click.Choice(["real", "generated", "all"]),
    default="all",
    show_default=True,
)
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    help="Local weights of a timm or torchvision architecture (safetensors, or torch weights).",
)
@click.option(
    "--positives",
    type=click.Path(path_type=Path),
    help="Images that truly show the classes (ImageNet layout): adds AUROC, average precision.",
)
@click.option(
    "--preprocess",
    type=click.Choice(["whole", "model"]),
    default="whole",
    show_default=True,
    help="whole: short side to the input size, bicubic, centre crop, as the authors of Spurious "
    "ImageNet do; model: the model's own evaluation transform.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("out/results"),
    show_default=True,
    help="Folder of results.",
)
@click.option("--batch-size", type=click.IntRange(min=1), help="[default: by the device]")
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Threads that decode while the classifier runs. [default: one a core, 8 at most]",
)
@click.option("--force", is_flag=True, help="Measure again even if an unchanged result is stored.")
@device_option
def evaluate(
    specs: tuple[str, ...],
    panel_file: Path | None,
    data: str,
    split: str,
    checkpoint: Path | None,
    positives: Path | None,
    preprocess: Any,
    output: Path,
    batch_size: int | None,
    workers: int | None,
    force: bool,
    device: str,
) -> None:
    """Measure classifiers' spurious accuracy, real and generated.

    Several classifiers share the decoding of the images; one that fails does not stop the others.
    """
    from spurbench.core.environment import choose_device
    from spurbench.evaluation import panel
    from spurbench.evaluation.evaluate import evaluate_each
    from spurbench.images.sources import open_images, open_positives
    from spurbench.recipe.load import read_recipe

    members = panel.members(specs, panel_file, checkpoint, choose_device(device))
    failed: dict[str, list[str]] = {}
    results: list[Result] = []
    for measured in evaluate_each(
        members,
        open_images(data, split, decode=False),  # type: ignore[arg-type]
        read_recipe("sd15").classes,
        output,
        positives=open_positives(positives, decode=False) if positives else None,
        preprocess=preprocess,
        batch_size=batch_size,
        workers=workers,
        force=force,
    ):
        result = measured.result
        if result is None:
            failed.setdefault(measured.error or "", []).append(measured.spec)
            continue
        if not results:
            for damaged in result.damaged:
                click.echo(f"left out, damaged: {damaged.path} ({damaged.reason})", err=True)
        results.append(result)
        if len(members) == 1:
            _print(*(_result_table(result, name) for name in result.splits))
        again = " (stored result of the same measurement; --force repeats it)"
        click.echo(f"{measured.path}{again if measured.stored else ''}")
    if len(members) > 1 and results:
        _print(_results_table(results))
    if len(members) == 1 and failed:
        raise SpurbenchError(*failed)
    if failed:
        for reason, affected in failed.items():
            click.echo(f"failed: {', '.join(affected)}: {reason}", err=True)
        raise SpurbenchError(
            f"{len(members) - len(results)} of {len(members)} classifiers failed; "
            "the others' results are kept, the same command measures only what is missing"
        )


def _results_table(results: Sequence[Result]) -> Table:
    from rich.table import Table

    dataset = results[0].dataset
    table = Table(title=f"{dataset.name} {dataset.version or ''}", title_justify="left")
    headings = ("classifier", "split", "n", "spurious accuracy", "95 % interval", "top-5")
    for heading in (*headings, "mean probability", "worst class"):
        left = heading in {"classifier", "split", "worst class"}
        table.add_column(heading, justify="left" if left else "right")
    for result in results:
        for split, part in result.splits.items():
            summary = part.summary
            interval = summary.spurious_accuracy_interval
            table.add_row(
                result.classifier.name,
                split,
                str(summary.n),
                f"{100 * summary.spurious_accuracy:.1f} %",
                f"{100 * interval.low:.1f} to {100 * interval.high:.1f}",
                f"{100 * summary.top5:.1f} %",
                f"{summary.mean_probability:.4f}",
                f"{summary.worst_class} {100 * summary.worst_class_spurious_accuracy:.0f} %",
            )
    return table


def _result_table(result: Result, split: Any) -> Table:
    from rich.table import Table

    part = result.splits[split]
    table = Table(
        title=f"{result.classifier.name} on {result.dataset.name} "
        f"{result.dataset.version or ''} {split} ({result.environment['device']})",
        title_justify="left",
    )
    scored = part.summary.auroc is not None
    for heading in (
        "class",
        "n",
        "spurious accuracy",
        "95 % interval",
        "top-5",
        "mean probability",
    ):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    if scored:
        table.add_column("AUROC", justify="right")
        table.add_column("average precision", justify="right")
    lines: list[tuple[str, ClassResult | Summary]] = [(c.name, c) for c in part.classes]
    for name, c in (*lines, ("macro mean", part.summary)):
        if c is part.summary:
            table.add_section()
        interval = c.spurious_accuracy_interval
        cells = [
            name,
            str(c.n),
            f"{100 * c.spurious_accuracy:.1f} %",
            f"{100 * interval.low:.1f} to {100 * interval.high:.1f}",
            f"{100 * c.top5:.1f} %",
            f"{c.mean_probability:.4f}",
        ]
        if scored:
            cells += [
                f"{value:.3f}" for value in (c.auroc, c.average_precision) if value is not None
            ]
        table.add_row(*cells)
    return table


@main.command()
@click.option(
    "--data",
    required=True,
    help="Folder of real images in the Spurious ImageNet layout.",
)
@click.option(
    "--panel",
    "members",
    multiple=True,
    required=True,
    metavar="SPEC[=CHECKPOINT]",
    help="A classifier as in eval --model, with local weights after '='; repeat for each.",
)
@click.option("--classes", "wanted", default="all", show_default=True, help="As in build.")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the answers as JSON."
)
@device_option
def select(
    data: str, members: tuple[str, ...], wanted: str, output: Path | None, device: str
) -> None:
    """List the images that every classifier of a panel calls their class."""
    from rich.table import Table

    from spurbench.core import atomic
    from spurbench.core.environment import choose_device
    from spurbench.evaluation import panel
    from spurbench.images.sources import open_images
    from spurbench.recipe.load import read_recipe

    registry = read_recipe("sd15").classes
    chosen = {c.index: c for c in registry.select(wanted)}
    images = open_images(data, "real")
    records = [record for record in images.records if record.class_index in chosen]
    if not records:
        raise SpurbenchError(f"{data} has no images of the classes {wanted}")
    classifiers = panel.load_panel(members, relative_to=Path(), device=choose_device(device))
    selected = panel.select(classifiers, records)
    table = Table(
        title="Consistently spurious: called the class by "
        + ", ".join(classifier.info.name for classifier in classifiers),
        title_justify="left",
    )
    for heading in ("class", "of", "consistently spurious", "images (surest first)"):
        table.add_column(heading)
    for index, c in chosen.items():
        total = sum(record.class_index == index for record in records)
        found = [choice.path for choice in selected if choice.class_index == index]
        if total:
            table.add_row(
                c.name, str(total), str(len(found)), ", ".join(Path(f).name for f in found)
            )
    _print(table)
    click.echo(f"{len(selected)} of {len(records)} images are consistently spurious")
    for damaged in images.damaged:
        click.echo(f"left out, damaged: {damaged.path} ({damaged.reason})", err=True)
    if output is not None:
        atomic.write_json(output, [choice.as_json() for choice in selected])
        click.echo(str(output))


class _WithDefault(click.Group):
    """A group whose ``default`` command takes what does not begin with a command's name."""

    def __init__(self, *arguments: Any, default: str, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.default = default

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        own = {*self.commands, *context.help_option_names}
        if arguments and arguments[0] not in own:
            arguments = [self.default, *arguments]
        return super().parse_args(context, arguments)


@main.group(cls=_WithDefault, default="rank")
def leaderboard() -> None:
    """Rank classifiers; lower is better.

    \b
    spurbench leaderboard RESULTS... [--output DIR]    tables (short for leaderboard rank)
    spurbench leaderboard build RESULTS... --data DATASET    publish entries and a page
    """


@leaderboard.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write README.md, and a page and a CSV per board, here. [default: print only]",
)
def rank(results: tuple[Path, ...], output: Path | None) -> None:
    """Rank classifiers from result JSONs (files or folders); lower is better."""
    from spurbench.leaderboard import boards, tables

    made = boards.boards(boards.read(results))
    _print(*(tables.to_table(board) for board in made))
    for board in made:
        if board.untested:
            click.echo(f"{board.title}: no tie groups: {board.untested}", err=True)
    if output is not None:
        for path in tables.write(made, output):
            click.echo(str(path))


@leaderboard.command(name="build")
@click.argument("results", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--data",
    multiple=True,
    help="Dataset that was measured, for sample images; repeatable. As in eval.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("leaderboards"),
    show_default=True,
    help="Folder of entries; what it holds already stays on the page.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=0),
    default=6,
    show_default=True,
    help="Sample images per class and split.",
)
def build_leaderboard(
    results: tuple[Path, ...], data: tuple[str, ...], output: Path, samples: int
) -> None:
    """Publish results: a JSON entry each, Markdown, CSV, and a page of its own, index.html.

    Without RESULTS, the entries in the output folder are rendered again.
    """
    from spurbench.leaderboard.page import build as run_build

    for path in run_build(results, data, output, samples=samples):
        click.echo(str(path))


@main.command()
@click.argument("a", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("b", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--data", help="Dataset that was measured, as in eval: adds a sheet of the images.")
@click.option(
    "--images",
    type=click.IntRange(min=1),
    default=24,
    show_default=True,
    help="How many of the images on which they differ most.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("out/comparison"),
    show_default=True,
    help="Folder of comparison.json and images.png.",
)
def compare(a: Path, b: Path, data: str | None, images: int, output: Path) -> None:
    """Compare two results, image by image; B minus A: below 0, B is fooled less."""
    from spurbench.evaluation import compare as comparing

    comparison = comparing.compare(a, b, images=images)
    _print(*(_contrast_table(comparison, split) for split in comparison.splits))
    for path in comparing.write(comparison, output, data):
        click.echo(str(path))


def _contrast_table(comparison: Comparison, split: Any) -> Table:
    from rich.table import Table
    from rich.text import Text

    from spurbench.core.markdown import plain

    part = comparison.splits[split]
    title = f"A: {comparison.a}\nB: {comparison.b}\n{split} images of {comparison.dataset.name}"
    table = Table(title=Text("\n".join(map(plain, title.splitlines()))), title_justify="left")
    for heading in ("class", "n", "A", "B", "B - A", "95 % interval", "only A", "only B", "p"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    lines = [(plain(c.name), c, c.adjusted_p_value) for c in part.classes]
    for name, c, p in (*lines, ("macro mean", part, part.p_value)):
        if c is part:
            table.add_section()
        table.add_row(
            Text(name),
            str(c.n),
            f"{100 * c.a:.1f} %",
            f"{100 * c.b:.1f} %",
            f"{100 * c.difference:+.1f}",
            f"{100 * c.interval.low:+.1f} to {100 * c.interval.high:+.1f}",
            str(c.only_a),
            str(c.only_b),
            "<0.001" if p < 0.001 else f"{p:.3f}",
        )
    return table


@main.command()
@click.argument("dataset", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    help="pyiqa metric; repeatable. [default: the dataset's own]",
)
@device_option
def quality(dataset: Path, metrics: tuple[str, ...], device: str) -> None:
    """Fill in the image quality columns that were null when a dataset was built."""
    from spurbench.core.environment import choose_device
    from spurbench.dataset.quality import fill_quality

    for metric, count in fill_quality(dataset, metrics, choose_device(device)).items():
        click.echo(f"{metric}: {count} scores filled in")


@main.command()
@click.argument("dataset", type=click.Path(path_type=Path))
def verify(dataset: Path) -> None:
    """Check a dataset: hashes, counts, schema, card, and that it loads as its card says.

    The exit status is 1 if any check fails.
    """
    from rich.table import Table
    from rich.text import Text

    from spurbench.dataset.verify import verify as run_checks

    _silence_libraries()
    checks = run_checks(dataset)
    table = Table(show_header=False)
    for check in checks:
        colour = {"ok": "green", "skipped": "yellow", "fail": "red"}[check.status]
        table.add_row(Text(check.status, colour), check.name, Text(check.detail))
    _print(table)
    failed = [check.name for check in checks if check.status == "fail"]
    if failed:
        raise SpurbenchError(f"{dataset} fails: {', '.join(failed)}")


@main.command()
@click.argument("dataset", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--repo-id", required=True, metavar="OWNER/NAME", help="On the hub.")
@click.option("--private", is_flag=True, help="Not public.")
@click.option("--dry-run", is_flag=True, help="Print the operations; change nothing.")
def push(dataset: Path, repo_id: str, private: bool, dry_run: bool) -> None:
    """Publish a dataset on the Hugging Face hub, tagged vX.Y.Z.

    It is verified first. The same command goes on after an interruption. A published version is
    never changed. The token is taken from HF_TOKEN or the saved login.
    """
    from spurbench.dataset.push import push as run_push

    _silence_libraries()
    made = run_push(dataset, repo_id, private=private, dry_run=dry_run)
    if dry_run or made.published:
        for line in made.lines():
            click.echo(line)
    else:
        click.echo(f'Published. Load it: load_dataset("{repo_id}", revision="{made.tag}")')


@main.command()
@click.argument("old", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("new", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--json", "output", type=click.Path(path_type=Path, dir_okay=False), help="Also write JSON."
)
def diff(old: Path, new: Path, output: Path | None) -> None:
    """Say what changed from dataset OLD to dataset NEW, per class."""
    from spurbench.core import atomic
    from spurbench.dataset import diff
    from spurbench.dataset.manifest import read_snapshot

    difference = diff.compare(read_snapshot(old), read_snapshot(new))
    _print(*diff.to_tables(difference))
    if output is not None:
        atomic.write_json(output, difference.as_json())
        click.echo(str(output))


@main.command()
def doctor() -> None:
    """Say what works here: versions, devices, model sources, caches, assets."""
    from rich.table import Table
    from rich.text import Text

    from spurbench.doctor import diagnose

    checks = diagnose()
    table = Table(show_header=False)
    for check in checks:
        colour = {"ok": "green", "warn": "yellow", "fail": "red"}[check.status]
        said = f"{check.detail}; {check.hint}" if check.hint else check.detail
        table.add_row(Text(check.status, colour), Text(check.name), Text(said))
    _print(table)
    failed = [check.name for check in checks if check.status == "fail"]
    if failed:
        raise SpurbenchError(f"spurbench can't work here until mended: {', '.join(failed)}")


@main.group()
def mini() -> None:
    """The embedded planted world: look at it, render from it, measure its models."""


@mini.command()
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--seed", default=0, show_default=True)
def preview(output: Path, seed: int) -> None:
    """Write a labelled contact sheet of the world to OUTPUT (PNG)."""
    from spurbench.mini.preview import write_preview

    write_preview(output, seed)
    click.echo(str(output))


@mini.command()
@click.argument("output", type=click.Path(path_type=Path, file_okay=False))
@click.option("--images", default=50, show_default=True, help="Per class.")
@click.option("--seed", default=0, show_default=True)
def positives(output: Path, images: int, seed: int) -> None:
    """Render images that truly show the classes, for eval --positives."""
    from spurbench.mini.preview import write_positives

    write_positives(output, images, seed)
    click.echo(str(output))


@mini.command()
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--scenes", default=100, show_default=True, help="Held-out scenes per class.")
@click.option("--samples", default=64, show_default=True, help="Of the base model, per prompt.")
@click.option(
    "--attacked", default=200, show_default=True, help="Images under AutoAttack; 0: none."
)
@device_option
def measure(output: Path, scenes: int, samples: int, attacked: int, device: str) -> None:
    """Measure the embedded models on fresh scenes; writes OUTPUT (JSON)."""
    from spurbench.core import atomic
    from spurbench.core.environment import choose_device
    from spurbench.mini import measure as measuring

    _silence_libraries()
    measured = measuring.measure(
        scenes=scenes, samples=samples, attacked=attacked, device=choose_device(device)
    )
    atomic.write_json(output, measured)
    click.echo(measuring.render_markdown(measured))


def _print(*renderables: Any) -> None:
    """Print tables whole: in a pipe they are as wide as they need to be, not 80 columns."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    for renderable in renderables:
        console.print(renderable)


def _silence_libraries() -> None:
    """Other libraries' bars are noise between our own lines."""
    import datasets
    import diffusers
    import transformers

    datasets.disable_progress_bars()

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()
