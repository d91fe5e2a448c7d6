"""The three losses, against plain ones written by hand in float64."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from typing import get_args

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, EulerDiscreteScheduler
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from makers.toy import noise_images, save_toy_pipeline, toy_pipeline, toy_subject
from spurbench.diffusion.base import Decoder, TextToImage, load_base
from spurbench.diffusion.objective import Losses, Objective
from spurbench.recipe.sections import SFSL, Finetune, SFSLGradient

CPU = torch.device("cpu")
SETTINGS = Finetune(batch_size=2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Toy bases: like Stable Diffusion 1.x (epsilon) and like 2.x (v_prediction)."""
    return {
        kind: save_toy_pipeline(tmp_path_factory.mktemp(kind) / "base", kind)
        for kind in ("epsilon", "v_prediction")
    }


def load(folder) -> TextToImage:
    base = load_base(str(folder), revision=None, device=CPU)
    for network in (base.pipeline.unet, base.pipeline.text_encoder):
        network.requires_grad_(True)
    return base


@pytest.fixture
def base(folders):
    return load(folders["epsilon"])


def cropped(image: Image.Image) -> Image.Image:
    """The 32 x 32 pixels in the middle of an image whose short side is 32."""
    left, top = (side - 32 for side in image.size)
    return image.crop((left // 2, top // 2, left // 2 + 32, top // 2 + 32))


def by_hand(
    base, subject, draw, gradient, weighting, decode_resolution=None
) -> tuple[torch.Tensor, ...]:
    """The method's formulas in float64, sample by sample: every image is encoded and every prompt
    read anew, and nothing is kept from before. Returns the losses, and the base they are of."""
    pipe = copy.deepcopy(base.pipeline)
    for network in (pipe.unet, pipe.text_encoder, pipe.vae):
        network.double()
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alpha_bars = np.cumprod(1 - betas)
    batch = len(draw.references)
    images = [subject.references[i] for i in draw.references]
    images += [subject.priors[i] for i in draw.priors]
    prompts = [subject.instance_prompt] * batch + [subject.prior_prompt] * batch

    def phi(pixels):
        resized = torch.nn.functional.interpolate(
            (pixels / 2 + 0.5).clamp(0, 1), (20, 20), mode="bilinear", antialias=True
        )
        return copy.deepcopy(subject.phi).double()(resized)[0]

    def psi(pixels):
        return subject.class_weight.double() * phi(pixels)

    errors, real, made = [], [], []
    for i, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
        x = torch.from_numpy(np.array(cropped(image))).permute(2, 0, 1)[None].double() / 127.5 - 1
        posterior = pipe.vae.encode(x).latent_dist
        z = (posterior.mean + posterior.std * draw.posterior_noise[i].double()) * 0.18215
        a = alpha_bars[draw.timesteps[i]]
        alpha, sigma = a**0.5, (1 - a) ** 0.5
        eps = draw.noise[i].double()
        z_t = alpha * z + sigma * eps
        ids = pipe.tokenizer(
            prompt, padding="max_length", max_length=24, return_tensors="pt"
        ).input_ids
        out = pipe.unet(z_t, draw.timesteps[i], pipe.text_encoder(ids)[0]).sample
        if pipe.scheduler.config.prediction_type == "epsilon":
            errors.append(((out - eps) ** 2).mean())
            x0 = (z_t - sigma * out) / alpha
        else:
            errors.append(((out - (alpha * eps - sigma * z)) ** 2).mean())
            x0 = alpha * z_t - sigma * out
        real.append(psi(x))
        if decode_resolution is not None:  # an image is four times as wide as its latents
            side = decode_resolution // 4
            x0 = torch.nn.functional.interpolate(x0, (side, side), mode="bilinear", antialias=True)
        decoded = pipe.vae.decode(x0 / 0.18215).sample
        # The toy's phi ends in what its classifier's third class is the third logit of.
        made.append((phi if gradient == "cross_entropy" else psi)(decoded))
    terms = []
    for i in range(batch):
        j = i + batch
        a, b = alpha_bars[draw.timesteps[i]], alpha_bars[draw.timesteps[j]]
        if gradient == "cross_entropy":
            terms.append(a * (made[i].exp().sum().log() - made[i][2]))
            continue
        pair, weight = {
            "prior": ((real[i], made[j]), b),
            "instance": ((made[i], real[j]), a),
            "both": ((made[i], made[j]), (a * b) ** 0.5),
            "attract": ((made[i], real[i]), a),
        }[gradient]
        u, v = pair
        cosine = (u * v).sum() / (u * u).sum().sqrt() / (v * v).sum().sqrt()
        cosine = 1 - cosine if gradient == "attract" else cosine
        terms.append(cosine * (weight if weighting == "alpha_bar" else 1))
    instance, prior = sum(errors[:batch]) / batch, sum(errors[batch:]) / batch
    return pipe, instance, prior, sum(terms) / batch


@pytest.mark.parametrize(
    ("kind", "gradient", "weighting", "decode_resolution"),
    [
        ("epsilon", "prior", "alpha_bar", None),
        ("epsilon", "prior", "uniform", None),
        ("epsilon", "instance", "alpha_bar", None),
        ("epsilon", "both", "alpha_bar", None),
        ("epsilon", "attract", "alpha_bar", None),
        ("epsilon", "attract", "alpha_bar", 16),
        ("epsilon", "cross_entropy", "alpha_bar", None),
        ("v_prediction", "prior", "alpha_bar", None),
        ("v_prediction", "both", "alpha_bar", 64),
    ],
)
def test_every_loss_and_its_gradient_are_those_worked_out_by_hand(
    folders, kind, gradient, weighting, decode_resolution
):
    base, subject = load(folders[kind]), toy_subject()
    sfsl = SFSL(
        gradient=gradient, timestep_weighting=weighting, decode_resolution=decode_resolution
    )
    objective = Objective(base, subject, SETTINGS, sfsl)
    draw = objective.draw(5, 0)
    mine = objective(draw)
    pipe, *reference = by_hand(base, subject, draw, gradient, weighting, decode_resolution)
    for name, value, expected in zip(Losses._fields, mine, reference, strict=True):
        assert value.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6), name
        for network in ("unet", "text_encoder"):
            trained = list(getattr(base.pipeline, network).parameters())
            truth = list(getattr(pipe, network).parameters())
            found = torch.autograd.grad(value, trained, retain_graph=True, allow_unused=True)
            true = torch.autograd.grad(expected, truth, retain_graph=True, allow_unused=True)
            found, true = (
                torch.cat([g.flatten().double() for g in grads if g is not None])
                for grads in (found, true)
            )
            assert true.norm() > 0
            assert (found - true).norm() < 2e-3 * true.norm(), (name, network)


@pytest.mark.parametrize("size", [(96, 64), (64, 120), (24, 16)])
def test_images_are_resized_by_their_short_side_and_cropped_in_the_middle(base, size):
    """Pillow's bicubic filter, to its rounding; what was red left and right, or above and below,
    of the middle is cut off."""
    picture = Image.new("RGB", size, "red")
    short = min(size)
    left, top = ((side - short) // 2 for side in size)
    middle = noise_images(1, 3, side=short)[0]
    picture.paste(middle, (left, top))
    subject = toy_subject(references=[picture], reference_names=["r"])
    seen = []
    base.pipeline.vae.encoder.register_forward_hook(
        lambda module, inputs, _: seen.append(inputs[0])
    )
    Objective(base, subject, SETTINGS, SFSL())
    expected = np.asarray(middle.resize((32, 32), Image.Resampling.BICUBIC), float)
    found = (seen[0][0].permute(1, 2, 0).numpy() + 1) * 127.5
    inner = slice(3, -3)  # the filter looks a few pixels over the edge
    assert np.abs(found - expected)[inner, inner].max() < 1.5


def test_the_sum_is_weighted_by_lambda_kappa_and_the_steps_left_out(base):
    subject = toy_subject(kappa=0.7)
    settings = Finetune(prior_weight=0.25)
    objective = Objective(base, subject, settings, SFSL(every=3))
    one, two, three = torch.tensor(1.0), torch.tensor(2.0), torch.tensor(4.0)
    assert objective.total(Losses(one, two, three)).item() == pytest.approx(
        1 + 0.25 * 2 + 0.7 * 3 * 4
    )
    assert [objective(objective.draw(0, step)).sfsl.item() != 0 for step in range(4)] == [
        True,
        False,
        False,
        True,
    ]


def test_latents_are_drawn_anew_from_the_cached_posterior(base):
    """A mean and a deviation are kept, not a draw: other noise gives other latents, and the same
    noise those of encoding in the step, to 1e-5."""
    subject = toy_subject()
    objective = Objective(base, subject, SETTINGS, SFSL())
    draw = objective.draw(0, 0)
    first = objective(draw)
    _, instance, prior, _ = by_hand(base, subject, draw, "prior", "alpha_bar")
    assert first.instance.item() == pytest.approx(instance.item(), rel=1e-5)
    assert first.prior.item() == pytest.approx(prior.item(), rel=1e-5)
    again = objective(replace(draw, posterior_noise=-draw.posterior_noise))
    assert again.instance.item() != pytest.approx(first.instance.item(), rel=1e-5)


def test_a_step_encodes_two_prompts_and_calls_the_unet_once(base):
    objective = Objective(base, toy_subject(), Finetune(batch_size=3), SFSL())
    seen = []
    base.pipeline.vae.encoder.register_forward_hook(lambda *_: seen.append("encoder"))
    base.pipeline.text_encoder.register_forward_hook(
        lambda module, inputs, output: seen.append(("prompts", len(inputs[0])))
    )
    base.pipeline.unet.register_forward_hook(
        lambda module, inputs, output: seen.append(("unet", len(inputs[0])))
    )
    objective(objective.draw(0, 0))
    assert seen == [("prompts", 2), ("unet", 6)]


def test_the_noise_does_not_depend_on_the_bases_scheduler(base):
    """Euler's add_noise is another formula; Stable Diffusion 2.x bases may come with it."""
    draw = Objective(base, toy_subject(), SETTINGS, SFSL()).draw(0, 0)
    expected = Objective(base, toy_subject(), SETTINGS, SFSL())(draw)
    base.pipeline.scheduler = EulerDiscreteScheduler.from_config(base.pipeline.scheduler.config)
    found = Objective(base, toy_subject(), SETTINGS, SFSL())(draw)
    torch.testing.assert_close(torch.stack(found), torch.stack(expected))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_computes_in_it_and_keeps_float32_weights(base, precision):
    dtypes = set()
    base.pipeline.unet.mid_block.resnets[0].conv1.register_forward_hook(
        lambda module, inputs, output: dtypes.add(output.dtype)
    )
    draw = Objective(base, toy_subject(), SETTINGS, SFSL()).draw(0, 0)
    exact = torch.stack(Objective(base, toy_subject(), SETTINGS, SFSL())(draw))
    assert dtypes == {torch.float32}
    dtypes.clear()
    autocast = partial(torch.autocast, "cpu", dtype=getattr(torch, precision))
    objective = Objective(base, toy_subject(), SETTINGS, SFSL(), autocast=autocast)
    losses = objective(draw)
    assert dtypes == {getattr(torch, precision)}
    objective.total(losses).backward()
    for parameter in base.pipeline.unet.parameters():
        assert parameter.dtype == parameter.grad.dtype == torch.float32
    torch.testing.assert_close(torch.stack(losses), exact, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("gradient", ["attract", "both"])
def test_shares_of_a_step_have_its_losses_for_their_mean(base, gradient):
    settings, sfsl = Finetune(batch_size=6), SFSL(gradient=gradient, max_timestep=0.7)
    objective = Objective(base, toy_subject(), settings, sfsl)
    draw = objective.draw(0, 0)
    shares = [objective(draw.share(rank, 3)) for rank in range(3)]
    whole = torch.stack(objective(draw))
    torch.testing.assert_close(torch.stack([torch.stack(s) for s in shares]).mean(dim=0), whole)
    assert (whole > 0).all() and len({s.instance.item() for s in shares}) == 3


def test_attention_is_fused(base):
    """PyTorch's scaled_dot_product_attention in both networks."""
    assert base.pipeline.text_encoder.config._attn_implementation == "sdpa"
    processors = {type(p).__name__ for p in base.pipeline.unet.attn_processors.values()}
    assert processors == {"AttnProcessor2_0"}


class Transfers(TorchDispatchMode):
    """Notes what makes a host wait for its GPU: blocking copies, and values or host indices that a
    kernel needs. Values that are read back raise in any case: these tensors have none."""

    def __init__(self):
        super().__init__()
        self.sent, self.waits = 0, []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        options = options or {}
        result = function(*arguments, **options)
        tensors = [a for a in torch.utils._pytree.tree_leaves(arguments) if torch.is_tensor(a)]
        devices = {t.device.type for t in tensors if t.dim()}
        if function is torch.ops.aten._to_copy.default and torch.is_tensor(result):
            if {tensors[0].device.type, result.device.type} == {"cpu", "cuda"}:
                self.sent += 1
                if not options.get("non_blocking"):
                    self.waits.append(str(function))
        elif devices == {"cpu", "cuda"}:
            self.waits.append(str(function))
        return result


def test_a_step_never_makes_the_host_wait_for_the_gpu(monkeypatch):
    """On tensors that claim to lie on a GPU and hold nothing."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)  # needs a real GPU
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.device("cuda"):
        base = TextToImage(toy_pipeline(), "toy", "", {})
        phi = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1200, 7))
        weight = torch.ones(7)
    for gradient in get_args(SFSLGradient):
        sfsl = SFSL(gradient=gradient, max_timestep=0.9, decode_resolution=16)
        with mode:
            subject = toy_subject(
                phi=phi,
                class_weight=weight,
                log_probability=lambda pixels: phi(pixels).log_softmax(dim=1)[:, 2],
            )
            objective = Objective(base, subject, SETTINGS, sfsl)
        draw = objective.draw(0, 0)  # outside: what is drawn on the host has values
        with mode, Transfers() as transfers:
            total = objective.total(objective(draw))
        assert total.device.type == "cuda"
        assert transfers.sent >= 5
        assert not transfers.waits, gradient


def test_a_checkpointed_decoder_keeps_less_and_gives_the_same(base):
    draw = Objective(base, toy_subject(), SETTINGS, SFSL()).draw(0, 0)
    kept, gradients = [], []
    for checkpointed in (False, True):
        objective = Objective(base, toy_subject(), SETTINGS, SFSL(checkpoint_decoder=checkpointed))
        stored: dict[int, torch.Tensor] = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, stored=stored: stored.setdefault(tensor.data_ptr(), tensor),
            lambda tensor: tensor,
        ):
            loss = objective(draw).sfsl
        kept.append(sum(t.untyped_storage().nbytes() for t in stored.values()))
        gradients.append(torch.autograd.grad(loss, base.pipeline.unet.conv_in.weight)[0])
    assert kept[1] < kept[0]
    assert torch.equal(*gradients)


def test_a_tiny_decoder_replaces_the_vae(base):
    torch.manual_seed(5)
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    ).requires_grad_(False)
    objective = Objective(base, toy_subject(), SETTINGS, SFSL(), Decoder(tiny, "tiny"))
    called = []
    base.pipeline.vae.decoder.register_forward_hook(lambda *_: called.append("vae"))
    tiny.decoder.register_forward_hook(lambda *_: called.append("tiny"))
    objective.total(objective(objective.draw(0, 0))).backward()
    assert called == ["tiny"]
