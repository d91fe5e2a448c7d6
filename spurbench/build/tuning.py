"""Stage 3, fine-tuning a class: in this process, or in several that share out every step."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, multiprocessing

from spurbench.build.request import BuildRequest
from spurbench.build.sampling import image_files, numbered
from spurbench.build.store import Stage
from spurbench.build.workshop import Workshop, load_tuned
from spurbench.classifiers.classifier import Classifier
from spurbench.core import atomic
from spurbench.core.errors import SpurbenchError, described
from spurbench.core.progress import reporting_to
from spurbench.diffusion.base import TRAINED, Decoder, TextToImage
from spurbench.diffusion.finetune import finetune
from spurbench.diffusion.objective import Subject
from spurbench.diffusion.processes import join
from spurbench.evaluation import panel
from spurbench.images.decode import decode_rgb
from spurbench.images.records import ImageRecord
from spurbench.recipe.classes import SpuriousClass
from spurbench.recipe.schema import Recipe


@dataclass(frozen=True)
class _Task:
    """What is fine-tuned on what, without the models; it is pickled to other processes."""

    request: BuildRequest
    spurious_class: SpuriousClass
    references: Sequence[Image.Image]
    reference_names: Sequence[str]
    priors: Sequence[Path]
    seed: int
    folder: Path


def tune(
    shop: Workshop,
    spurious_class: SpuriousClass,
    references: Sequence[ImageRecord],
    prior: Stage,
    replicate: int,
) -> Stage:
    """Stage 3; a class's generators differ in the seed alone."""
    recipe = shop.request.recipe
    seed = shop.request.replicate_seed(replicate)
    kappa = recipe.kappa_of(spurious_class)
    processes = shop.request.gpus_per_class
    of_other = kappa and recipe.sfsl.weights == "other"

    def make(folder: Path) -> None:
        task = _Task(
            request=shop.request,
            spurious_class=spurious_class,
            references=[decode_rgb(record.read()) for record in references],
            reference_names=[Path(record.path).name for record in references],
            priors=image_files(prior),
            seed=seed,
            folder=folder,
        )
        if processes == 1:
            shop.base.restore()
            _keep(task, _tuned(task, shop.base, shop.phi, shop.decoder, together=False))
        else:
            _together(task, processes, shop.device)

    inputs = {
        "base": shop.base.fingerprint,
        "resolution": recipe.base.resolution,
        "class": spurious_class.index,
        "prompts": [recipe.instance_prompt(spurious_class), recipe.prior_prompt(spurious_class)],
        "references": [record.sha256 for record in references],
        "prior": prior.fingerprint,
        "phi": panel.fingerprint([shop.phi]),
        "kappa": kappa,
        "seed": seed,
        "finetune": recipe.finetune.model_dump(mode="json", exclude={"checkpoint_every"}),
        # Without the loss its settings change nothing; so ablations share what they have in common.
        "sfsl": recipe.sfsl.model_dump(mode="json", exclude={"kappa", "default_kappa"})
        if kappa
        else None,
        **({"weights": recipe.classes.after(spurious_class).index} if of_other else {}),
        "decoder": shop.decoder.fingerprint if shop.decoder else None,
        # Sums that are shared out come out otherwise in the last digits.
        **({"processes": processes} if processes > 1 else {}),
    }
    label = numbered("fine-tune", replicate)
    return shop.run(spurious_class.slug, label, "finetune", inputs, make)


Tuned = tuple[dict[str, dict[str, Tensor]], dict[str, list[float]]]


def _tuned(
    task: _Task, base: TextToImage, phi: Classifier, decoder: Decoder | None, *, together: bool
) -> Tuned:
    recipe, spurious_class = task.request.recipe, task.spurious_class
    subject = Subject(
        index=spurious_class.index,
        references=task.references,
        priors=[Image.open(path) for path in task.priors],
        reference_names=task.reference_names,
        prior_names=[path.name for path in task.priors],
        instance_prompt=recipe.instance_prompt(spurious_class),
        prior_prompt=recipe.prior_prompt(spurious_class),
        noun=spurious_class.noun,
        resolution=recipe.base.resolution,
        kappa=recipe.kappa_of(spurious_class),
        phi=phi.features,
        phi_input=phi.input_size,
        class_weight=_class_weight(recipe, spurious_class, phi),
        log_probability=partial(phi.log_probability, wnid=spurious_class.wnid),
    )
    return finetune(
        base,
        subject,
        recipe.finetune,
        recipe.sfsl,
        task.seed,
        task.folder,
        decoder,
        together=together,
    )


def _class_weight(recipe: Recipe, spurious_class: SpuriousClass, phi: Classifier) -> Tensor:
    """What psi multiplies phi's features by, (D,), as ``sfsl.weights`` says."""
    whose = spurious_class
    if recipe.sfsl.weights == "other":
        whose = recipe.classes.after(spurious_class)
    row = phi.head_weight[phi.columns([whose.wnid])[0]]
    return torch.ones_like(row) if recipe.sfsl.weights == "ones" else row


def _keep(task: _Task, tuned: Tuned) -> None:
    weights, losses = tuned
    dtype = getattr(torch, task.request.recipe.finetune.weights_dtype)
    for name in TRAINED:
        tensors = {
            key: value.to(dtype).contiguous() if value.is_floating_point() else value
            for key, value in weights[name].items()
        }
        save_file(tensors, task.folder / f"{name}.safetensors")
    atomic.write_json(task.folder / "losses.json", losses)


def _together(task: _Task, processes: int, device: torch.device) -> None:
    """Have processes of their own do it, each on a GPU; on a processor each with one thread.

    They are started for one class and load the models anew: nothing of theirs stays in this
    process, and one that dies takes the others with it, and the class.

    Raises:
        SpurbenchError: if there are too few GPUs, or what one of the processes raised.
    """
    if device.type == "cuda" and torch.cuda.device_count() < processes:
        raise SpurbenchError(
            f"--gpus-per-class {processes}, and this process sees {torch.cuda.device_count()}; "
            "lower it, or CUDA_VISIBLE_DEVICES hides some"
        )
    said = multiprocessing.get_context("spawn").SimpleQueue()
    with tempfile.TemporaryDirectory() as meeting:
        arguments = (processes, task, device, Path(meeting) / "meeting", said)
        started = multiprocessing.start_processes(
            _one_of_several, arguments, processes, join=False, start_method="spawn"
        )
        try:
            while not started.join():
                pass
        except multiprocessing.ProcessExitedException as error:
            why = said.get() if not said.empty() else str(error)
            raise SpurbenchError(why) from None
        finally:
            for process in started.processes:
                process.kill()


def _one_of_several(
    rank: int, processes: int, task: _Task, device: torch.device, meeting: Path, said: Any
) -> None:
    own = torch.device("cuda", rank) if device.type == "cuda" else device
    try:
        join(rank, processes, own, meeting)
        models = load_tuned(task.request.recipe, own)
        with reporting_to(lambda *_: None):
            tuned = _tuned(task, *models, together=True)
        if rank == 0:
            _keep(task, tuned)
    except Exception as error:  # said in a line by the process that started this one
        said.put(described(error))
        os._exit(1)
    torch.distributed.destroy_process_group()
