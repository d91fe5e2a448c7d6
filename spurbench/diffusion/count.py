"""Counting what a text-to-image model costs per sample, on tensors without content."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from spurbench.diffusion.cost import Cost, Costs
from spurbench.recipe.schema import Recipe


def count(configs: dict[str, dict[str, Any]], recipe: Recipe) -> Costs:
    """Count operations and kept activations per sample.

    Args:
        configs: ``unet``, ``vae`` and ``text_encoder``, as their ``config.json`` hold them.
        recipe: for resolution, precision and gradient checkpointing.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    with torch.device("meta"):
        cases, encode = _cases(configs, recipe)
        parameters = {
            name: sum(p.numel() for p in net.parameters()) for name, (net, _) in cases.items()
        }
        operations = {name: _training_operations(run) for name, (_, run) in cases.items()}
        encoding = _operations(encode)
    # Fake tensors pass through the same kernels as a device's, fused attention among them, which
    # keeps no attention matrix; on meta it would be written out.
    with FakeTensorMode():
        cases, _ = _cases(configs, recipe)
        kept = {name: _kept(net, run) for name, (net, run) in cases.items()}
    costs = {
        name: Cost(
            forward=operations[name][0],
            training=operations[name][1],
            kept=kept[name],
            parameters=parameters[name],
        )
        for name in cases
    }
    return Costs(
        unet=costs["unet"],
        text_encoder=costs["text_encoder"],
        decode=costs["vae"],
        encode=encoding,
        vae_parameters=parameters["vae"],
    )


def _cases(
    configs: dict[str, dict[str, Any]], recipe: Recipe
) -> tuple[dict[str, tuple[nn.Module, Callable[[], Tensor]]], Callable[[], Any]]:
    """The networks as they are trained, each with a forward pass of one sample; and an encoding."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    dtype = getattr(torch, recipe.finetune.precision)
    with _default_dtype(dtype):  # a network of fake tensors can't be converted afterwards
        unet = UNet2DConditionModel.from_config(configs["unet"])
        vae = AutoencoderKL.from_config(configs["vae"]).requires_grad_(False)
        text_encoder = CLIPTextModel(CLIPTextConfig(**configs["text_encoder"]))
    if recipe.finetune.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
        text_encoder.gradient_checkpointing_enable()
    if recipe.finetune.gradient_checkpointing or recipe.sfsl.checkpoint_decoder:
        vae.enable_gradient_checkpointing()
    unet.train()
    text_encoder.train()
    resolution = recipe.base.resolution
    side = resolution // 2 ** (len(vae.config.block_out_channels) - 1)
    tokens = text_encoder.config.max_position_embeddings
    latents = torch.empty(1, unet.config.in_channels, side, side, dtype=dtype, requires_grad=True)
    prompt = torch.empty(1, tokens, unet.config.cross_attention_dim, dtype=dtype)
    time, ids = (torch.empty(1, *shape, dtype=torch.int64) for shape in ((), (tokens,)))
    pixels = torch.empty(1, 3, resolution, resolution, dtype=dtype)
    return {
        "unet": (unet, lambda: unet(latents.detach(), time, prompt).sample),
        "text_encoder": (text_encoder, lambda: text_encoder(ids)[0]),
        "vae": (vae, lambda: vae.decode(latents).sample),
    }, lambda: vae.encode(pixels)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _training_operations(run: Callable[[], Tensor]) -> tuple[float, float]:
    """Floating point operations of a forward pass, and of it with its backward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        output = run()
        forward = counter.get_total_flops()
        output.sum().backward()
    return forward, counter.get_total_flops()


@torch.no_grad()
def _operations(run: Callable[[], Any]) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def _kept(network: nn.Module, run: Callable[[], Tensor]) -> float:
    """Bytes of what a forward pass keeps for the backward pass, the weights left out."""
    weights = {p.untyped_storage()._cdata for p in network.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = run()
    del output  # the graph holds what was noted until here, so that no address is counted twice
    return sum(kept.values())
