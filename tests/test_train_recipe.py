"""Recipes: what is read, what is refused and where, the schema, and those of the library."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from hierarch.errors import SpecError
from hierarch.spec.base import Spec
from hierarch.spec.overrides import parse_assignment
from hierarch.train import recipe as recipes_module
from hierarch.train.recipe import Recipe, load_recipe, recipe_schema, recipes

RECIPES = Path(__file__).parents[1] / "recipes"
MODELS = [
    cls
    for cls in vars(recipes_module).values()
    if isinstance(cls, type) and issubclass(cls, Spec) and cls is not Spec
]


def test_the_library_has_these():
    assert recipes() == ["finetune", "imagenet_300", "small_images", "smoke"]


@pytest.mark.parametrize("name", recipes())
def test_each_is_read_by_name_says_so_and_survives_being_written(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert load_recipe(recipe.to_data()) == recipe
    assert load_recipe(RECIPES / f"{name}.yaml") == recipe
    data = YAML(typ="safe", pure=True).load((RECIPES / f"{name}.yaml").read_text())
    Draft202012Validator(recipe_schema()).validate(data)


def test_imagenet_300_is_as_published():
    """Swin's published configuration: a linear rate of 5e-4, 5e-7 and 5e-6 for 512 images."""
    recipe = load_recipe("imagenet_300")
    scale = recipe.batch_size / 512
    assert recipe.epochs == 300
    assert recipe.optimizer.lr == 5e-4 * scale
    assert recipe.schedule.warmup_epochs == 20
    assert recipe.schedule.warmup_lr == 5e-7 * scale
    assert recipe.schedule.min_lr == 5e-6 * scale
    assert (recipe.optimizer.weight_decay, recipe.clip_grad_norm) == (0.05, 5)
    assert (recipe.mix.mixup, recipe.mix.cutmix, recipe.label_smoothing) == (0.8, 1.0, 0.1)
    assert recipe.augment.erasing == 0.25


def test_the_file_beside_the_recipes_is_the_schema():
    assert json.loads((RECIPES / "schema.json").read_text()) == recipe_schema()


@pytest.mark.parametrize("model", MODELS)
def test_every_field_says_what_it_is(model):
    assert model.model_fields
    assert all(field.description for field in model.model_fields.values())


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("optimzer: {lr: 1}", "2:1", "optimzer: unknown key 'optimzer', did you mean 'optimizer'"),
        ("optimizer: {lr: 0}", "2:17", "optimizer.lr: should be greater than 0, got 0"),
        ("optimizer: {lr: fast}", "2:17", "optimizer.lr: should be a valid number, got 'fast'"),
        ("mix: {mixup: .nan}", "2:14", "mix.mixup: should be a finite number, got nan"),
        ("mix: 3", "2:6", "mix: should be a mapping, got 3"),
        (
            "augment: {crop_scale: [1, 0.2]}",
            "2:23",
            "augment.crop_scale: should be two shares above 0, the smaller first",
        ),
        ("accumulate: 3", "2:13", "accumulate: batch_size=128 is not divisible by it, got 3"),
        ("std: [1, 1]", "2:6", "std: has 2 values, and mean has 3"),
        ("precision: int8", "2:12", "precision: should be 'float32', 'bfloat16'"),
        ("image_size: 1", "2:13", "image_size: should be an integer from 8 to 4096, or a pair"),
        ("image_size: [32", "3:1", "not YAML"),
        ("epochs: 2", "2:1", "epochs: duplicate key 'epochs', first in line 1"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path, text, place, message):
    file = tmp_path / "mine.yaml"
    file.write_text(f"epochs: 1\n{text}\n")
    with pytest.raises(SpecError) as error:
        load_recipe(file)
    assert str(error.value).startswith(f"{file}:{place}: {message}")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("imagnet_300", "no such file or preset: 'imagnet_300', did you mean 'imagenet_300'?"),
        ({}, "epochs: is missing"),
        (3, "a recipe is a path, a preset's name or a mapping, not int"),
    ],
)
def test_what_is_no_recipe(source, message):
    with pytest.raises(SpecError, match=message.replace("?", r"\?")):
        load_recipe(source)


def test_an_empty_file_and_a_folder_are_no_recipes(tmp_path):
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(SpecError, match="is empty; a recipe is a mapping with at least `epochs`"):
        load_recipe(tmp_path / "empty.yaml")
    with pytest.raises(SpecError, match="is a directory; a recipe is a YAML file"):
        load_recipe(tmp_path)


def test_values_are_set_on_top():
    assignments = map(parse_assignment, ["optimizer.lr=5e-4", "image_size=[32, 64]", "epochs=3"])
    recipe = load_recipe("smoke", assignments=assignments)
    assert (recipe.optimizer.lr, recipe.image_size, recipe.epochs) == (5e-4, (32, 64), 3)
    with pytest.raises(SpecError, match=r"optimizer\.rate: unknown key"):
        load_recipe("smoke", assignments=[parse_assignment("optimizer.rate=1")])


def test_recipes_need_neither_torch_nor_lightning():
    code = """
import sys
from hierarch.train.recipe import load_recipe, recipe_schema
load_recipe("smoke"), recipe_schema()
print({"torch", "lightning", "torchvision"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_recipe_is_frozen_and_equal_by_value():
    assert Recipe(epochs=1) == load_recipe({"epochs": 1})
    with pytest.raises(ValueError, match="frozen"):
        Recipe(epochs=1).epochs = 2
