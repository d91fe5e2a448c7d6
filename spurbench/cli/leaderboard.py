"""Commands that rank."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from spurbench.cli.options import FILE, FOLDER, device_option
from spurbench.cli.tables import show
from spurbench.cli.terminal import say
from spurbench.core.errors import SpurbenchError


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


@click.group(cls=_WithDefault, default="show")
def leaderboard() -> None:
    """Rank classifiers; lower is better.

    \b
    spurbench leaderboard RESULTS... [--output DIR]    tables (short for leaderboard show)
    spurbench leaderboard build RESULTS... --data DATASET    publish entries and a page
    spurbench leaderboard check ENTRY...               what reviewers ask of an entry
    """


@leaderboard.command(name="show")
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=FOLDER,
    help="Write README.md, and a page and a CSV per board, here. [default: print only]",
)
@click.option("--limit", type=click.IntRange(min=1), help="Classifiers of a board, the best ones.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: every column, shares in [0, 1].")
def show_boards(
    results: tuple[Path, ...], output: Path | None, limit: int | None, as_json: bool
) -> None:
    """Rank classifiers from results and entries (files or folders); lower is better."""
    from spurbench.leaderboard import boards, tables

    made = boards.boards(boards.read(results))
    if as_json:
        documents = [tables.to_document(board, limit) for board in made]
        click.echo(json.dumps(documents, indent=2, allow_nan=False))
    else:
        show(*(tables.to_table(board, limit) for board in made))
        for board in made:
            if board.untested:
                say(f"{board.title}: no tie groups: {board.untested}", error=True)
    if output is not None:
        for path in tables.write(made, output):
            say(str(path), error=as_json)


@leaderboard.command(name="build")
@click.argument("results", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--data",
    multiple=True,
    help="Dataset that was measured, for sample images; repeatable. As in eval.",
)
@click.option(
    "--output",
    type=FOLDER,
    default=Path("leaderboards"),
    show_default=True,
    help="Folder of entries; what it holds already stays on the page.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=0),
    default=6,
    show_default=True,
    help="Images per class and split on the page, at most: as many as it has room for.",
)
def build_leaderboard(
    results: tuple[Path, ...], data: tuple[str, ...], output: Path, samples: int
) -> None:
    """Publish results: a JSON entry each, Markdown, CSV, and a page of its own, index.html.

    Without RESULTS, the entries in the output folder are rendered again.
    """
    from spurbench.leaderboard.page import build as run_build

    for path in run_build(results, data, output, samples=samples):
        say(str(path))


@leaderboard.command(name="check")
@click.argument(
    "files", metavar="ENTRY...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--recompute",
    type=click.IntRange(min=0),
    metavar="N",
    help="Measure N images of each entry anew, drawn at random (0: all), and compare.",
)
@click.option("--data", help="The dataset, as in eval. [default: what datasets.toml says]")
@click.option(
    "--positives",
    type=FOLDER,
    help="As in eval, where they are not the dataset's own.",
)
@click.option("--seed", default=0, show_default=True, help="Of the draw.")
@device_option
def check_entries(
    files: tuple[Path, ...],
    recompute: int | None,
    data: str | None,
    positives: Path | None,
    seed: int,
    device: str,
) -> None:
    """Check entries as reviewers do; the first fault of each is one line."""
    from spurbench.leaderboard import check, known

    faults: list[str] = []
    for file in files:
        try:
            entry = check.check(file)
            asked = ""
            if recompute is not None:
                images = data or known.require(entry, file.resolve().parents[1]).data
                if images is None:
                    raise SpurbenchError(
                        f"{known.FILE} does not say where {entry.folder} is; --data"
                    )
                found = check.recompute(
                    entry,
                    images,
                    positives=positives,
                    images=recompute or None,
                    seed=seed,
                    device=device,
                )
                asked = (
                    f"; {found.asked} of {found.of} answers measured anew are the same "
                    f"(probabilities to {found.difference:.4f})"
                )
            say(f"{file}: sound{asked}")
        except SpurbenchError as error:
            text = str(error)
            faults.append(text if str(file) in text else f"{file}: {text}")
            if len(files) > 1:
                say(f"failed: {faults[-1]}", error=True)
    if len(files) == len(faults) == 1:
        raise SpurbenchError(faults[0])
    if faults:
        raise SpurbenchError(f"{len(faults)} of {len(files)} entries are not as they should be")


@click.command()
@click.argument("result", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "output",
    type=FOLDER,
    default=Path("leaderboards"),
    show_default=True,
    help="Folder of entries, in a checkout of the leaderboard's repository.",
)
@click.option(
    "--model-card",
    type=FILE,
    metavar="FILE.yaml",
    help="Write evaluation results for the model's page on the Hub instead; needs --dataset.",
)
@click.option("--dataset", metavar="OWNER/NAME", help="Where the Hub has the images.")
def submit(result: Path, output: Path, model_card: Path | None, dataset: str | None) -> None:
    """Write the entry of a RESULT, and say how to propose it for the leaderboard."""
    from spurbench.leaderboard import submit as submitting

    if (model_card is None) != (dataset is None):
        raise click.UsageError("--model-card and --dataset go together")
    if model_card is not None and dataset is not None:
        written = submitting.write_model_card(result, model_card, dataset)
        say(f"{model_card}: {len(written)} evaluation results")
        say("Put it into .eval_results/ of the model's repository on the Hub.")
        return
    file, entry = submitting.submit(result, output)
    say(str(file))
    if entry.classifier.spec is None:
        say(
            f"The weights have no public name ({entry.classifier.source}): nobody can measure them "
            "anew, and reviewers take such an entry as an exception only.",
            error=True,
        )
    say(f"1. spurbench leaderboard check {file}    what reviewers will ask of it")
    say(f"2. git switch -c {file.stem} && git add {file} && git commit -m 'Enter {file.stem}'")
    say("3. Push, and open a pull request. It is checked there, and a sample of its answers is")
    say("   measured anew from the public weights; leaderboards/CONTRIBUTING.md has the rules.")
