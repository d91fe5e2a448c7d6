"""What each shortcut of the similarity loss changes: its value, and its gradient's direction.

    python -m benchmarks.sfsl_error

On the embedded base and its photographs: the same steps, the same draws, once exactly and once with
each shortcut; no weight moves. A shortcut that leaves out steps or samples is to be judged by the
mean gradient over the steps, the others also step by step.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import click
import torch
from torch import Tensor

from benchmarks.models import EXACT, TINY_DECODER, set_up
from benchmarks.report import publish, surroundings
from spurbench.core.environment import choose_device
from spurbench.diffusion.objective import Objective, Subject
from spurbench.diffusion.sample import sample
from spurbench.evaluation import panel
from spurbench.images.decode import decode_rgb
from spurbench.images.sources import open_images
from spurbench.recipe.load import read_recipe


def shortcuts(resolution: int) -> dict[str, dict[str, Any]]:
    """SFSL settings by name."""
    return {
        "checkpoint_decoder": {"checkpoint_decoder": True},
        f"decode_resolution {resolution * 3 // 4}": {"decode_resolution": resolution * 3 // 4},
        f"decode_resolution {resolution // 2}": {"decode_resolution": resolution // 2},
        "every 2": {"every": 2},
        "every 4": {"every": 4},
        "max_timestep 0.5": {"max_timestep": 0.5},
        "max_timestep 0.25": {"max_timestep": 0.25},
        "tiny decoder": {"decoder": TINY_DECODER},
    }


@click.command()
@click.option("--class", "wanted", default="hummingbird", help="Whose photographs.")
@click.option("--steps", default=32, help="Draws to compare on.")
@click.option("--device", default="auto", help="As for spurbench build.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON.")
def main(wanted: str, steps: int, device: str, output: Path | None) -> None:
    """Compare each shortcut of the similarity loss with the exact one."""
    chosen = choose_device(device)
    with tempfile.TemporaryDirectory() as temporary:
        setup = set_up("mini", Path(temporary), chosen)
    recipe = read_recipe("mini", EXACT)
    (spurious_class,) = recipe.classes.select(wanted)
    phi = panel.load_member(recipe.panel.phi, relative_to=recipe.folder, device=chosen)
    records = [
        record
        for record in open_images(str(recipe.folder / str(recipe.data.images)), "real").records
        if record.class_index == spurious_class.index
    ][: recipe.select.references]
    priors = list(
        sample(
            setup.base,
            recipe.prior_prompt(spurious_class),
            range(8),
            resolution=recipe.base.resolution,
            steps=10,
            guidance_scale=recipe.prior.guidance_scale,
            batch_size=8,
        )
    )
    subject = Subject(
        index=spurious_class.index,
        references=[decode_rgb(record.read()) for record in records],
        priors=priors,
        reference_names=[record.path for record in records],
        prior_names=[str(i) for i in range(8)],
        instance_prompt=recipe.instance_prompt(spurious_class),
        prior_prompt=recipe.prior_prompt(spurious_class),
        noun=spurious_class.noun,
        resolution=recipe.base.resolution,
        kappa=1.0,
        phi=phi.features,
        phi_input=phi.input_size,
        class_weight=phi.head_weight[phi.columns([spurious_class.wnid])[0]],
        log_probability=partial(phi.log_probability, wnid=spurious_class.wnid),
    )
    networks = (setup.base.pipeline.unet, setup.base.pipeline.text_encoder)
    parameters = [p for network in networks for p in network.requires_grad_(True).parameters()]

    def evaluate(options: dict[str, Any]) -> tuple[list[float], list[Tensor]]:
        sfsl = recipe.sfsl.model_copy(update=options)
        decoder = setup.tiny_decoder if sfsl.decoder else None
        objective = Objective(setup.base, subject, recipe.finetune, sfsl, decoder)
        values, gradients = [], []
        for step in range(steps):
            term = sfsl.every * objective(objective.draw(0, step)).sfsl
            values.append(term.item())
            gradients.append(
                flat(torch.autograd.grad(term, parameters, materialize_grads=True))
                if term.requires_grad
                else torch.zeros(sum(p.numel() for p in parameters), device=chosen)
            )
        return values, gradients

    exact_values, exact = evaluate({})
    size = mean(abs(value) for value in exact_values)
    entries = {}
    for name, options in shortcuts(recipe.base.resolution).items():
        values, gradients = evaluate(options)
        used = [i for i in range(steps) if gradients[i].any()]
        entries[name] = {
            "steps_used": len(used),
            "loss_error": mean(abs(values[i] / scale(options) - exact_values[i]) for i in used)
            / size,
            "cosine_by_step": mean(cosine(gradients[i], exact[i]) for i in used),
            "cosine_of_mean": cosine(sum(gradients), sum(exact)),
            "norm_of_mean": float(sum(gradients).norm() / sum(exact).norm()),
        }
    document = {
        "surroundings": surroundings(chosen),
        "settings": {
            "base": setup.base.fingerprint,
            "phi": phi.info.weights_sha256,
            "class": spurious_class.name,
            "gradient": recipe.sfsl.gradient,
            "timestep_weighting": recipe.sfsl.timestep_weighting,
            "steps": steps,
            "batch_size": recipe.finetune.batch_size,
        },
        "exact_mean_absolute_loss": size,
        "shortcuts": entries,
    }
    rows = [["", "steps used", "loss error", "cosine by step", "cosine of mean", "norm of mean"]]
    for name, entry in entries.items():
        rows.append([name, *(f"{value:.4g}" for value in entry.values())])
    output = output or Path(__file__).parent / "results" / f"sfsl-error-mini-{chosen.type}.json"
    publish(document, output, f"Shortcuts of the similarity loss, {spurious_class.name}", rows)


def scale(options: dict[str, Any]) -> int:
    """What an every-n-th step is multiplied by."""
    return int(options.get("every", 1))


def flat(gradients: tuple[Tensor, ...]) -> Tensor:
    """One vector of all gradients."""
    return torch.cat([gradient.flatten() for gradient in gradients])


def cosine(a: Any, b: Any) -> float:
    """Between two vectors."""
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


if __name__ == "__main__":
    main()
