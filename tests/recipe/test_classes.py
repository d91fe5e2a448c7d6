from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from spurbench.core.errors import SpurbenchError
from spurbench.core.imagenet import imagenet_names, imagenet_wnids
from spurbench.core.resources import builders
from spurbench.recipe.classes import ClassRegistry, SpuriousClass
from spurbench.recipe.load import read_recipe

FACTS = Path(__file__).parents[3] / "shared" / "spurious_imagenet_classes.csv"
PAPER = {94, 105, 554, 557, 565, 576}


@pytest.fixture(scope="module", params=["mini", "sd15"])
def embedded(request) -> ClassRegistry:
    return ClassRegistry.read(builders()[request.param] / "classes.toml")


@pytest.fixture(scope="module")
def registry() -> ClassRegistry:
    return ClassRegistry.read(builders()["sd15"] / "classes.toml")


def entry(**changes) -> str:
    values = {
        "index": 94,
        "wnid": '"n01833805"',
        "name": '"hummingbird"',
        "spurious_feature": '"red flowers"',
        "component": 2,
        "noun": '"flower"',
    } | changes
    lines = (f"{key} = {value}\n" for key, value in values.items() if value is not None)
    return "[[classes]]\n" + "".join(lines)


def test_the_registry_is_the_published_one(registry):
    if not FACTS.is_file():
        pytest.skip(f"no {FACTS.name} beside the repository")
    with FACTS.open(newline="") as file:
        facts = list(csv.DictReader(file))
    assert len(registry) == len(facts) == 100
    for c, fact in zip(registry, facts, strict=True):
        said = (str(c.index), c.wnid, c.name, c.spurious_feature, str(c.component))
        assert said == tuple(list(fact.values())[:5])
        assert c.noun == fact["noun"] or c.noun_reason, f"{c.name}: not the draft's, and no reason"
        assert c.kappa == (float(fact["kappa"]) if fact["kappa"] else None)
        assert c.paper == (fact["paper"] == "True")


def test_no_noun_names_its_class_and_the_papers_are_its_own(registry):
    for c in registry:
        assert not {*c.noun.lower().split()} & {*c.name.lower().split()}, c.name
    assert {c.name: c.noun for c in registry.select("paper")} == {
        "hummingbird": "flower",
        "koala": "tree",
        "fireboat": "fountain",
        "flagpole": "flag",
        "freight car": "wall",
        "gondola": "house",
    }


def test_the_detector_is_asked_for_every_object_and_feature_in_english(registry):
    for c in registry:
        assert re.fullmatch(r"[a-zA-Z' -]+", f"{c.object_query} {c.feature_query}"), c.name
        assert c.object_query != c.feature_query
        # The object is a thing with its article, or a number of them.
        assert (
            re.match(r"an? ", c.object_query)
            or c.name in {"bakery", "chain mail"}
            or (c.name == "parallel bars")
        ), c.name
    assert len({c.object_query for c in registry}) == 100


def test_embedded_wordnet_ids_are_those_of_their_indices(embedded):
    assert [c.wnid for c in embedded] == [imagenet_wnids()[c.index] for c in embedded]


def test_embedded_registries_hold_the_papers_six(embedded):
    assert {c.index for c in embedded.select("paper")} == PAPER
    assert embedded.select("all") == tuple(embedded)


def test_folders_follow_the_official_layout(embedded):
    for c in embedded:
        parts = c.folder.split("_")
        assert (int(parts[2]), int(parts[-1])) == (c.index, c.component)
    assert embedded.by_index()[565].folder == "spurious_class_565_freight-car_component_1"


def test_slugs_are_safe_file_names():
    c = SpuriousClass(
        index=7,
        wnid="n01514668",
        name="St. Bernard / ../dog",
        spurious_feature="x",
        component=1,
        noun="x",
    )
    assert c.slug == "007_st-bernard-dog"


@pytest.mark.parametrize("noun", ["../../../../OUTSIDE flower", "..", "/etc", "a\\..\\b"])
def test_no_noun_leads_out_of_the_priors_folder(registry, noun):
    changed = registry[94].model_copy(update={"noun": noun})
    folder, name = changed.prior_subject.split("/")
    assert folder == "prior" and name not in ("", ".", "..") and "\\" not in name
    assert registry.select("hummingbird")[0].prior_subject == "prior/flower"
    assert all(c.prior_subject == f"prior/{c.noun}" for c in registry)


@pytest.mark.parametrize(
    ("wanted", "indices"),
    [
        ("hummingbird", [94]),
        ("koala, hummingbird", [94, 105]),
        ("Freight_Car,freight-car,565", [565]),
        ("0", [0]),
        ("094", [94]),
        (",koala,", [105]),
    ],
)
def test_classes_are_selected_by_name_or_index_in_index_order(registry, wanted, indices):
    assert [c.index for c in registry.select(wanted)] == indices


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("humingbird", r"unknown class 'humingbird' in --classes; nearest: hummingbird"),
        ("koala,zzzzzz", r"unknown class 'zzzzzz'.*spurbench classes"),
        ("1", "unknown class '1'"),
        ("²", "unknown class '²'"),
        ("٩٤", "unknown class '٩٤'"),  # 94 in other digits
        ("9" * 5000, "unknown class"),
        ("-1", "unknown class '-1'"),
        ("", "names no class"),
        (" , ", "names no class"),
    ],
)
def test_an_unknown_class_is_one_line_with_the_nearest(registry, wanted, said):
    with pytest.raises(SpurbenchError, match=said) as caught:
        registry.select(wanted)
    assert "\n" not in str(caught.value)


def test_a_registry_reads_in_index_order(tmp_path):
    path = tmp_path / "classes.toml"
    path.write_text(entry() + entry(index=7, name='"cock"', kappa=0.8))
    registry = ClassRegistry.read(path)
    assert [(c.index, c.name, c.kappa) for c in registry] == [
        (7, "cock", 0.8),
        (94, "hummingbird", None),
    ]
    assert registry[1].name == "hummingbird" and [c.index for c in registry[:1]] == [7]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[classes]", "not valid TOML"),
        (b"name = '\xff'", "not UTF-8 text"),
        ("x = " + "[" * 100_000, "not sensible TOML"),
        ("x = " + "9" * 5000, "not sensible TOML"),
        (entry(noun=r'"flo\u0000wer"'), r"class 1: noun: .*holds '\\x00'"),
        (entry(name=r'"humming\nError: bird"'), r"class 1: name: .*holds '\\n'"),
        (entry(name=f'"{"a" * 101}"'), "class 1: name: .*at most 100"),
        (entry(kappa="inf"), "class 1: kappa: .*finite"),
        (entry(kappa="nan"), "class 1: kappa: .*finite"),
        ("", "lists no classes"),
        ("classes = 3", "lists no classes"),
        ("classes = [3]", "class 1: Input should be a valid dictionary"),
        (entry() + entry(index=1000), r"class 2: index: .*less than or equal to 999, got 1000"),
        (entry(wnid='"1833805"'), r"class 1: wnid: .*got '1833805'"),
        (entry(noun=None), r"class 1: key 'noun' is missing"),
        (entry(compnent=3), r"class 1: unknown key 'compnent'; nearest: component"),
        (entry(index=-1, noun=None), r"class 1: .* \(and 1 more fault\)"),
        (entry() + entry(name='"koala"'), "lists index 94 twice"),
        (
            entry() + entry(index=7, name='"Humming-Bird"') + entry(index=8, name='"humming bird"'),
            "lists name 'humming bird' twice",
        ),
    ],
)
def test_a_broken_registry_is_one_line_that_names_file_and_class(tmp_path, text, said):
    path = tmp_path / "classes.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SpurbenchError, match=rf"classes\.toml.*{said}") as caught:
        ClassRegistry.read(path)
    assert "\n" not in str(caught.value)


def test_a_registry_without_the_papers_classes_says_so():
    registry = ClassRegistry([c for c in read_recipe("mini").classes if c.index == 94])
    assert [c.index for c in registry.select("paper")] == [94]
    other = ClassRegistry([c.model_copy(update={"paper": False}) for c in registry])
    with pytest.raises(SpurbenchError, match="the paper's six"):
        other.select("paper")


def test_a_missing_registry_is_named(tmp_path):
    with pytest.raises(SpurbenchError, match=r"no class registry at .*classes\.toml"):
        ClassRegistry.read(tmp_path / "classes.toml")


def test_imagenet_names_are_unique_and_in_index_order():
    names, wnids = imagenet_names(), imagenet_wnids()
    assert len(set(names)) == len(set(wnids)) == 1000
    assert (wnids[0], wnids[94], wnids[999]) == ("n01440764", "n01833805", "n15075141")
    assert (names[94], names[134], names[517]) == (
        "hummingbird",
        "crane (n02012849)",
        "crane (n03126707)",
    )


def test_after_the_last_class_comes_the_first(registry):
    of_paper = ClassRegistry(registry.select("paper"))
    following = [of_paper.after(c).index for c in of_paper]
    assert following == [105, 554, 557, 565, 576, 94]
    with pytest.raises(SpurbenchError, match="koala is the only class"):
        ClassRegistry(registry.select("koala")).after(registry.select("koala")[0])
