"""Which of a pipeline's weights a fine-tuning method trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from spurbench.core.errors import SpurbenchError
from spurbench.recipe.sections import Finetune


@contextmanager
def trainable(
    pipeline: Any, settings: Finetune, *, token: int, noun: Tensor, seed: int
) -> Iterator[dict[str, nn.Module]]:
    """Make ready what ``settings.method`` trains.

    Leaving the block puts the pipeline back into its ordinary form: low-rank adapters are merged
    into the weights they adapt, a learned embedding becomes [V]'s row of the table. After an
    exception they are dropped instead.

    Args:
        pipeline: a Stable Diffusion pipeline, nothing in it requiring gradients.
        settings: the method, and which layers get adapters.
        token: id of [V].
        noun: ids of the noun's tokens, (n,); textual inversion starts from their mean embedding.
        seed: of the adapters' initialisation.

    Yields:
        Modules by name. Their parameters that require gradients are what is to be trained.

    Raises:
        SpurbenchError: if no layer of a network is among ``lora_modules``.
    """
    networks = {"unet": pipeline.unet}
    if settings.train_text_encoder:
        networks["text_encoder"] = pipeline.text_encoder
    with ExitStack() as stack:
        match settings.method:
            case "full":
                modules = {name: net.requires_grad_(True) for name, net in networks.items()}
            case "lora":
                modules = {
                    name: stack.enter_context(_adapters(name, net, settings, seed))
                    for name, net in networks.items()
                }
            case "textual_inversion":
                modules = {"token": stack.enter_context(_token(pipeline.text_encoder, token, noun))}
            case "base":
                modules = {}
        try:
            yield modules
        finally:
            for network in networks.values():
                network.requires_grad_(False).eval()


@contextmanager
def _adapters(name: str, network: Any, settings: Finetune, seed: int) -> Iterator[nn.Module]:
    from peft import LoraConfig, LoraModel

    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_rank,
        target_modules=list(settings.lora_modules),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            adapted = LoraModel(network, config, "default")
        except ValueError:
            raise SpurbenchError(
                f"none of finetune.lora_modules ({', '.join(settings.lora_modules)}) is a layer of "
                f"the {name}"
            ) from None
    try:
        yield network
    except BaseException:
        adapted.unload()
        raise
    adapted.merge_and_unload()


class _Embedding(nn.Module):
    def __init__(self, vector: Tensor) -> None:
        super().__init__()
        self.vector = nn.Parameter(vector)


@contextmanager
def _token(text_encoder: Any, token: int, noun: Tensor) -> Iterator[nn.Module]:
    table = text_encoder.get_input_embeddings()
    learned = _Embedding(table.weight[noun].mean(dim=0).detach().clone())

    def replace(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        return torch.where((inputs[0] == token)[..., None], learned.vector, output)

    hook = table.register_forward_hook(replace)
    try:
        yield learned
    finally:
        hook.remove()
    with torch.no_grad():
        table.weight[token] = learned.vector
