"""The JSON Schema, for completion in editors, has every registered part."""

import functools
import json
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from bad_specs import IDENTITY, STAGES
from hypothesis import given, settings
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML
from strategies import backbones

import hierarch
from hierarch.spec import registry
from hierarch.spec.parts import KINDS

SPECS = Path(__file__).parents[1] / "specs"
FILES = sorted(SPECS.rglob("*.yaml"))


@functools.cache
def validator():
    schema = hierarch.schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def read(text):
    return YAML(typ="safe", pure=True).load(text)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_preset_is_valid(file):
    validator().validate(read(file.read_text()))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("drop_path_rate: 0.2", "drop_pth_rate: 0.2"),
        ("window_size: 7", "window_sise: 7"),
        ("depth: 6", "depht: 6"),
        ("input_size: 224", "input_size: large"),
        ("input_size: 224", "input_size: [224, 224, 3, 1]"),
        ("dim: 96", "dim: '96'"),
        ("dim: 96", "dim: 0"),
        ("depth: 6", "depth: 1.5"),
        ("window_attention", "window_atention"),
        ("type: window_attention, ", ""),
        ("type: patch_embed, ", ""),
        ("head_dim: 32, ", ""),
        ("head_dim: 32", "head_dim: 32, num_heads: 3"),
        ("window_size: 7", "small_map: crop"),
        ("drop_path_rate: 0.2", "drop_path_rate: 1.0"),
        ("head: {num_classes: 1000}", "head: 1000"),
        ("head: {num_classes: 1000}", "position_embedding: {type: absolute}"),
    ],
)
def test_a_broken_preset_is_not_valid(old, new):
    text = (SPECS / "swin_tiny.yaml").read_text()
    assert old in text
    assert validator().is_valid(read(text))
    assert not validator().is_valid(read(text.replace(old, new)))


def test_a_network_without_stages_is_not_valid():
    assert validator().is_valid(read(IDENTITY + STAGES))
    assert not validator().is_valid(read(IDENTITY))
    assert not validator().is_valid(read(IDENTITY + "stages: []"))


@settings(max_examples=100, deadline=None)
@given(backbones())
def test_any_valid_spec_is_valid_as_written_and_as_dumped(data):
    validator().validate(data)
    validator().validate(read(hierarch.dump(hierarch.load(data))))


def test_the_file_beside_the_presets_is_the_schema():
    assert json.loads((SPECS / "schema.json").read_text()) == hierarch.schema()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_first_line_of_a_preset_points_an_editor_at_the_schema(file):
    first, _ = file.read_text().split("\n", 1)
    start = "# yaml-language-server: $schema="
    assert first.startswith(start)
    assert (file.parent / first.removeprefix(start)).resolve() == SPECS / "schema.json"


def test_every_part_and_every_field_has_hover_text():
    schema = hierarch.schema()
    definitions = schema["$defs"]
    for kind in KINDS:
        for name in registry.names(kind):
            part = definitions[f"{kind}.{name}"]
            assert part["properties"]["type"]["const"] == name
            assert "type" in part["required"]
    objects = {"backbone": schema, **{k: d for k, d in definitions.items() if "properties" in d}}
    assert len(objects) >= 12
    for name, described in objects.items():
        assert described.get("description"), name
        assert described["additionalProperties"] is False
        for field, value in described["properties"].items():
            assert value.get("description"), f"{name}.{field}"


@pytest.mark.parametrize("kind", KINDS)
def test_every_registered_part_can_be_completed_by_name_and_as_a_mapping(kind):
    bare, *mappings = hierarch.schema()["$defs"][kind]["anyOf"]
    names = registry.names(kind)
    assert bare["enum"] == names
    assert mappings == [{"$ref": f"#/$defs/{kind}.{name}"} for name in names]


def test_a_third_partys_mixer_is_in_the_schema(monkeypatch):
    mixers = dict(registry._registered.get("mixer", {}))
    monkeypatch.setitem(registry._registered, "mixer", mixers)

    @hierarch.register
    class TwirlSpec(hierarch.MixerSpec):
        """Twirls tokens."""

        formula: ClassVar[str] = "0"
        type: Literal["twirl"] = "twirl"
        """Twirling."""
        turns: int = 1
        """How often."""

        def macs(self, *, dim, grid):
            return 0

        def build(self, dim):
            raise NotImplementedError  # a schema builds nothing

    made = hierarch.schema()
    assert made["$defs"]["mixer.twirl"]["properties"]["turns"]["description"] == "How often."
    spec = {"mixer": {"type": "twirl", "turns": 2}, "stages": [{"dim": 8, "depth": 1}]}
    Draft202012Validator(made).validate(spec)
    assert not Draft202012Validator(made).is_valid(spec | {"mixer": {"type": "twirl", "turn": 2}})
    assert hierarch.load(spec).mixer[0].turns == 2
