from __future__ import annotations

import numpy as np
import pytest
import torch

from spurbench.core.errors import SpurbenchError
from spurbench.diffusion.sample import initial_noise, sample

CPU = torch.device("cpu")


def test_noise_depends_on_its_own_seed_only():
    together, alone = initial_noise([3, 4, 5], (4, 8, 8)), initial_noise([4], (4, 8, 8))
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[1])


def test_batch_size_and_order_do_not_change_an_image(base):
    options = {"resolution": 32, "steps": 2, "guidance_scale": 3.0}
    one = list(sample(base, "a photo", [1, 2, 3], batch_size=1, **options))
    three = list(sample(base, "a photo", [3, 2, 1], batch_size=3, **options))
    for a, b in zip(one, reversed(three), strict=True):
        assert np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 1
    assert np.abs(np.asarray(one[0], int) - np.asarray(one[1], int)).max() > 1


def test_guidance_and_prompt_reach_the_model(base):
    options = {"resolution": 32, "steps": 2, "batch_size": 1}
    images_ = [
        np.asarray(next(sample(base, prompt, [1], guidance_scale=scale, **options)))
        for prompt, scale in (("a photo", 1.0), ("a photo", 8.0), ("a sks", 8.0))
    ]
    assert not np.array_equal(images_[0], images_[1])
    assert not np.array_equal(images_[1], images_[2])


def test_the_prompt_is_encoded_once_and_guidance_takes_one_call(base):
    calls = []
    base.pipeline.text_encoder.register_forward_hook(lambda *_: calls.append("text"))
    base.pipeline.unet.register_forward_hook(
        lambda module, inputs, output: calls.append(len(inputs[0]))
    )
    options = {"resolution": 32, "steps": 2, "guidance_scale": 3.0, "batch_size": 2}
    list(sample(base, "a photo", [1, 2, 3], **options))
    # Prompt and empty prompt; then three calls of PNDM's two steps, both halves together.
    assert calls == ["text", "text", *[4] * 3, *[2] * 3]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_sampling_in_low_precision_comes_near_and_leaves_the_weights(base, precision):
    options = {"resolution": 32, "steps": 3, "guidance_scale": 3.0, "batch_size": 2}
    exact = list(sample(base, "a photo", [1, 2], **options))
    dtypes = set()
    hook = base.pipeline.unet.conv_in.register_forward_hook(
        lambda module, inputs, output: dtypes.add(output.dtype)
    )
    low = list(sample(base, "a photo", [1, 2], **options, precision=precision))
    hook.remove()
    assert dtypes == {getattr(torch, precision)}
    assert base.pipeline.unet.dtype == base.pipeline.vae.dtype == torch.float32
    difference = np.abs(np.asarray(exact, int) - np.asarray(low, int))
    assert 0 < difference.mean() < 2
    assert not base.pipeline.unet._forward_hooks


def test_an_image_that_is_not_finite_is_refused(base):
    with torch.no_grad():
        base.pipeline.unet.conv_out.bias[0] = torch.nan
    with pytest.raises(SpurbenchError, match=r"image 0 of 'a photo' \(seed 1\) is not finite"):
        list(sample(base, "a photo", [1], resolution=32, steps=2, guidance_scale=1, batch_size=1))
