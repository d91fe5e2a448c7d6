from __future__ import annotations

import pytest

from spurbench.core import resources
from spurbench.core.errors import SpurbenchError


def test_what_travels_with_the_package_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert {"mini", "sd15"} <= set(resources.builders())
    for name, folder in resources.builders().items():
        assert folder.name == name and folder.is_absolute()
        assert (folder / "recipe.toml").is_file()
        assert resources.builder_folder(name) == folder
    assert (resources.builders()["sd15"] / "classes.toml").is_file()
    assert list(resources.card_templates().glob("*.jinja"))


def test_a_users_own_folder_is_found_and_does_not_hide_an_embedded_one(tmp_path, monkeypatch):
    for name in ("mine", "mini"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.toml").touch()
    monkeypatch.chdir(tmp_path)
    assert resources.builder_folder("mine").resolve() == tmp_path / "mine"
    assert resources.builder_folder("mini") == resources.builders()["mini"]
    assert resources.builder_folder("./mini").resolve() == tmp_path / "mini"


@pytest.mark.parametrize(
    ("name", "said"),
    [("minni", "did you mean 'mini'"), ("zzz", "embedded recipes: .*mini.*sd15")],
)
def test_an_unknown_recipe_is_one_line_that_helps(name, said):
    with pytest.raises(SpurbenchError, match=rf"'{name}' is neither embedded.*{said}"):
        resources.builder_folder(name)


def test_a_folder_without_a_recipe_is_not_one(tmp_path):
    with pytest.raises(SpurbenchError, match=r"recipe\.toml"):
        resources.builder_folder(str(tmp_path))
