"""`hierarch new`: a commented spec that is valid, linear and of the language as it is."""

import os
import re
import shlex
from pathlib import Path

import pytest

import hierarch
from hierarch.spec import shipped
from hierarch.spec.shipped import FAMILIES
from hierarch.spec.starter import ALSO, starter
from hierarch.spec.vocabulary import Place


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_starter_is_its_preset_with_comments(family):
    text = starter("mine", family=family)
    assert 20 <= len(text.splitlines()) <= 40
    assert (
        hierarch.load(FAMILIES[family]).to_data() | {"name": "mine"}
        == hierarch.loads(text).to_data()
    )
    assert all(f"\n{field}: " in text for field in ALSO)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_starter_is_built_and_is_linear(family):
    report = hierarch.measure(hierarch.loads(starter("mine", family=family)), sizes=[64, 128])
    assert report.verdict == "linear"


def unwrapped(text):
    """The comments before each top-level field of a starter, with continuation lines joined."""
    found, pending = {}, []
    for line in text.splitlines()[2:]:
        if line.startswith("#     ") or (pending and re.match(r"# [a-z(]", line)):
            pending[-1] += f" {line.lstrip('# ')}"
        elif line.startswith("#"):
            pending.append(line)
        elif not line.startswith(" "):
            found[line.partition(":")[0]], pending = pending, []
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_comments_name_real_fields_and_say_what_the_language_says(family):
    schema = shipped.schema("specs")  # without the parts that other tests register
    comments = unwrapped(starter("mine", family=family))
    assert {"name", "input_size", "stem", "mixer", "stages", "head"} <= comments.keys()
    for field, (first, *others) in comments.items():
        place = Place(schema, (schema,)).fields()[field]
        assert place.description.startswith(first.removeprefix("# "))
        for line in others:
            _, key, about = re.fullmatch(r"(#   )(\w+): (.+)", line).groups()
            described = [
                " ".join(node["description"].split()) for node in place.fields()[key].nodes
            ]
            assert any(one.startswith(about) for one in described)


def test_no_field_that_a_preset_sets_is_left_unexplained():
    text = starter("mine", family="swin")
    for field in ("patch_size", "head_dim", "window_size", "shift_size", "dim", "depth"):
        assert f"#   {field}: " in text


def test_a_starter_is_written_and_the_next_commands_run(run):
    status, out, err = run("new", "my_net", "--family", "poolformer", "--input-size", "64")
    assert (status, err) == (0, "")
    assert out.startswith("written: my_net.yaml\n")
    spec = hierarch.load("my_net.yaml")
    assert (spec.name, spec.input_size) == ("my_net", 64)
    tried = re.findall(r"^  (hierarch .+)$", out, re.MULTILINE)
    assert [command.split()[1] for command in tried] == ["show", "flops", "swap"]
    for command in tried:
        status, _, _ = run(*shlex.split(command)[1:], *["--sizes=64"] * (" flops " in command))
        assert status == 0
    assert hierarch.load("my_net_swapped.yaml").mixer[0].type == "linear_attention"


def test_a_file_is_never_replaced_without_force(run):
    Path("my_net.yaml").write_text("mine")
    status, out, err = run("new")
    assert (status, out) == (2, "")
    assert err == "error: my_net.yaml: is there already; --force replaces it, -o names another\n"
    assert Path("my_net.yaml").read_text() == "mine"
    assert run("new", "--force")[0] == 0
    assert hierarch.load("my_net.yaml").name == "my_net"


@pytest.mark.parametrize("name", ["it's mine", "yes", "12", "a: b", "# no comment", "naïve"])
def test_any_name_is_quoted_where_yaml_and_the_shell_need_it(run, name):
    status, out, _ = run("new", name, "-o", "a file.yaml")
    assert status == 0
    assert hierarch.load("a file.yaml").name == name
    assert "hierarch show 'a file.yaml'" in out


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--family", "swim"], "unknown family 'swim', did you mean 'swin'?"),
        (["--input-size", "0"], "input_size: should be an integer from 1 to 65536"),
        (["--input-size", "64,128"], "--input-size '64,128': one size, such as 448 or 448x640"),
        (["--input-size", "big"], "--input-size 'big': write it as 224 or 896x1120"),
        (["a/b"], "'a/b' is no file's name; give one with -o FILE"),
        ([""], "name: should have at least 1 character"),
        (["a\nb", "-o", "x.yaml"], "name: should be printable text, in one line"),
        (["x" * 201, "-o", "x.yaml"], "name: should have at most 200 characters"),
        (["-o", "nowhere/x.yaml"], "nowhere/x.yaml: cannot be written: No such file"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_written(run, args, expected):
    status, out, err = run("new", *args)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert expected in err
    assert os.listdir() == []


def test_a_size_may_be_a_pair(run):
    assert run("new", "--input-size", "96x128")[0] == 0
    assert hierarch.load("my_net.yaml").input_size == (96, 128)
    assert "\ninput_size: [96, 128]\n" in Path("my_net.yaml").read_text()
