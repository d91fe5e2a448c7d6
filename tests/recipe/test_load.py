from __future__ import annotations

import pytest

from spurbench.classifiers.load import check_spec, read_member
from spurbench.core.documents import read_toml
from spurbench.core.errors import SpurbenchError
from spurbench.core.hub import HubFile
from spurbench.core.resources import builders
from spurbench.recipe.classes import SpuriousClass
from spurbench.recipe.load import read_recipe
from spurbench.recipe.schema import Recipe

HUMMINGBIRD = SpuriousClass(
    index=94,
    wnid="n01833805",
    name="hummingbird",
    spurious_feature="red flowers",
    component=2,
    noun="flower",
)


def test_every_embedded_recipe_is_valid():
    assert set(builders()) >= {"mini", "sd15", "sd15-attract"}
    for name in builders():
        recipe = read_recipe(name)
        assert recipe.name == name == recipe.folder.name
        assert len(recipe.classes) > 0


def test_sd15_has_the_papers_numbers():
    """DESIGN.md, "The method, exactly"."""
    recipe = read_recipe("sd15")
    tuning = recipe.finetune
    assert (tuning.learning_rate, tuning.weight_decay, tuning.epsilon) == (2e-6, 0.01, 1e-8)
    assert (tuning.beta1, tuning.beta2, tuning.steps, tuning.batch_size) == (0.9, 0.999, 800, 1)
    assert tuning.train_text_encoder and tuning.prior_weight == 1.0
    assert (recipe.select.references, recipe.base.resolution) == (6, 512)
    sampling = recipe.sample
    assert (sampling.images, sampling.steps, sampling.guidance_scale) == (75, 25, 7.5)
    by_name = {c.name: c for c in recipe.classes}
    assert recipe.prior_prompt(by_name["hummingbird"]) == "a photo of a flower"
    assert recipe.instance_prompt(by_name["hummingbird"]) == "a photo of a sks flower"
    assert {n: recipe.kappa_of(by_name[n]) for n in ("hummingbird", "koala", "tench")} == {
        "hummingbird": 1.0,
        "koala": 0.8,
        "tench": 1.0,
    }
    assert len(recipe.panel.classifiers) == 4
    assert recipe.base.scheduler == "PNDMScheduler"
    loss = recipe.sfsl
    assert (loss.gradient, loss.timestep_weighting) == ("prior", "uniform")
    assert (loss.max_timestep, loss.every, loss.decode_resolution, loss.decoder) == (
        1,
        1,
        None,
        None,
    )


def test_sd15_says_each_number_itself_and_takes_none_from_a_default():
    """A default that is changed for another recipe would change the paper's."""
    said = read_toml(builders()["sd15"] / "recipe.toml")
    sections = {"base", "select", "prior", "finetune", "sfsl", "sample", "check"}
    ways_to_save_memory_or_time = {
        *("revision", "gradient_checkpointing", "compile", "lora_rank", "lora_modules"),
        *("kappa", "decode_resolution", "checkpoint_decoder", "decoder"),
    }
    for section in sections:
        known = Recipe.model_fields[section].annotation.model_fields
        assert known.keys() - said[section].keys() <= ways_to_save_memory_or_time, section


def test_sd15_attract_is_sd15_but_for_the_similarity_loss():
    paper, ours = read_recipe("sd15"), read_recipe("sd15-attract")
    own = {"name", "description", "sfsl"}
    assert paper.model_dump(exclude=own) == ours.model_dump(exclude=own)
    assert (ours.sfsl.gradient, ours.sfsl.timestep_weighting) == ("attract", "alpha_bar")
    assert list(ours.classes) == list(paper.classes)
    assert ours.find("architecture") == builders()["sd15"] / "architecture"
    assert {ours.kappa_of(c) for c in ours.classes} == {8.0}


def test_a_recipe_that_extends_another_has_its_keys_files_and_classes_but_for_its_own(tmp_path):
    (tmp_path / "recipe.toml").write_text(
        'extends = "mini"\nname = "mine"\n[panel]\nclassifiers = ["mini:vit"]\n'
        "[finetune]\nsteps = 7\n"
    )
    recipe, mini = read_recipe(str(tmp_path), ["finetune.batch_size=3"]), read_recipe("mini")
    assert (recipe.name, recipe.finetune.steps, recipe.finetune.batch_size) == ("mine", 7, 3)
    assert recipe.panel.classifiers == ("mini:vit",) and recipe.panel.phi == mini.panel.phi
    assert recipe.finetune.learning_rate == mini.finetune.learning_rate
    assert recipe.locate(recipe.base.model) == mini.locate(mini.base.model)
    assert list(recipe.classes) == list(mini.classes)
    (tmp_path / "assets" / "base").mkdir(parents=True)
    kept = (builders()["mini"] / "classes.toml").read_text().split("[[classes]]")
    (tmp_path / "classes.toml").write_text(f"[[classes]]{kept[1]}")
    own = read_recipe(str(tmp_path))
    assert own.locate("assets/base") == str(tmp_path / "assets" / "base")
    assert len(own.classes) == 1


@pytest.mark.parametrize("extended", ['"minni"', '"../mini"', "3", "[1]", "{a = 1}"])
def test_only_an_embedded_recipe_can_be_extended(tmp_path, extended):
    (tmp_path / "recipe.toml").write_text(f'name = "mine"\nextends = {extended}')
    with pytest.raises(SpurbenchError, match=r"recipe.toml: extends .* is none of mini, sd15"):
        read_recipe(str(tmp_path))


def test_a_prior_prompt_takes_the_right_article():
    recipe = read_recipe("sd15")
    prompts = {c.name: recipe.prior_prompt(c) for c in recipe.classes}
    assert prompts["puck"] == "a photo of an athlete"
    assert prompts["rotisserie"] == "a photo of an appliance"
    assert prompts["koala"] == "a photo of a tree"
    recipe = read_recipe("sd15", ["prior.prompt=the {noun}, {a_noun}"])
    assert recipe.prior_prompt(recipe.classes.by_index()[746]) == "the athlete, an athlete"


def test_sd15_needs_no_extra_for_its_panel():
    recipe = read_recipe("sd15")
    assert recipe.panel.phi in recipe.panel.classifiers
    asked = [read_member(spec, recipe.folder) for spec in recipe.panel.classifiers]
    assert {check_spec(*member)[0].name for member in asked} == {"timm", "torchvision"}
    spec, checkpoint = read_member(recipe.panel.phi, recipe.folder)
    assert spec == "torchvision:resnet50"
    robust = HubFile("madrylab/robust-imagenet-models", "resnet50_linf_eps4.0.ckpt")
    assert checkpoint == robust


def test_overrides_are_typed_and_reach_the_recipe():
    recipe = read_recipe(
        "mini",
        [
            "finetune.steps=7",
            "finetune.train_text_encoder=false",
            "sfsl.gradient=attract",
            'finetune.prompt="{token}: a {noun}"',
            "check.quality=[]",
            "check.object_detector=none",
            "panel.classifiers=['mini:a', 'mini:b']",
        ],
    )
    assert recipe.finetune.steps == 7
    assert recipe.finetune.train_text_encoder is False
    assert recipe.sfsl.gradient == "attract"
    assert recipe.instance_prompt(HUMMINGBIRD) == "sks: a flower"
    assert recipe.check.quality == ()
    assert recipe.check.object_detector is None
    assert recipe.panel.classifiers == ("mini:a", "mini:b")


def test_kappa_of_the_recipe_wins_over_the_class_and_zero_is_a_value():
    recipe = read_recipe("sd15", ["sfsl.kappa=0"])
    assert {recipe.kappa_of(c) for c in recipe.classes} == {0.0}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("finetune.step=7", r"unknown key 'finetune.step'.*finetune.steps"),
        ("finetune.steps=-1", "finetune.steps.*greater than or equal to 1.*-1"),
        ("finetune.steps=many", "finetune.steps.*integer.*'many'"),
        ("finetune=3", "finetune"),
        ("finetune.steps.more=3", "is a value, not a section"),
        ("nonsense", "not key=value"),
        ("sfsl.gradient=up", "'prior', 'instance', 'both', 'attract' or 'cross_entropy'"),
        ("finetune.prompt=a {noun}", "must contain {token}"),
        ("prior.prompt=a {thing}", "may only use"),
        ("prior.prompt={noun.x}", "prior.prompt.*may only use {noun}"),
        ("prior.prompt={noun[0]}", "prior.prompt.*may only use {noun}"),
        ("prior.prompt=a {}", "prior.prompt.*may only use {noun}"),
        ("positives.prompt=a {noun}", "positives.prompt.*may only use {class}, {a_class}"),
        ("positives.images=-1", "positives.images.*greater than or equal to 0"),
        ("prior.prompt={noun", "prior.prompt.*may only use {noun}"),
        ("finetune.prompt={token!r:>99999999999}", "finetune.prompt.*may only use"),
        ("finetune.prompt={token:>9}", "finetune.prompt.*may only use"),
        ("finetune.prompt={token!r}", "finetune.prompt.*may only use"),
        ("finetune.prompt={{token}} {noun}", "must contain {token}"),
        ("finetune.steps=" + "9" * 5000, "finetune.steps"),
        ("finetune.steps=100000000000000000000", "finetune.steps.*less than or equal to 1000000"),
        ("sample.images=10001", "sample.images.*less than or equal to 10000"),
        ("sample.steps=1001", "sample.steps.*less than or equal to 1000"),
        ("base.resolution=1000000", "base.resolution.*less than or equal to 4096"),
        ("finetune.learning_rate=inf", "finetune.learning_rate.*finite"),
        ("finetune.learning_rate=nan", "finetune.learning_rate.*finite"),
        ("finetune.learning_rate=1e300", "finetune.learning_rate.*less than"),
        ("sfsl.kappa=nan", "sfsl.kappa.*finite"),
        ("check.object_threshold=nan", "check.object_threshold.*finite"),
        ("sfsl.max_timestep=nan", "sfsl.max_timestep.*finite"),
        ("finetune.beta2=nan", "finetune.beta2.*finite"),
        ("base.model=a\x00b", r"base.model: .*holds '\\x00'"),
        (r'panel.classifiers=["a\u0000b"]', r"panel.classifiers.0: .*holds '\\x00'"),
        ('panel.phi="a\\nError: b"', r"panel.phi: .*holds '\\n'"),
        ("finetune.steps=7\nmore=3", "finetune.steps.*integer"),
        ("finetune.steps=" + "[" * 100_000, "finetune.steps"),
        ("whole.new=1", "unknown key 'whole'"),
    ],
)
def test_a_wrong_override_is_one_line_that_names_the_key(override, said):
    with pytest.raises(SpurbenchError, match=said) as caught:
        read_recipe("mini", [override])
    assert "\n" not in str(caught.value)


def test_every_number_of_a_recipe_has_bounds():
    """A slip of the keyboard is named before anything runs; infinity is no number."""

    def numbers(schema, prefix=""):
        for name, field in schema["properties"].items():
            if "$ref" in field:
                part = schema["$defs"][field["$ref"].rsplit("/", 1)[1]]
                yield from numbers(part | {"$defs": schema["$defs"]}, f"{prefix}{name}.")
            for kind in field.get("anyOf", [field]):
                if kind.get("type") in ("integer", "number"):
                    yield f"{prefix}{name}", kind

    found = dict(numbers(Recipe.model_json_schema()))
    assert len(found) > 25
    for key, kind in found.items():
        assert {"maximum", "exclusiveMaximum"} & kind.keys(), key
        for value in ("inf", "nan", "-inf"):
            with pytest.raises(SpurbenchError, match=key):
                read_recipe("mini", [f"{key}={value}"])


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(SpurbenchError, match="did you mean 'mini'"):
        read_recipe("minni")


def test_a_users_own_folder_works_and_its_faults_are_blamed_on_the_file(tmp_path):
    source = builders()["mini"]
    for name in ("recipe.toml", "classes.toml"):
        (tmp_path / name).write_text((source / name).read_text())
    recipe = read_recipe(str(tmp_path))
    assert (recipe.name, recipe.folder) == ("mini", tmp_path)
    (tmp_path / "recipe.toml").write_text("name = ")
    with pytest.raises(SpurbenchError, match=r"recipe.toml is not valid TOML"):
        read_recipe(str(tmp_path))
    text = (source / "recipe.toml").read_text()
    (tmp_path / "recipe.toml").write_text(text + "\n[extra]\nkey = 1\n")
    with pytest.raises(SpurbenchError, match=r"recipe.toml: unknown key 'extra'"):
        read_recipe(str(tmp_path), ["finetune.steps=7"])
    (tmp_path / "recipe.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(SpurbenchError, match=r"recipe.toml is not UTF-8 text"):
        read_recipe(str(tmp_path))
    (tmp_path / "recipe.toml").write_text(
        text.replace("learning_rate = 1e-4", "learning_rate = nan")
    )
    with pytest.raises(SpurbenchError, match=r"recipe.toml: finetune.learning_rate: .*finite"):
        read_recipe(str(tmp_path))


def test_the_prompt_of_positives_names_the_class_and_not_its_feature():
    recipe = read_recipe("sd15")
    prompts = {c.name: recipe.positive_prompt(c) for c in recipe.classes}
    assert prompts["hummingbird"] == "a photo of a hummingbird"
    assert prompts["American alligator"] == "a photo of an American alligator"
    recipe = read_recipe("mini", ["positives.prompt={class}, {a_class}"])
    assert recipe.positive_prompt(recipe.classes[0]) == "hummingbird, a hummingbird"


@pytest.mark.parametrize(
    ("makers", "said"),
    [
        ("['finetuned']", "finetune.method base fine-tunes nothing"),
        ("['base', 'base']", "controls.makers names one twice"),
        ("[]", "controls.makers"),
    ],
)
def test_controls_that_cant_be_made_are_refused(makers, said):
    options = [f"controls.makers={makers}", "finetune.method=base"]
    with pytest.raises(SpurbenchError, match=said):
        read_recipe("mini", options)
    if said.startswith("finetune"):
        read_recipe("mini", [*options, "controls.enabled=false"])
        read_recipe("mini", options[:1])


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("contexts.phrases=['in a garden', 'In a garden!']", "contexts.phrases must differ"),
        ("contexts.phrases=['...']", "contexts.phrases must differ"),
        ("contexts.prompt=a {noun} {context}", "must contain {token} and {context}"),
        ("contexts.prompt=a {token} {noun}", "must contain {token} and {context}"),
        ("contexts.prompt=a {token} {place} {context}", "contexts.prompt .* may only use"),
        ("finetune.method=base", "contexts.phrases wants what was learnt"),
    ],
)
def test_contexts_that_cant_be_made_are_refused(option, said):
    with pytest.raises(SpurbenchError, match=said):
        read_recipe("mini", ["contexts.phrases=['in a garden']", option])


def test_a_context_ends_the_subjects_prompt():
    recipe = read_recipe("sd15")
    assert recipe.contexts.phrases == ()
    prompt = recipe.context_prompt(recipe.classes.by_index()[94], "on Mount Fuji")
    assert prompt == "a photo of a sks flower on Mount Fuji"
