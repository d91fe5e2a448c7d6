"""Stage 3: joint fine-tuning of noise predictor and text encoder on one spurious feature.

The losses are those of :mod:`spurbench.diffusion.objective`; here is the loop around them.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler
from torch import Tensor, nn

from spurbench.core import atomic
from spurbench.core.errors import SpurbenchError, reason
from spurbench.core.identity import derive_seed
from spurbench.core.progress import tracked
from spurbench.diffusion.base import TRAINED, Decoder, TextToImage
from spurbench.diffusion.objective import Losses, Objective, Subject
from spurbench.diffusion.processes import accelerator, autocast
from spurbench.diffusion.trainable import trainable
from spurbench.recipe.sections import SFSL, Finetune

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"


def finetune(
    base: TextToImage,
    subject: Subject,
    settings: Finetune,
    sfsl: SFSL,
    seed: int,
    folder: Path,
    decoder: Decoder | None = None,
    *,
    together: bool = False,
) -> tuple[dict[str, dict[str, Tensor]], dict[str, list[float]]]:
    """Fine-tune ``base`` in place on one subject, going on from a checkpoint in ``folder`` if any.

    Every random draw of step n comes from a CPU generator seeded by (seed, class, n), so a run that
    was stopped and resumed ends, on a CPU, in bit-identical weights.

    Args:
        base: starts from, and is left in, this model; the VAE does not change.
        subject: the class's images, prompts and features.
        settings: optimisation.
        sfsl: the similarity loss.
        seed: global seed.
        folder: where checkpoints go; the last one is removed by a run that finishes.
        decoder: what the similarity loss decodes with; None: the base's own VAE.
        together: whether this is one of the processes that
            :func:`spurbench.diffusion.processes.join` connected. Each computes its share of every
            step's samples, and all end in the weights of one that computed them all, but for
            rounding; the first of them writes the checkpoints.

    Returns:
        The trained weights, float32 on the CPU, by component; and each loss by step.

    Raises:
        SpurbenchError: if [V] is not one token, a processor can't compute in the precision, or a
            loss or a weight is not finite (step, seed and the images drawn named; the last
            checkpoint, from before that step, stays).
    """
    with accelerator(base.device, settings.precision, together=together) as accelerated:
        return _finetune(base, subject, settings, sfsl, seed, folder, decoder, accelerated)


def _finetune(
    base: TextToImage,
    subject: Subject,
    settings: Finetune,
    sfsl: SFSL,
    seed: int,
    folder: Path,
    decoder: Decoder | None,
    accelerated: Accelerator,
) -> tuple[dict[str, dict[str, Tensor]], dict[str, list[float]]]:
    pipeline, device = base.pipeline, base.device
    token = _single_token(pipeline.tokenizer, settings.token)
    objective = Objective(base, subject, settings, sfsl, decoder, partial(autocast, accelerated))
    if settings.gradient_checkpointing:
        pipeline.unet.enable_gradient_checkpointing()
        pipeline.text_encoder.gradient_checkpointing_enable()
    with trainable(
        pipeline,
        settings,
        token=token,
        noun=_token_ids(pipeline.tokenizer, subject.noun).to(device),
        seed=derive_seed(seed, "adapters", subject.index),
    ) as modules:
        trained: dict[str, Tensor] = {
            f"{name}.{key}": parameter
            for name, module in modules.items()
            for key, parameter in module.train().named_parameters()
            if parameter.requires_grad
        }
        parameters = list(trained.values())
        adamw = torch.optim.AdamW(
            parameters,
            lr=settings.learning_rate,
            betas=(settings.beta1, settings.beta2),
            eps=settings.epsilon,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        # Not accelerate's to prepare: it would count a step once a process.
        schedule = get_scheduler(
            settings.lr_schedule, adamw, num_warmup_steps=0, num_training_steps=settings.steps
        )
        optimizer = accelerated.prepare_optimizer(adamw)
        average = {
            name: parameter.detach().clone()
            for name, parameter in trained.items()
            if settings.ema_decay
        }
        history = torch.full((settings.steps, len(Losses._fields)), torch.nan, device=device)
        state = _State(
            trained=trained,
            average=average,
            history=history,
            followed={"optimizer": optimizer, "schedule": schedule}
            | ({"scaler": accelerated.scaler} if accelerated.scaler else {}),
        )
        first = _load_checkpoint(folder, state)
        share = accelerated.process_index, accelerated.num_processes
        step_losses = accelerated.prepare_model(_StepLosses(objective, modules, seed, share))
        looked = first

        steps = range(first, settings.steps)
        for step in tracked(steps, "fine-tune", settings.steps, done=first):
            losses = step_losses(step)
            accelerated.backward(objective.total(losses))
            if settings.gradient_clip is not None:
                accelerated.clip_grad_norm_(parameters, settings.gradient_clip)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            if average:
                decay = min(settings.ema_decay, (1 + step) / (10 + step))
                with torch.no_grad():
                    torch._foreach_lerp_([*average.values()], parameters, 1 - decay)
            history[step] = torch.stack(losses).detach()

            # Losses are looked at only here: reading them every step would stall a GPU.
            done = step + 1
            if done % settings.checkpoint_every == 0 or done == settings.steps:
                history[looked:done] = accelerated.reduce(history[looked:done], "mean")
                looked = done
                _require_finite(history[:done], parameters, objective, seed, folder)
                if done < settings.steps and accelerated.is_main_process:
                    _save_checkpoint(folder, done, state)

        with torch.no_grad():
            for name, averaged in average.items():
                trained[name].copy_(averaged)

    weights_by_component = {
        name: {
            key: value.detach().to("cpu", copy=True)
            for key, value in getattr(pipeline, name).state_dict().items()
        }
        for name in TRAINED
    }
    if accelerated.is_main_process:
        (folder / CHECKPOINT).unlink(missing_ok=True)
    return weights_by_component, {
        name: history[:, column].tolist() for column, name in enumerate(Losses._fields)
    }


@dataclass(frozen=True)
class _State:
    """What a checkpoint holds beside the number of steps.

    Attributes:
        trained: parameters by name.
        average: their moving average by the same names; empty without one.
        history: each loss by step.
        followed: what else a step changes, by name, each with a state dict.
    """

    trained: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    history: Tensor
    followed: Mapping[str, Any]


class _StepLosses(nn.Module):
    """A step's losses, of this process's share of its samples, over the weights that are trained.

    A module, because that is what several processes' gradients are averaged by.
    """

    def __init__(
        self, objective: Objective, modules: dict[str, nn.Module], seed: int, share: tuple[int, int]
    ) -> None:
        super().__init__()
        self.trained = nn.ModuleDict(modules)
        self.objective, self.seed, self.share = objective, seed, share

    def forward(self, step: int) -> Losses:
        """The losses of step number ``step``, from 0."""
        return self.objective(self.objective.draw(self.seed, step).share(*self.share))


def _token_ids(tokenizer: Any, text: str) -> Tensor:
    """Ids of a text's tokens, (n,)."""
    return torch.tensor(tokenizer(text, add_special_tokens=False).input_ids)


def _single_token(tokenizer: Any, token: str) -> int:
    ids = _token_ids(tokenizer, token)
    if len(ids) != 1:
        raise SpurbenchError(
            f"finetune.token {token!r} is {len(ids)} tokens to the base's tokenizer; choose a rare "
            "one that is a single token, e.g. sks"
        )
    return int(ids[0])


def _require_finite(
    history: Tensor, parameters: list[Tensor], objective: Objective, seed: int, folder: Path
) -> None:
    """Refuse a loss or, after the last step, a weight that is not finite; name the first such step.

    Weights are looked at too, because a loss is taken before the step's update: a last step that
    ruined them would otherwise be kept as a good one.
    """
    ruined = ~history.isfinite().all(dim=1)
    if ruined.any():
        step = int(ruined.nonzero()[0])
        values = zip(Losses._fields, history[step].tolist(), strict=True)
        what = f"loss not finite at step {step} ({', '.join(f'{n} {v:.4g}' for n, v in values)})"
    elif not torch.stack(torch._foreach_norm(parameters, torch.inf)).isfinite().all():
        step = len(history) - 1
        what = f"weights not finite after step {step}, whose losses were finite"
    else:
        return
    subject, draw = objective.subject, objective.draw(seed, step)
    drawn = (
        f"seed {seed}, references {_named(subject.reference_names, draw.references)}, prior images "
        f"{_named(subject.prior_names, draw.priors)}, timesteps {_listed(draw.timesteps.tolist())}"
    )
    kept = folder / CHECKPOINT
    raise SpurbenchError(
        f"fine-tuning class {subject.index} ({subject.instance_prompt!r}): {what}; {drawn}; lower "
        "finetune.learning_rate or use float32"
        + (f"; the last good checkpoint is {kept}" if kept.exists() else "")
    )


def _named(names: Sequence[str], positions: Tensor) -> str:
    return _listed([names[position] for position in positions.tolist()])


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))


def _save_checkpoint(folder: Path, step: int, state: _State) -> None:
    held = {
        "step": step,
        "trained": {name: parameter.detach() for name, parameter in state.trained.items()},
        "average": state.average,
        "history": state.history,
        **{name: each.state_dict() for name, each in state.followed.items()},
    }
    with atomic.writing(folder / CHECKPOINT) as file:
        torch.save(held, file)


def _load_checkpoint(folder: Path, state: _State) -> int:
    """Restore the state after the returned number of steps; 0 without a checkpoint to be read."""
    path = folder / CHECKPOINT
    if not path.is_file():
        return 0
    untouched = {name: copy.deepcopy(each.state_dict()) for name, each in state.followed.items()}
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
        step: int = held["step"]
        values = [(there, held["trained"][name]) for name, there in state.trained.items()]
        values += [(there, held["average"][name]) for name, there in state.average.items()]
        values.append((state.history, held["history"]))
        if any(there.shape != saved.shape for there, saved in values):
            raise ValueError("it is of other weights")
        if step not in range(1, len(state.history)):
            raise ValueError(f"it is of step {step}")
        for name, each in state.followed.items():
            each.load_state_dict(held[name])
    except Exception as error:  # what torch raises of a damaged file has no common ancestor
        log.warning("%s can't be read (%s); fine-tuning starts over", path, reason(error))
        for name, each in state.followed.items():
            each.load_state_dict(untouched[name])
        return 0
    with torch.no_grad():
        for there, saved in values:
            there.copy_(saved)
    log.info("going on from step %d (%s)", step, path)
    return step
