"""The docs are complete and up to date, and the code that runs their examples detects errors."""

import ast
import re
from pathlib import Path

import comparison
import families
import fences
import fields
import figures
import pytest

import hierarch
from hierarch.spec import registry
from hierarch.spec.parts import KINDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SPEC = (ROOT / "docs" / "spec.md").read_text("utf-8")
PARTS = [(kind, name) for kind in KINDS for name in fields.builtin(kind)]


def documented(section: str) -> set[str]:
    return set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))


def block(of: str, page: str = SPEC) -> str:
    return re.search(rf"<!-- fields: {of} -->(.*?)<!-- end -->", page, re.DOTALL)[1]


@pytest.mark.parametrize("cls", [cls for classes in fields.SCHEMAS for cls in classes])
def test_every_field_of_a_document_is_documented(cls):
    pages = "".join(page.read_text("utf-8") for page in fields.PAGES)
    assert documented(block(cls.__name__, pages)) == cls.model_fields.keys()


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_every_field_of_every_part_is_documented(kind, name):
    section = block(kind).split(f"### `{name}`\n")[1].split("### ")[0]
    known = registry.get(kind, name).model_fields.keys() - {"type"}
    assert documented(section) == known
    assert all(registry.get(kind, name).model_fields[field].description for field in known)


def test_the_tables_of_fields_are_up_to_date():
    for page in fields.PAGES:
        text = page.read_text("utf-8")
        assert fields.filled(text) == text, "run: python docs/figures.py"


def test_the_table_of_peers_is_complete_and_up_to_date():
    page = comparison.PAGE.read_text("utf-8")
    rows = comparison.published()
    assert all(f"| {row['name']} | `{row['network']}` | {row['image']}² |" in page for row in rows)
    few = {"timm:regnety_040", "timm:efficientnet_b3", "timm:deit_small_patch16_224", "swin_tiny"}
    lines = [comparison.line(row) for row in rows if row["network"] in few]
    assert len(lines) == len(few)
    assert all(f"\n{line}\n" in page for line in lines), "run: python docs/comparison.py"


def test_the_table_of_families_is_complete_and_up_to_date():
    page = families.PAGE.read_text("utf-8")
    presets = [name for name in hierarch.presets() if not name.startswith("ablations/")]
    assert sorted(families.presets()) == presets
    assert all(f"](../specs/{name}.yaml) |" in page for name in presets)
    few = ["swin_mixer_tiny_d6", "metaformer/caformer_s18", "swin_v2/swin_v2_tiny_window8_256"]
    lines = [families.line(name) for name in few]
    assert all(f"\n{line}\n" in page for line in lines), "run: python docs/families.py"
    assert families.brought() in page, "run: python docs/families.py"


def test_a_line_of_code_is_neither_blank_nor_a_comment_nor_a_docstring():
    begin = '"""Of a module,\nin two lines."""\n\nX = """a\nb"""  # a comment\n# another\n'
    end = 'def f(\n    a,\n):\n    """What it does."""\n    return [\n        a\n    ]\n'
    assert families.code_lines(begin + end) == 8


def test_a_part_is_short():
    """At most 120 lines for a part: its file has no other."""
    package = Path(hierarch.__file__).parent
    files = [file for kind in KINDS for file in (package / f"{kind}s").glob("*.py")]
    lengths = {file: families.code_lines(file.read_text("utf-8")) for file in files}
    assert len(lengths) > 40
    assert {file.name: n for file, n in lengths.items() if n > 120} == {}


def test_a_difference_is_shown_as_the_power_of_ten_above_it(monkeypatch):
    for difference, shown in [
        (0.0, "< 1e-12"),
        (3e-16, "< 1e-12"),
        (2e-9, "< 1e-8"),
        (0.5, "< 1e0"),
    ]:
        monkeypatch.setattr(families, "difference", lambda *_, value=difference: value)
        assert families.furthest("mlp/resmlp_s12") == shown


def test_a_stale_file_is_detected(tmp_path):
    page, drawing = tmp_path / "page.md", tmp_path / "drawing.svg"
    page.write_text("4.5")
    drawing.write_text("<svg><text x='1'>4.5</text></svg>")
    assert figures.stale({page: "4.5", drawing: "<svg><text x='2'>4.5</text></svg>"}) == []
    assert figures.stale({page: "4.6"}) == [page]
    assert figures.stale({drawing: "<svg><text x='1'>4.6</text></svg>"}) == [drawing]
    assert figures.stale({tmp_path / "none.md": ""}) == [tmp_path / "none.md"]


@pytest.mark.parametrize("example", ["custom_mixer.py", "windowed_mixer.py"])
def test_the_page_on_custom_mixers_shows_every_class_of_the_example(example):
    source = (ROOT / "examples" / example).read_text("utf-8")
    text = (ROOT / "docs" / "custom-mixer.md").read_text("utf-8")
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    assert len(classes) == 2
    for node in classes:
        assert ast.get_source_segment(source, node) in text


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_every_example_is_run_by_a_page(script):
    command = f"$ python examples/{script.name}"
    fenced = [found["body"] for page in PAGES for found in fences.FENCE.finditer(page.read_text())]
    assert any(command in body for body in fenced)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_fence_has_a_known_language(page):
    text = page.read_text("utf-8")
    kinds = {found["language"] for found in fences.FENCE.finditer(text)}
    assert kinds <= {"python", "yaml", "console", "bash", "diff", "toml"}
    assert text.count("```") == 2 * len(re.findall(r"^```[\w{]", text, re.MULTILINE))


def test_every_example_in_a_docstring_is_run(pytestconfig):
    runner = pytestconfig.pluginmanager.get_plugin(str(ROOT / "conftest.py"))
    modules = [p for p in ROOT.glob("hierarch/**/*.py") if ">>> " in p.read_text("utf-8")]
    assert modules
    assert all(runner.docstrings.should_parse(path) for path in modules)


def test_a_different_output_is_reported():
    assert fences.check("$ echo one; echo two\none\ntwo\n$ echo three\nthree\n") is None
    assert "prints\nfour" in fences.check("$ echo three\nthree\n$ echo four\nfive\n")
    assert fences.check("$ echo one\n") is not None


def test_dots_match_any_lines():
    assert fences.check("$ seq 9\n1\n...\n9\n") is None
    assert fences.check("$ seq 9\n1\n...\n8\n") is not None


def test_a_failing_command_raises():
    with pytest.raises(RuntimeError, match="exit status 3"):
        fences.check("$ exit 3\n")


def test_outputs_are_refreshed_in_place():
    old = "```console\n$ seq 2\n$ seq 9\n1\n0\n...\n8\n```\ntext\n```yaml\na: 1\n```\n"
    new = "```console\n$ seq 2\n1\n2\n$ seq 9\n1\n2\n...\n9\n```\ntext\n```yaml\na: 1\n```\n"
    assert fences.refreshed(old) == new
    assert fences.refreshed(new) == new


def test_commands_run_in_a_temporary_folder():
    here = Path.cwd()
    with fences.workplace():
        place = Path.cwd()
        assert place != here
        assert fences.run("ls").split() == ["examples", "specs"]
        Path("written.txt").touch()
    assert Path.cwd() == here
    assert not place.exists()
