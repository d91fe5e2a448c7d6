from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from PIL import Image
from toy import save_toy_pipeline

from spurbench.diffusion.base import load_base, load_decoder
from spurbench.diffusion.finetune import CHECKPOINT, finetune
from spurbench.diffusion.objective import Subject
from spurbench.diffusion.sample import initial_noise, sample
from spurbench.errors import SpurbenchError
from spurbench.recipe import SFSL, Finetune

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory):
    return save_toy_pipeline(tmp_path_factory.mktemp("toy") / "base")


@pytest.fixture
def base(toy_folder):
    return load_base(str(toy_folder), revision=None, relative_to=toy_folder, device=CPU)


def images(count: int, seed: int) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(count)
    ]


@pytest.fixture
def subject():
    torch.manual_seed(1)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 5, stride=4),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(96, 7),
    ).requires_grad_(False)
    return Subject(
        index=94,
        references=images(3, 0),
        priors=images(4, 1),
        reference_names=["r0.png", "r1.png", "r2.png"],
        prior_names=["p0.png", "p1.png", "p2.png", "p3.png"],
        instance_prompt="a photo of a sks flower",
        prior_prompt="a photo of a flower",
        noun="flower",
        resolution=32,
        kappa=1.0,
        phi=network,
        phi_input=(20, 20),
        class_weight=torch.linspace(-1, 1, 7),
    )


def replace(subject: Subject, **changes) -> Subject:
    from dataclasses import replace

    return replace(subject, **changes)


SETTINGS = Finetune(steps=4, learning_rate=1e-3, checkpoint_every=2, batch_size=2)


def weights_of(module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> bool:
    return any(not torch.equal(before[key], after[key]) for key in before)


def test_unet_and_text_encoder_move_and_the_vae_does_not(base, subject, tmp_path):
    pipeline = base.pipeline
    before = {n: weights_of(getattr(pipeline, n)) for n in ("unet", "text_encoder", "vae")}
    weights, losses = finetune(base, subject, SETTINGS, SFSL(), 0, tmp_path)
    assert moved(before["unet"], weights["unet"])
    assert moved(before["text_encoder"], weights["text_encoder"])
    assert not moved(before["vae"], pipeline.vae.state_dict())
    assert {len(values) for values in losses.values()} == {4}
    assert all(np.isfinite(values).all() for values in losses.values())
    base.restore()
    assert not moved(before["unet"], pipeline.unet.state_dict())
    assert not moved(before["text_encoder"], pipeline.text_encoder.state_dict())


def test_a_frozen_text_encoder_stays(base, subject, tmp_path):
    before = weights_of(base.pipeline.text_encoder)
    settings = SETTINGS.model_copy(update={"train_text_encoder": False})
    weights, _ = finetune(base, subject, settings, SFSL(), 0, tmp_path)
    assert not moved(before, weights["text_encoder"])


def test_lora_changes_only_the_adapted_layers_and_by_little_rank(base, subject, tmp_path):
    before = {n: weights_of(getattr(base.pipeline, n)) for n in ("unet", "text_encoder", "vae")}
    settings = SETTINGS.model_copy(update={"method": "lora", "lora_rank": 2, "learning_rate": 1e-2})
    weights, _ = finetune(base, subject, settings, SFSL(), 0, tmp_path)
    assert not moved(before["vae"], base.pipeline.vae.state_dict())
    for component, suffixes in (
        ("unet", ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight")),
        ("text_encoder", ("q_proj.weight", "k_proj.weight", "v_proj.weight", "out_proj.weight")),
    ):
        assert weights[component].keys() == before[component].keys()
        for key, value in weights[component].items():
            change = value - before[component][key]
            if key.endswith(suffixes):
                assert torch.linalg.matrix_rank(change, rtol=1e-3) in (1, 2), key
            else:
                assert not change.any(), key
    # What is sampled with is the merged model, and the next class finds the base's keys.
    state = base.pipeline.unet.state_dict()
    assert all(torch.equal(state[key], value) for key, value in weights["unet"].items())
    base.restore()


def test_textual_inversion_changes_only_the_tokens_embedding(base, subject, tmp_path):
    tokenizer, table = base.pipeline.tokenizer, base.pipeline.text_encoder.get_input_embeddings()
    before = {n: weights_of(getattr(base.pipeline, n)) for n in ("unet", "text_encoder")}
    settings = SETTINGS.model_copy(
        update={"method": "textual_inversion", "learning_rate": 1e-3, "steps": 2}
    )
    start = table.weight[tokenizer("flower", add_special_tokens=False).input_ids].mean(dim=0)
    weights, _ = finetune(base, subject, settings, SFSL(), 0, tmp_path)
    assert not moved(before["unet"], weights["unet"])
    for key, value in weights["text_encoder"].items():
        rows = (value != before["text_encoder"][key]).flatten(1).any(1) if value.dim() > 1 else None
        if key.endswith("token_embedding.weight"):
            (sks,) = tokenizer("sks", add_special_tokens=False).input_ids
            assert rows.nonzero().flatten().tolist() == [sks]
            # Adam moves each weight by about the learning rate a step.
            assert 1e-4 < (value[sks] - start).abs().max() < 3e-3
        else:
            assert not (value != before["text_encoder"][key]).any(), key


@pytest.mark.parametrize("method", ["lora", "textual_inversion"])
def test_a_run_that_fails_leaves_the_pipeline_in_its_ordinary_form(
    base, subject, tmp_path, monkeypatch, method
):
    keys = list(base.pipeline.unet.state_dict()), list(base.pipeline.text_encoder.state_dict())
    settings = SETTINGS.model_copy(update={"method": method, "learning_rate": 1e-3})

    def fail(*args, **kwargs):
        raise RuntimeError("in the middle")

    monkeypatch.setattr("spurbench.diffusion.objective.denoising_loss", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        finetune(base, subject, settings, SFSL(), 0, tmp_path)
    monkeypatch.undo()
    assert keys == (
        list(base.pipeline.unet.state_dict()),
        list(base.pipeline.text_encoder.state_dict()),
    )
    assert not base.pipeline.text_encoder.get_input_embeddings()._forward_hooks
    base.restore()


def test_lora_modules_that_are_in_no_layer_are_refused(base, subject, tmp_path):
    settings = SETTINGS.model_copy(update={"method": "lora", "lora_modules": ("to_z",)})
    with pytest.raises(SpurbenchError, match=r"none of finetune.lora_modules \(to_z\) is a layer"):
        finetune(base, subject, settings, SFSL(), 0, tmp_path)
    base.restore()


@pytest.mark.parametrize("gradient", ["prior", "instance", "both", "attract"])
def test_every_variant_of_the_similarity_loss_changes_what_is_learned(
    base, subject, tmp_path, gradient
):
    with_sfsl, losses = finetune(
        base, subject, SETTINGS, SFSL(gradient=gradient), 0, tmp_path / "a"
    )
    base.restore()
    without, _ = finetune(base, replace(subject, kappa=0.0), SETTINGS, SFSL(), 0, tmp_path / "b")
    assert moved(without["unet"], with_sfsl["unet"])
    assert all(value != 0 for value in losses["sfsl"])


def test_prior_variant_lowers_and_attract_raises_the_similarity_to_the_references(
    base, subject, tmp_path
):
    """The signs: +kappa pushes prior images away from psi(x); attract pulls the instance to it."""
    settings = SETTINGS.model_copy(
        update={"steps": 60, "prior_weight": 0.0, "checkpoint_every": 60}
    )
    for gradient in ("prior", "attract"):
        base.restore()
        _, losses = finetune(
            base,
            replace(subject, kappa=20.0),
            settings,
            SFSL(gradient=gradient, timestep_weighting="uniform"),
            0,
            tmp_path / gradient,
        )
        early, late = np.mean(losses["sfsl"][:15]), np.mean(losses["sfsl"][-15:])
        assert late < early, gradient


def test_every_nth_step_is_as_strong_as_every_step_taken_together(base, subject, tmp_path):
    _, losses = finetune(base, subject, SETTINGS, SFSL(every=2), 0, tmp_path)
    assert [value != 0 for value in losses["sfsl"]] == [True, False, True, False]


@pytest.mark.parametrize("method", ["full", "lora", "textual_inversion"])
def test_resuming_gives_bit_identical_weights(base, subject, tmp_path, monkeypatch, method):
    settings = SETTINGS.model_copy(update={"method": method})
    whole, whole_losses = finetune(base, subject, settings, SFSL(), 0, tmp_path / "whole")

    base.restore()
    calls = 0
    original = base.pipeline.unet.forward

    def stop_in_step_three(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(base.pipeline.unet, "forward", stop_in_step_three)
    with pytest.raises(KeyboardInterrupt):
        finetune(base, subject, settings, SFSL(), 0, tmp_path / "stopped")
    monkeypatch.undo()
    assert (tmp_path / "stopped" / CHECKPOINT).exists()

    base.restore()  # as a fresh process would start
    resumed, resumed_losses = finetune(base, subject, settings, SFSL(), 0, tmp_path / "stopped")
    for component in whole:
        assert not moved(whole[component], resumed[component])
    assert resumed_losses == whole_losses
    assert not (tmp_path / "stopped" / CHECKPOINT).exists()


def test_the_seed_and_the_class_decide_the_draws(base, subject, tmp_path):
    first, _ = finetune(base, subject, SETTINGS, SFSL(), 0, tmp_path / "0")
    for changed, seed in ((subject, 1), (replace(subject, index=105), 0)):
        base.restore()
        second, _ = finetune(
            base, changed, SETTINGS, SFSL(), seed, tmp_path / f"{seed}{changed.index}"
        )
        assert moved(first["unet"], second["unet"])


def test_a_loss_that_is_not_finite_stops_with_step_and_seed(base, subject, tmp_path):
    settings = SETTINGS.model_copy(update={"learning_rate": 1e30, "gradient_clip": None})
    with pytest.raises(SpurbenchError, match=r"class 94.*step 1, seed 7"):
        finetune(base, subject, settings, SFSL(), 7, tmp_path)


def test_a_token_that_is_not_one_token_is_refused(base, subject, tmp_path):
    with pytest.raises(SpurbenchError, match=r"'zwx' is 3 tokens"):
        finetune(base, subject, SETTINGS.model_copy(update={"token": "zwx"}), SFSL(), 0, tmp_path)


def test_cached_posteriors_and_gathered_prompts_give_the_plain_loss(base, subject, tmp_path):
    """The first step's losses, worked out image by image and prompt by prompt."""
    from spurbench.runs import derive_seed

    settings = SETTINGS.model_copy(update={"steps": 1})
    _, losses = finetune(base, subject, settings, SFSL(), 5, tmp_path)
    base.restore()

    generator = torch.Generator().manual_seed(derive_seed(5, "finetune", 94, 0))
    which = torch.randint(3, (2,), generator=generator)
    which_prior = torch.randint(4, (2,), generator=generator)
    timesteps = torch.randint(1000, (4,), generator=generator)
    posterior_noise = torch.randn(4, 4, 8, 8, generator=generator)
    noise = torch.randn(4, 4, 8, 8, generator=generator)

    pipe = base.pipeline
    chosen = [subject.references[i] for i in which] + [subject.priors[i] for i in which_prior]
    prompts = [subject.instance_prompt] * 2 + [subject.prior_prompt] * 2
    errors, psi = [], []
    with torch.no_grad():
        for i, (image, prompt) in enumerate(zip(chosen, prompts, strict=True)):
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 127.5 - 1
            posterior = pipe.vae.encode(pixels).latent_dist
            latents = (posterior.mean + posterior.std * posterior_noise[i]) * 0.18215
            alpha_bar = pipe.scheduler.alphas_cumprod[timesteps[i]]
            noised = alpha_bar.sqrt() * latents + (1 - alpha_bar).sqrt() * noise[i]
            ids = pipe.tokenizer(
                prompt, padding="max_length", max_length=24, return_tensors="pt"
            ).input_ids
            prediction = pipe.unet(noised, timesteps[i], pipe.text_encoder(ids)[0]).sample
            errors.append(((prediction - noise[i]) ** 2).mean().item())
            clean = (noised - (1 - alpha_bar).sqrt() * prediction) / alpha_bar.sqrt()
            decoded = pipe.vae.decode(clean / 0.18215).sample
            source = decoded if i >= 2 else pixels
            resized = torch.nn.functional.interpolate(
                (source / 2 + 0.5).clamp(0, 1), (20, 20), mode="bilinear", antialias=True
            )
            psi.append((subject.phi(resized) * subject.class_weight)[0])
    weights = pipe.scheduler.alphas_cumprod[timesteps[2:]]
    cosines = torch.stack([torch.cosine_similarity(psi[i], psi[i + 2], dim=0) for i in range(2)])
    assert losses["instance"][0] == pytest.approx(np.mean(errors[:2]), rel=1e-5)
    assert losses["prior"][0] == pytest.approx(np.mean(errors[2:]), rel=1e-5)
    assert losses["sfsl"][0] == pytest.approx((weights * cosines).mean().item(), rel=1e-4, abs=1e-6)


def test_an_sdxl_base_is_refused(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    with pytest.raises(SpurbenchError, match="StableDiffusionXLPipeline"):
        load_base(str(tmp_path), revision=None, relative_to=tmp_path, device=CPU)


def test_a_missing_base_is_one_line(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with caplog.at_level(logging.ERROR), pytest.raises(SpurbenchError, match="--base") as caught:
        load_base("nobody/nothing", revision=None, relative_to=tmp_path, device=CPU)
    assert "\n" not in str(caught.value)


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


def tiny_decoder(folder):
    from diffusers import AutoencoderTiny

    torch.manual_seed(5)
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    )
    tiny.save_pretrained(folder)
    return folder


def test_the_costs_of_the_similarity_loss_can_be_cut(base, subject, tmp_path):
    settings = SETTINGS.model_copy(update={"steps": 3})

    def run(name: str, decoder=None, **sfsl):
        base.restore()
        return finetune(base, subject, settings, SFSL(**sfsl), 0, tmp_path / name, decoder=decoder)

    weights, losses = run("plain")
    # The same mathematics, computed twice.
    again, same = run("checkpointed", checkpoint_decoder=True)
    assert same == losses
    assert not moved(weights["unet"], again["unet"])
    # Another resolution and another decoder: other values, not none.
    decoder, digest = load_decoder(
        str(tiny_decoder(tmp_path / "tiny")), relative_to=tmp_path, device=CPU
    )
    assert len(digest) == 64
    for changed in (
        run("small", decode_resolution=16)[1],
        run("tiny", decoder=decoder)[1],
    ):
        assert changed["instance"][0] == losses["instance"][0]
        assert changed["sfsl"][0] not in (0, losses["sfsl"][0])


@pytest.mark.parametrize("gradient", ["prior", "instance", "both", "attract"])
def test_samples_above_the_timestep_limit_weigh_nothing(base, subject, tmp_path, gradient):
    from spurbench.runs import derive_seed

    settings = SETTINGS.model_copy(update={"steps": 12, "learning_rate": 1e-12})
    options = {"gradient": gradient, "timestep_weighting": "uniform"}
    _, full = finetune(base, subject, settings, SFSL(**options), 0, tmp_path / "full")
    base.restore()
    limited = SFSL(**options, max_timestep=0.5)
    _, low = finetune(base, subject, settings, limited, 0, tmp_path / "low")
    seen = set()
    for step in range(12):
        generator = torch.Generator().manual_seed(derive_seed(0, "finetune", 94, step))
        torch.randint(3, (2,), generator=generator)
        torch.randint(4, (2,), generator=generator)
        clear = torch.randint(1000, (4,), generator=generator) < 500
        used = {
            "prior": clear[2:],
            "both": clear[:2] & clear[2:],
        }.get(gradient, clear[:2])
        seen.add(int(used.sum()))
        if used.all():
            assert low["sfsl"][step] == pytest.approx(full["sfsl"][step], rel=1e-4)
        elif not used.any():
            assert low["sfsl"][step] == 0
        else:
            assert low["sfsl"][step] not in (0, full["sfsl"][step])
    assert {0, 1} <= seen


def test_a_decoder_of_another_kind_is_refused(base, toy_folder, tmp_path):
    with pytest.raises(SpurbenchError, match="is a AutoencoderKL, not an AutoencoderTiny"):
        load_decoder(str(toy_folder / "vae"), relative_to=tmp_path, device=CPU)
