"""Reading a spec: any invalid input is a `SpecError` with place, value and expected values."""

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from bad_specs import BAD, IDENTITY, STAGES
from hypothesis import given, settings
from hypothesis import strategies as st

import hierarch
from hierarch import BackboneSpec, SpecError
from hierarch.spec.registry import names

SECONDS = 60  # of patience: the slowest text of 256 kB takes 5 s where nothing else runs
ROOT = Path(__file__).parents[1]
PRESETS = {name: (ROOT / "specs" / f"{name}.yaml").read_text() for name in hierarch.presets()}
PLAIN = {"mixer": "identity", "stages": [{"dim": 32, "depth": 1}]}


def refusal(source, read=hierarch.load) -> str:
    """The error message for a bad input, which comes quickly and fits on a screen."""
    begun = time.monotonic()
    with pytest.raises(SpecError) as caught:
        read(source)
    assert time.monotonic() - begun < SECONDS
    message = str(caught.value)
    assert len(message.splitlines()) <= SpecError.SHOWN + 1
    assert len(message) < 2_000
    return message


@pytest.mark.parametrize("case", BAD)
def test_a_bad_text_is_refused_with_its_place(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, expected = BAD[case]
    raw = text if isinstance(text, bytes) else text.encode("utf-8")
    file = tmp_path / "spec.yaml"
    file.write_bytes(raw)
    from_file = refusal(file)
    assert from_file.startswith(str(file))
    assert re.search(expected, from_file), from_file
    if isinstance(text, str) and len(text) < 5_000:
        from_text = refusal(text, lambda text: hierarch.loads(text, source=str(file)))
        assert from_text == from_file
    assert os.listdir(tmp_path) == ["spec.yaml"]  # nothing of it ran


def test_the_error_names_its_problems_for_programs_too():
    with pytest.raises(SpecError) as caught:
        hierarch.loads(IDENTITY + "stages: [{dim: 0, depth: 1}]\nnaem: x\n", source="a.yaml")
    assert caught.value.source == "a.yaml"
    [typo] = caught.value.problems  # what is inside is looked at once the keys are right
    assert (typo.path, typo.line, typo.column) == ("naem", 3, 1)
    assert isinstance(caught.value, ValueError)


def test_every_mistake_is_named_at_once_and_at_most_a_screen_of_them():
    text = IDENTITY + "stages:\n" + "  - {dim: 0, depth: -1}\n" * 9
    message = refusal(text, hierarch.loads)
    assert message.startswith("<text>:3:11: stages[0].dim: should be greater than or equal to 1")
    assert message.endswith("\n... and 10 more")


def test_a_missing_file_is_named(tmp_path):
    assert refusal(tmp_path / "nope.yaml") == f"{tmp_path}/nope.yaml: no such file"
    assert refusal("nope.yml") == "nope.yml: no such file"


def test_a_name_that_is_no_preset_gets_the_nearest_one():
    expected = "no such file or preset: 'swin_tinny', did you mean 'swin_tiny'?"
    assert refusal("swin_tinny") == expected
    assert "did you mean 'swin_tiny'?" in refusal("swin_tiny.yaml")
    assert "did you mean 'convnext_tiny'?" in refusal("convnext/convnext_tinny")
    families = {file.parent.name for file in (ROOT / "specs").glob("*/*.yaml")}
    listed = refusal("resnet").partition(", known: ")[2].split(", ")
    assert {name.removesuffix("/*") for name in listed if name.endswith("/*")} == families
    assert {name for name in listed if "/" not in name} == {n for n in PRESETS if "/" not in n}


def test_a_preset_may_be_named_with_its_folder_or_without():
    bare = [name.rpartition("/")[2] for name in PRESETS]
    assert len(set(bare)) == len(bare)
    for name, last in zip(PRESETS, bare, strict=True):
        assert hierarch.load(last) == hierarch.load(name)


def test_a_directory_is_no_spec(tmp_path):
    assert refusal(tmp_path) == f"{tmp_path}: is a directory; a spec is a YAML file"


def test_a_directory_does_not_hide_a_preset(tmp_path, monkeypatch):
    (tmp_path / "swin_tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert hierarch.load("swin_tiny").name == "swin_tiny"


def test_an_endless_file_is_not_read_to_its_end():
    assert refusal("/dev/zero") == "/dev/zero: is larger than 256 kB; this is no spec"


@pytest.mark.parametrize("name", ["a\0b", "a\0b.yaml", "\ud800", "\ud800.yaml", ""])
def test_an_invalid_path_is_refused(name):
    refusal(name)
    refusal(Path(name))


@pytest.mark.parametrize("name", ["x" * 5_000, "x" * 300 + ".yaml", "/".join(["x" * 200] * 50)])
def test_a_name_too_long_for_the_system_is_refused_and_cut(name):
    assert re.fullmatch(r"no such file: 'x{80}' \(.*too long\)", refusal(name))


@pytest.mark.parametrize("source", [None, 7, 1.5, True, b"swin_tiny", ["swin_tiny"], object()])
def test_a_source_is_a_path_a_name_or_a_mapping(source):
    kind = type(source).__name__
    assert refusal(source) == f"a spec is a path, a preset's name or a mapping, not {kind}"


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({1: 2}, "1: unknown key '1', known: "),
        ({None: 2}, "None: unknown key 'None', known: "),
        ({10**5_000: 2}, "unknown key 'a value (int) too large to show', known: "),
        ({"name": 10**5_000}, "name: should be text, got a value (int) too large to show"),
        ({"name": [10**5_000]}, "name: should be text, got a value (list) too large to show"),
        ({"name": nested(100_000)}, "name: should be text, got a value (list) too large to show"),
        ({"stages": nested(100_000)}, "stages[0]: should be a mapping, got a value (list)"),
        ({"stages": [1] * 10_000}, "stages[0]: should be a mapping, got 1\n"),
        ({"stages": iter([])}, "stages: should have at least 1 entry"),
        ({"stages": "abc"}, "stages: should be a list, got 'abc'"),
        ({"out_indices": [[0]]}, "out_indices[0]: should be a valid integer, got [0]"),
        ({"mixer": ["identity", 3]}, "mixer[1]: should be the name of a mixer, or a mapping"),
        ({"input_size": [True, 224]}, "input_size: should be an integer from 1 to 65536, or"),
    ],
)
def test_a_bad_mapping_is_refused_with_its_path(fields, expected):
    assert expected in refusal(PLAIN | fields)


def test_a_mapping_inside_of_itself_is_refused():
    in_stem, in_stages, in_list = dict(PLAIN), {"name": "ring"}, []
    in_stem["stem"] = in_stem
    in_stages["stages"] = [in_stages]
    in_list.append(in_list)
    assert refusal(in_stem).startswith("stem.type: should name a stem; known: ")
    assert refusal(in_stages).startswith("stages[0].name: unknown key 'name'")
    assert refusal(PLAIN | {"stages": in_list}) == "stages[0]: should be a mapping, got [[...]]"


def test_any_kind_of_mapping_is_read():
    frozen = MappingProxyType({**PLAIN, "stages": [MappingProxyType(PLAIN["stages"][0])]})
    assert hierarch.load(frozen) == hierarch.load(PLAIN)


def test_anchors_and_aliases_repeat_a_value():
    text = "mixer: [&m {type: pooling, kernel_size: 5}, *m]\nstages: [&s {dim: 8, depth: 1}, *s]\n"
    spec = hierarch.loads(text)
    assert spec.mixer[0] == spec.mixer[1]
    assert spec.stages[0] == spec.stages[1]
    assert spec.mixer[1].kernel_size == 5


def test_a_mistake_behind_an_alias_is_named_where_it_is_written():
    text = "mixer: identity\nstages:\n  - &s {dim: 0, depth: 1}\n  - *s\n"
    assert "<text>:3:14: stages[1].dim: should be" in refusal(text, hierarch.loads)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_byte_order_mark_and_other_newlines_are_no_mistake(mark, newline, tmp_path):
    text = mark + IDENTITY + STAGES
    (tmp_path / "a.yaml").write_bytes(text.replace("\n", newline).encode())
    assert hierarch.load(tmp_path / "a.yaml") == hierarch.load(PLAIN)


def test_a_date_is_text_like_any_other():
    assert hierarch.loads(IDENTITY + STAGES + "name: 2021-03-25\n").name == "2021-03-25"


def is_spec_or_refused(source, read=hierarch.load) -> None:
    try:
        assert isinstance(read(source), BackboneSpec)
    except SpecError as error:
        message = str(error)
        assert 0 < len(message) < 3_000


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=200)
FIELDS = sorted(
    {*BackboneSpec.model_fields, "type", "dim", "depth", "window_size", "head_dim", "grid"}
)
WORDS = [*names("mixer"), "layer_norm", "patch_embed", "patch_merging", "none", "absolute"]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 70)
    | st.integers()
    | st.floats()
    | st.sampled_from(WORDS)
    | ANY_TEXT
)
KEYS = st.sampled_from(FIELDS) | ANY_TEXT | st.integers() | st.none()
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(ANY_TEXT)
def test_any_text_is_a_spec_or_refused(text):
    is_spec_or_refused(text)
    is_spec_or_refused(text, hierarch.loads)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_file_is_a_spec_or_refused(tmp_path_factory, raw):
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(raw)
    is_spec_or_refused(file)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(KEYS, ANYTHING, max_size=6))
def test_any_mapping_is_a_spec_or_refused(mapping):
    is_spec_or_refused(mapping)
    is_spec_or_refused(PLAIN | mapping)


@st.composite
def put_somewhere(draw) -> Mapping:
    """A valid spec with one value in it replaced by anything."""
    data = hierarch.load(draw(st.sampled_from(sorted(PRESETS)))).to_data()
    node, key = data, draw(st.sampled_from(sorted(data)))
    while isinstance(node[key], dict | list) and node[key] and draw(st.booleans()):
        node = node[key]
        keys = sorted(node) if isinstance(node, dict) else range(len(node))
        key = draw(st.sampled_from(keys))
    node[key] = draw(ANYTHING)
    return data


@pytest.mark.no_cover  # a hot loop through the reader of YAML, which the tests above go through
@settings(max_examples=300, deadline=None)
@given(put_somewhere())
def test_a_preset_with_one_value_replaced_is_a_spec_or_refused(data):
    is_spec_or_refused(data)


@st.composite
def mangled(draw) -> str:
    """A preset's text with characters or lines deleted, replaced or inserted."""
    text = draw(st.sampled_from(sorted(PRESETS.values())))
    for _ in range(draw(st.integers(1, 3))):
        parts = text.splitlines(keepends=True) if draw(st.booleans()) else list(text)
        start = draw(st.integers(0, len(parts)))
        stop = draw(st.integers(start, min(start + 5, len(parts))))
        parts[start:stop] = draw(st.text(max_size=5) | st.sampled_from("&*!|>%@`\t{}[],:-?#\"'~"))
        text = "".join(parts)
    return text


@pytest.mark.no_cover  # as above
@settings(max_examples=300, deadline=None)
@given(mangled())
def test_a_mangled_preset_is_a_spec_or_refused(text):
    is_spec_or_refused(text, hierarch.loads)


def test_what_is_done_to_a_presets_data_stays_out_of_the_preset():
    before = hierarch.load("swin_tiny")
    data = hierarch.spec.load.read("swin_tiny").data
    data["stages"][0]["dim"] = 8
    data["name"] = "other"
    assert hierarch.load("swin_tiny") == before
