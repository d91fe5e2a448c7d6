"""Results as tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from spurbench.build.forecast import Forecast
    from spurbench.build.plan import Plan
    from spurbench.evaluation.compare import Comparison, Contrast, EffectContrast


def plan_tables(planned: Plan) -> tuple[Table, Text]:
    """What a build will do and cost: a table of its stages, and a paragraph."""
    from rich.table import Table
    from rich.text import Text

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
    return table, Text(
        f"Per sample, TFLOP: U-Net {costs.unet.forward / TERA:.3g}, with backward "
        f"{costs.unet.training / TERA:.3g}; VAE encode {costs.encode / TERA:.3g}, decode "
        f"{costs.decode.forward / TERA:.3g}, with backward {costs.decode.training / TERA:.3g}.\n"
        f"Memory at the peak of fine-tuning: about {planned.memory / GIGA:.1f} GB, and what the "
        f"device's context takes. Checkpoint while a class is fine-tuned: "
        f"{planned.checkpoint / GIGA:.1f} GB."
    )


def forecast_tables(foreseen: Forecast, gpus: int) -> tuple[Table, Table, Text]:
    """How long a build would take: its stages, numbers of workers, and what that rests on.

    Args:
        foreseen: what it would take.
        gpus: of each worker; 0: they are called workers.
    """
    from rich.table import Table
    from rich.text import Text

    from spurbench.build.plan import GIGA

    noun, each = ("GPU", gpus) if gpus else ("worker", 1)
    stages = Table(title="Seconds of the stages", title_justify="left")
    for heading in ("stage", "runs", "seconds each", "from", f"{noun} hours"):
        stages.add_column(heading, justify="left" if heading in ("stage", "from") else "right")
    for timing in foreseen.timings:
        stages.add_row(
            timing.stage,
            str(timing.runs),
            f"{timing.seconds / timing.runs:,.1f}",
            f"{timing.stored} stored stages" if timing.stored else "counted",
            f"{each * timing.seconds / 3600:,.2f}",
        )
    stages.add_section()
    total = sum(timing.seconds for timing in foreseen.timings)
    stages.add_row("all", "", "", "", f"{each * total / 3600:,.2f}")

    schedule = foreseen.schedule
    numbers = Table(title="Schedule", title_justify="left")
    for heading in (f"{noun}s", "wall time", f"{noun} hours held", "busy", "never used"):
        numbers.add_column(heading, justify="right")
    for entry in sorted((schedule, *foreseen.others), key=lambda entry: entry.cluster.workers):
        workers = entry.cluster.workers
        numbers.add_row(
            f"{each * workers:,}",
            _duration(entry.makespan),
            f"{each * workers * entry.makespan / 3600:,.1f}",
            f"{100 * entry.utilisation:.0f} %",
            f"{each * (workers - entry.used):,}",
            style="bold" if entry is schedule else None,
        )
    workers = schedule.cluster.workers
    idle = (
        f" {each * (workers - schedule.used):,} find nothing to do."
        if schedule.used < workers
        else ""
    )
    return (
        stages,
        numbers,
        Text(
            f"{each * workers:,} {noun}s: {_duration(schedule.makespan)}.{idle} However many there "
            f"are, {', then '.join(schedule.critical_path)} takes "
            f"{_duration(schedule.critical_seconds)}.\n"
            f"Disk: {foreseen.store / GIGA:,.1f} GB in the store, with the checkpoints of all "
            f"workers; {foreseen.dataset / GIGA:,.1f} GB of generated images in the dataset.\n"
            + "\n".join(foreseen.assumptions)
        ),
    )


def _duration(seconds: float) -> str:
    """As hours and minutes, or minutes and seconds."""
    if seconds >= 3600:
        return "{} h {:02d} min".format(*divmod(round(seconds / 60), 60))
    return "{} min {:02d} s".format(*divmod(round(seconds), 60))


def stage_table(seconds: dict[tuple[str, str], tuple[float, bool]]) -> Table:
    """What each subject's stages took, in seconds."""
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


def contrast_tables(comparison: Comparison, split: Any) -> list[Table]:
    """Two classifiers on one split, a line per class: spurious accuracy, and feature effect."""
    from rich.table import Table
    from rich.text import Text

    from spurbench.core.markdown import plain

    part = comparison.splits[split]
    sides = f"A: {comparison.a}", f"B: {comparison.b}"
    title = map(plain, (*sides, f"{split} images of {comparison.dataset.name}"))
    accuracy = Table(title=Text("\n".join(title)), title_justify="left")
    columns = ("class", "n", "A", "B", "B - A", "95 % interval", "only A", "only B", "p (Holm)")
    for heading in columns:
        accuracy.add_column(heading, justify="left" if heading == "class" else "right")
    effects = Table(title="Feature effect: images minus twins", title_justify="left")
    for heading in ("class", "pairs", "A", "B", "B - A", "95 % interval", "p, each alone"):
        effects.add_column(heading, justify="left" if heading == "class" else "right")
    lines = [(plain(c.name), c, c.adjusted_p_value) for c in part.classes]
    for name, c, p in (*lines, ("macro mean", part, part.p_value)):
        if c is part:
            accuracy.add_section()
            effects.add_section()
        accuracy.add_row(
            Text(name),
            str(c.n),
            f"{100 * c.a:.1f} %",
            f"{100 * c.b:.1f} %",
            *_change(c),
            str(c.only_a),
            str(c.only_b),
            _p_value(p),
        )
        if effect := c.effect:
            effects.add_row(
                Text(name),
                str(effect.pairs),
                f"{100 * effect.a:+.1f}",
                f"{100 * effect.b:+.1f}",
                *_change(effect),
                _p_value(effect.p_value),
            )
    return [accuracy, effects] if part.effect else [accuracy]


def _change(contrast: Contrast | EffectContrast) -> tuple[str, str]:
    low, high = contrast.interval.low, contrast.interval.high
    return f"{100 * contrast.difference:+.1f}", f"{100 * low:+.1f} to {100 * high:+.1f}"


def _p_value(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def show(*renderables: Any) -> None:
    """Print tables whole: in a pipe they are as wide as they need to be, not 80 columns.

    Their strings may come from outside: they are no markup, and hold no control characters.
    """
    from rich.console import Console

    from spurbench.core.text import printable

    class Plain(Console):
        def render_str(self, text: str, **settings: Any) -> Text:
            return super().render_str(printable(text), **settings)

        def on_broken_pipe(self) -> None:
            raise  # where rich would end the program with a status of its own

    plain: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}
    console = Plain(**plain)
    if not console.is_terminal:
        console = Plain(width=1000, **plain)
    for renderable in renderables:
        console.print(renderable)
