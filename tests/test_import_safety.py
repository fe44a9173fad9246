"""What is read of a Python config, that nothing in a config runs, and hostile configs."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress

import pytest
from configs import UPERNET, imported, refused, save
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hierarch
from hierarch import SpecError
from hierarch.importing.files import read_config
from hierarch.importing.nodes import Symbol, Unread


@pytest.mark.parametrize(
    "statements",
    [
        "depths = [2, 2, 6, 2]",
        "depths = [2] * 4\ndepths[2] = 6",
        "depths = [2, 2]\ndepths += [6, 2]",
        "depths: list = [2, 2, 3 * 2, 10 // 5]",
        "blocks = dict(all=[2, 2, 6, 2])\ndepths = blocks['all']",
        "blocks = dict()\nblocks.update(all=[2, 2, 6, 2])\ndepths = blocks.all",
        "first, depths = 1, [2, 2, 6, 2]\ndel first",
        "depths = list((2, 2, 6, 2))\nassert len(depths) == 4",
        "depths = [*[2, 2], 6, 2]\nnames = [f'{n}' for n in depths]",
        "depths = [2, 2, 6, 2]\nprint(max(depths))\nname = 'a' if depths else 'b'",
        "import os\ndepths = [2, 2, 6, 2]\nroot = os.path.join('a', 'b')\nos.makedirs",
    ],
)
def test_the_closed_subset_of_python(tmp_path, statements):
    text = f"{statements}\n{UPERNET.replace('depths=[2, 2, 6, 2]', 'depths=depths')}"
    assert [stage.depth for stage in imported(tmp_path, text).spec.stages] == [2, 2, 6, 2]


@pytest.mark.parametrize(
    ("statements", "line", "reason"),
    [
        ("depths = [2, 2, n, 2]", 1, "the name 'n', which is not set before"),
        ("depths = make()", 1, "a call of make"),
        ("depths = [2 for _ in range(4)]", 1, "a comprehension"),
        ("depths = [2, 2, 6, 2]\ndepths.append(2)", 2, "a call of append"),
        ("depths = [2, 2, 6, 2]\nlonger(depths)", 2, "a call of longer"),
        ("depths = [2, 2, 6, 2]\nx = longer(depths)", 2, "a call of longer"),
        ("depths = [2, 2, 6, 2]\nx = [depths, 1]\nlonger(x)", 3, "a call of longer"),
        ("depths = [2, 2, 6, 2]\nx = (depths, 1)[:1]\nx[0].pop()", 3, "a call of pop"),
        ("depths = [2, 2, 6, 2]\nfor i in [1]:\n    depths[i] = 3", 2, "a statement (for) that"),
        ("if True:\n    depths = [2, 2, 6, 2]", 1, "a statement (if) that may change it"),
        ("depths = [2, 2, 6, 2]\nglobals()['depths'] = [1]", 2, "a statement (assign) that may"),
        ("depths = [2, 2, 6, 2]\nexec('depths = [1]')", 2, "a statement (expr) that may"),
        ("depths = [2, 2, 6, 2]\nfrom other import *", 2, "a statement (importfrom) that may"),
        ("depths = [2, 2, 6, 2]\ny = (depths := [1])", 2, "a statement (assign) that may"),
        ("depths = [2, 2, 6, 2]\ndef f(): depths.pop()\nf()", 2, "a statement (functiondef)"),
        ("from other import depths", 1, None),
        ("depths = [2, 2, 6, 10 ** 2]", 1, "an operation on what is no number"),
        ("depths = [2, 2, 6, 1 / 0]", 1, "an operation on what is no number"),
        ("depths = [2, 2, 6, 99999999999999999999]", 1, "a number that is too large"),
        ("depths = '{{fileBasename}}'", 1, "a template"),
        ("depths = {{_base_.depths}}", 1, "an item 'depths', which is not there"),
    ],
)
def test_what_only_python_could_evaluate_is_an_error_where_it_matters(
    tmp_path, statements, line, reason
):
    text = f"{statements}\n{UPERNET.replace('depths=[2, 2, 6, 2]', 'depths=depths')}"
    message = refused(tmp_path, text)
    assert message.startswith(f"config.py:{line}:")
    assert ": model.backbone.depths" in message
    if reason:
        assert f"comes from {reason}" in message
        assert message.endswith("no code is run, so write the value itself")
    else:
        assert message.endswith("should be a list of integers, got depths")
    text = f"{statements}\n{UPERNET}"  # and where it does not
    wild = "globals" in statements or "exec" in statements or "import *" in statements
    assert wild or imported(tmp_path, text).spec


def test_nothing_runs(tmp_path):
    mark = tmp_path / "ran"
    evil = f"open({str(mark)!r}, 'w')"
    statements = [
        evil,
        f"import os; os.system('touch {mark}')",
        f"x = {evil}",
        f"x = [{evil} for _ in [1]]",
        f"class A:\n    {evil}",
        f"@{evil}\ndef f(): pass",
        f"def f(a={evil}): pass",
        f"x = f'{{{evil}}}'".replace("'", '"'),
        f"x: {evil} = 1",
        f"model = dict(backbone=dict(type='SwinTransformer', x={evil}))",
        f"x = __import__('os').system('touch {mark}')",
        f"with read_base():\n    {evil}",
        f"_base_ = [{evil}]",
    ]
    for statement in statements:
        path = save(tmp_path, {"evil.py": f"{statement}\n{UPERNET}"})
        with suppress(SpecError):
            hierarch.import_config(path)
        assert not mark.exists(), statement
    path = save(tmp_path, {"evil.yaml": f"MODEL: !!python/object/apply:os.system [touch {mark}]\n"})
    with pytest.raises(SpecError, match=r"tag .* is not allowed"):
        hierarch.import_config(path)
    assert not mark.exists()


# bounds


CHAIN = "\n".join(["a0 = dict(x=1)", *(f"a{i + 1} = dict(x=a{i}, y=a{i})" for i in range(60))])
HOSTILE = {
    "nested lists": "model = " + "[" * 90 + "]" * 90,
    "nested calls": "model = " + "dict(a=" * 90 + "1" + ")" * 90,
    "a tower of operators": "model = " + "-" * 100_000 + "1",
    "a chain of attributes": "model = a" + ".a" * 100_000,
    "a sum": "model = 1" + " + 1" * 60_000,
    "a number": "model = " + "9" * 200_000,
    "powers": "model = 9 ** 9 ** 9 ** 9",
    "a product": "model = " + " * ".join(["999999999999"] * 50),
    "repeats": "model = [[[0] * 1000] * 1000] * 1000\nmodel = model * 1000",
    "text": "a = 'x' * 1000000000\nmodel = a * 1000000000",
    "doubled text": "a = 'xxxxxxxxxxxxxxxx'\n" + "a = a + a\n" * 60 + "model = a",
    "doubled lists": "a = [1]\n" + "a = a + a\n" * 60 + "model = a",
    "copies": "a = dict()\n" + "".join(f"a = dict(**a, k{i}=1)\n" for i in range(9000)),
    "shared parts": CHAIN + "\nmodel = a60",
    "shared parts, merged": CHAIN + "\nmodel = a60\nmodel.merge(a60)",
    "a cycle": "a = dict()\na['a'] = a\nmodel = dict(backbone=a)\na.merge(a)",
    "a cycle in a list": "a = [1]\na[0] = a\nmodel = dict(backbone=dict(type='SwinTransformer', "
    "depths=a))",
    "names": "".join(f"a{i} = a{i - 1}\n" for i in range(1, 9000)) + "f(a8999)",
    "statements": "a = [1]\n" + "f(a)\n" * 10_000,
    "too long": "# " + "x" * 600_000,
    "a null byte": "model = '\0'",
    "half of a character": "model = '\udc80'",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_configs_are_an_error_soon(tmp_path, name):
    path = tmp_path / "config.py"
    path.write_bytes(HOSTILE[name].encode("utf-8", "surrogatepass"))
    start = time.perf_counter()
    with pytest.raises(SpecError):
        hierarch.import_config(path)
    assert time.perf_counter() - start < 60


def test_files_that_inherit_from_each_other_are_an_error(tmp_path):
    files = {"a.py": "_base_ = 'b.py'", "b.yaml": "_base_: a.py", "b.py": "_base_ = ['b.yaml']"}
    save(tmp_path, files)
    with pytest.raises(SpecError, match=r"inherits from 'a.py', which inherits from this file"):
        hierarch.import_config(tmp_path / "a.py")
    text = "with read_base():\n    from .lazy import *\n"
    assert "which inherits from this file" in refused(tmp_path, text, "lazy.py")


def test_the_files_of_a_config_are_bounded(tmp_path):
    for i in range(12):  # each twice: 4096 ways
        save(tmp_path, {f"{i}.yaml": f"BASE: [{i + 1}.yaml, {i + 1}.yaml]\n"})
    save(tmp_path, {"12.yaml": "MODEL: {}"})
    with pytest.raises(SpecError, match="more than 64 files"):
        hierarch.import_config(tmp_path / "0.yaml")
    save(tmp_path, {f"{i}.py": "#" * 200_000 for i in range(3)})
    assert "more than 512 kB" in refused(tmp_path, "_base_ = ['0.py', '1.py', '2.py']")


@pytest.mark.parametrize("name", ["gone.py", "folder.py", "config.txt", "x\0.py"])
def test_what_is_no_config_file_is_an_error(tmp_path, name):
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "config.txt").write_text(UPERNET)
    with pytest.raises(SpecError):
        hierarch.import_config(tmp_path / name)


def test_names_in_a_config_stay_inside_of_the_comments(tmp_path):
    text = f"{UPERNET}\nextra = {{'a': 1}}\nextra['b\\nname: evil'] = 2\n" + (
        "model['c\\nstages: []\\u2028x'] = 3\n"
    )
    found = imported(tmp_path, text)
    assert hierarch.loads(found.yaml()) == found.spec
    assert "evil" not in found.spec.name
    long = imported(tmp_path, UPERNET + "".join(f"k{i} = 1\n" for i in range(90)))
    assert "and 5" in long.yaml()
    assert all(line.startswith("#") for line in long.yaml().split("name:")[0].splitlines())


def test_reading_a_config_does_not_import_torch_or_the_config(tmp_path):
    """Only the last step does, the parts' own files: validation of the spec."""
    path = save(tmp_path, {"swin.py": f"import torch\n{UPERNET}"})
    code = (
        "import sys; from hierarch.importing.files import read_config\n"
        "from hierarch.importing import microsoft, openmmlab\n"
        f"openmmlab.swin(read_config({str(path)!r}), 'swin'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# against Python itself

STATEMENTS = [
    *("{x} = {n}", "{x} = [{n}, {m}]", "{x} = dict(k={n}, l={y})", "{x} = {y}"),
    *("{x} = {y} = [{n}]", "{x}.update(k={n})", "{x}.update({y})", "{x}.update({y}, l={z})"),
    *("{x}.append({y})", "{x}.extend({y})", "{x}.pop()", "{x}.clear()"),
    *("{x}.setdefault('k', {y})", "{x}.copy().clear()", "{x}[0] = {y}", "{x}['k'] = {y}"),
    *("{x}['k']['l'] = {n}", "{x}[-1][0] = {n}", "del {x}", "del {x}[0]", "{x} += [{n}]"),
    *("{x} += {y}", "{x} *= 2", "{x} |= {y}", "grow({x})", "grow({x}[0])"),
    *("if {x}:\n    {y} = {n}", "for i in range(2):\n    {x}[i] = {n}"),
    *("for i in {x}:\n    grow(i)", "{x} = ({y}, {z})[0]", "{x} = [{y} for _ in '1'][0]"),
    *("{x} = {y} if {z} else {y}", "{x} = {y}['k']", "{x} = {y}[0]", "{x} = list({y})"),
    *("{x} = [*{y}, {z}]", "{x} = dict(**{y})", "{x} = dict({y}, k={z})"),
    *("{x} = {{**{y}, 'l': {z}}}", "{x} = (lambda v: v)({y})", "{x} = {y} * 2"),
    *("{x} = same({y})", "{x} = {y}.copy()", "{x} = {y} + {z}", "{x} = {y} - {n}"),
    *("{x}, {y} = {z}, {n}", "[{x}, {y}] = {z}", "{x} = ({y} := [{n}])"),
    *("globals()['{x}'] = {n}", "{x} = {y}.get('k')"),
    *("try:\n    grow({x})\nexcept Exception:\n    pass", "{x} = [{y}].pop()"),
    *("{x} = max({y}, {z})", "{x}: list = [{y}]", "with room({y}) as {x}:\n    grow({x})"),
    *("assert grow({x}) is None", "def shrink():\n    {x}.pop()", "shrink()"),
    *("class Other:\n    grow({x})", "hold({x}, {y})", "{x} = next(iter({y}))"),
    *("{x} = sorted([{y}], key=grow)", "while {x}:\n    {x}.pop()"),
]
PRELUDE = """
from contextlib import nullcontext as room
def grow(x):
    x.append(9) if isinstance(x, list) else x.update(grown=9)
def same(x):
    return x
def hold(x, y):
    x.append(y)
a, b, c = [1, 2], dict(k=[3], l=dict(l=4)), 5
"""
names, numbers = st.sampled_from("abc"), st.integers(0, 3)
statements = st.builds(
    lambda text, x, y, z, n, m: text.format(x=x, y=y, z=z, n=n, m=m),
    *(st.sampled_from(STATEMENTS), names, names, names, numbers, numbers),
)


def run(text):
    """The names that a program binds; none if it fails."""
    ran = {}
    try:
        exec(text, ran)
    except Exception:
        return {}
    return ran


def difference(node, value, depth=6):
    """Where what is read differs from the value; "" if nowhere."""
    read = node.value
    if isinstance(read, Unread | Symbol) or not depth:
        return ""
    if isinstance(read, dict) and isinstance(value, dict) and read.keys() == value.keys():
        return "".join(difference(read[key], value[key], depth - 1) for key in read)
    if isinstance(read, list) and isinstance(value, list | tuple) and len(read) == len(value):
        return "".join(difference(*both, depth - 1) for both in zip(read, value, strict=True))
    same = type(read) is type(value) and not isinstance(read, dict | list) and read == value
    return "" if same else f"{read!r} is {value!r}\n"


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(statements, min_size=1, max_size=12))
def test_what_is_read_is_what_python_computes(tmp_path_factory, program):
    """Whatever is mutated under another name, or by what is not read: no value is a stale one."""
    text = PRELUDE
    for statement in program:
        if run(text + statement):
            text += f"{statement}\n"
    path = save(tmp_path_factory.mktemp("program"), {"config.py": text})
    found, ran = read_config(path), run(text)
    for name in "abc":
        if name in found.value:
            assert difference(found.value[name], ran.get(name, "nothing")) == "", text
        else:
            assert found.more or name not in ran, text
