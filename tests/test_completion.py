"""Completion, through the shells' own protocol, and in a real bash. No torch, and fast."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import hierarch
from hierarch.cli import completion
from hierarch.exporting.registry import target_names
from hierarch.spec import registry, shipped
from hierarch.spec.load import read, validate
from hierarch.spec.overrides import assign, parse_assignment
from hierarch.spec.vocabulary import Place, completed
from hierarch.train.recipe import load_recipe, recipes
from hierarch.weights.registry import libraries

HIERARCH = Path(sys.executable).with_name("hierarch")


@pytest.fixture
def complete(run, monkeypatch, tmp_path):
    """What bash is given for the last of some words, cut at "=" as bash cuts them."""
    monkeypatch.chdir(tmp_path)

    def complete(*words):
        cut = [part for word in ("hierarch", *words) for part in re.split("(=)", word)]
        cut = [part for i, part in enumerate(cut) if part or i == len(cut) - 1]
        if len(cut) > 1 and cut[-2:] == ["=", ""]:  # the "=" itself is bash's current word
            cut.pop()
        monkeypatch.setenv("_HIERARCH_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", "\n".join(cut))
        monkeypatch.setenv("COMP_CWORD", str(len(cut) - 1))
        status, out, err = run()
        assert (status, err) == (0, "")
        return out.split()

    return complete


# names


def test_presets_are_completed_by_their_whole_or_their_last_name(complete):
    assert complete("show", "swin_t") == ["swin_tiny", "swin_tiny_d24"]
    assert complete("flops", "swin_tiny", "vit/vit") == [
        *("vit/vit_base_patch16", "vit/vit_small_patch16", "vit/vit_tiny_patch16")
    ]
    assert complete("show", "convnext_t") == ["convnext_tiny"]
    assert complete("show", "") == hierarch.presets()
    assert complete("show", "no_such") == []


@pytest.mark.parametrize(
    "command", ["flops", "compare", "bench", "show", "validate", "swap", "export", "train"]
)
def test_every_command_that_reads_a_spec_completes_presets_and_yaml_files(complete, command):
    for name in ("swin_mine.yaml", "swin_mine.yml", "swin mine.yaml", "swin_mine.csv"):
        Path(name).touch()
    assert complete(command, "swin_mi") == [
        *(name for name in hierarch.presets() if name.startswith("swin_mi")),
        *("swin_mine.yaml", "swin_mine.yml"),
    ]


def test_files_of_a_folder_are_completed(complete, tmp_path):
    Path("specs").mkdir()
    Path("specs/mine.yaml").touch()
    assert complete("show", "specs/") == ["specs/mine.yaml"]
    assert complete("show", "nowhere/") == []


def test_parts_formats_recipes_targets_and_layouts_are_completed(complete):
    assert complete("swap", "swin_tiny", "--mixer", "") == registry.names("mixer")
    assert complete("swap", "swin_tiny", "--mixer=window_") == ["window_attention", "window_mlp"]
    assert complete("flops", "swin_tiny", "--format", "") == [
        *("table", "json", "csv", "markdown", "latex")
    ]
    assert complete("train", "swin_tiny", "--recipe", "") == recipes()
    assert complete("evaluate", "run", "--recipe", "imagenet") == ["imagenet_300"]
    assert complete("export", "swin_tiny", "--to", "") == target_names()
    assert complete("convert", "in", "out", "--layout", "") == libraries()
    assert complete("convert", "in", "out", "--from", "") == ["auto", *libraries()]
    assert complete("new", "--family", "sw") == ["swin", "swin_v2"]
    assert complete("swap", "swin_tiny", "--match", "") == ["macs", "params", "latency"]


def test_kinds_of_parts_and_their_names_are_completed(complete):
    assert complete("swap", "swin_tiny", "--part", "n") == ["norm="]
    assert complete("swap", "swin_tiny", "--part", "channel_mixer=g") == ["glu", "grn_mlp"]
    assert complete("swap", "swin_tiny", "--part", "kind=g") == []
    found = complete("swap", "s", "--part", "channel_mixer=conv_mlp", "--set", "channel_mixer.k")
    assert found[0] == "channel_mixer.kernel_size="


def test_another_packages_mixer_is_completed(complete, monkeypatch):
    class Entry:
        name, value = "window_twirl", "package.twirl:TwirlSpec"

    monkeypatch.setattr(completion, "entry_points", lambda group: [Entry])
    found = complete("swap", "swin_tiny", "--mixer", "window")
    assert found == ["window_attention", "window_mlp", "window_twirl"]


# --set


def test_every_path_that_is_completed_can_be_set():
    """Follows each way on, and sets each value in the spec, which may not fit, but is known."""
    data = read("swin_tiny").data
    schema = shipped.schema("specs")
    place = Place(schema, (schema,), data)
    pending, found = [""], set()
    while pending:
        for text, _ in completed(place, pending.pop()):
            if text not in found and text.partition("=")[0].count(".") < 4:
                found.add(text)
                pending.append(text)
    given = [text for text in found if not text.endswith((".", "="))]
    paths = {text.partition("=")[0] for text in given}
    assert {"mixer.window_size", "stages.0.mixer.type", "norm.eps", "head.drop_rate"} <= paths
    wrong = {text: mistake for text in given if (mistake := mistake_in(text))}
    # a field of a part that the spec does not name is right once its type is set
    wrong = {text: mistake for text, mistake in wrong.items() if "should name a" not in mistake}
    assert len(wrong) < len(given) / 2
    # another type leaves the old one's fields behind
    assert [text for text in wrong if "unknown" in wrong[text] and "type=" not in text] == []


def mistake_in(assignment):
    """Why a spec cannot be loaded with this value; empty if it can."""
    document = read("swin_tiny")
    assign(document.data, [parse_assignment(assignment)])
    try:
        validate(document)
    except hierarch.SpecError as error:
        return str(error)
    return ""


def test_paths_are_those_of_the_spec(complete):
    given = ("show", "swin_tiny", "--set")
    assert complete(*given, "mix") == ["mixer.", "mixer="]
    assert "mixer.window_size=" in complete(*given, "mixer.")
    assert "mixer.kernel_size=" not in complete(*given, "mixer.")
    assert "mixer.kernel_size=" in complete("show", "convnext_tiny", "--set", "mixer.")
    assert "mixer.kernel_size=" in complete("show", "no_such_spec", "--set", "mixer.")
    stages = complete(*given, "stages.")
    assert {"stages.0.", "stages.3.", "stages.depth="} <= {*stages}
    assert "stages.4." not in stages
    assert complete(*given, "nothing.") == complete(*given, "name.x") == []


RULES = ["pad", "pad_shift", "clamp", "clamp_first", "clamp_both"]


def test_a_path_with_one_way_on_is_gone_with_its_values(complete):
    given = ("show", "swin_tiny", "--set")
    assert complete(*given, "stages.2.dep") == ["stages.2.depth=", "stages.2.depth=6"]
    assert complete(*given, "stag") == complete(*given, "stages.")
    assert complete(*given, "mixer.small_m") == [
        "mixer.small_map=",
        *(f"mixer.small_map={rule}" for rule in RULES),
    ]


def test_values_are_completed_after_an_equals_sign(complete):
    given = ("show", "swin_tiny", "--set")
    assert complete(*given, "mixer.small_map=") == RULES
    assert complete(*given, "mixer.small_map=cl") == ["clamp", "clamp_first", "clamp_both"]
    assert complete(*given, "mixer=poo") == ["pooling"]
    assert complete(*given, "mlp_bias=") == ["true", "false"]
    assert complete(*given, "stages.2.depth=") == ["6"]
    assert complete("show", "swin_tiny", "--set=mixer.small_map=cl") == [
        "clamp",
        "clamp_first",
        "clamp_both",
    ]


def test_swap_completes_fields_of_the_new_mixer(complete):
    found = complete("swap", "swin_tiny", "--mixer", "depthwise_conv", "--set", "mixer.")
    assert found == ["mixer.type=", "mixer.kernel_size=", "mixer.bias="]


def test_train_completes_fields_of_the_recipe_and_of_the_spec(complete):
    given = ("train", "swin_tiny", "--set")
    assert {*complete(*given, "optimizer.ty")} == {
        *("optimizer.type=", "optimizer.type=adamw", "optimizer.type=muon")
    }
    epochs = load_recipe("small_images").epochs
    assert complete(*given, "epo") == ["epochs=", f"epochs={epochs}"]
    assert complete(*given, "spec.stages.2.dep") == [
        "spec.stages.2.depth=",
        "spec.stages.2.depth=6",
    ]
    assert complete(*given, "sp") == complete(*given, "spec.")
    assert "spec." in complete(*given, "")
    with_recipe = ("train", "swin_tiny", "--recipe", "imagenet_300", "--set", "epochs=")
    assert complete(*with_recipe) == ["300"]


def test_no_code_of_a_plugin_runs(complete, tmp_path, monkeypatch):
    plugin = tmp_path / "plugin.py"
    plugin.write_text("raise SystemExit(9)")
    monkeypatch.setenv("HIERARCH_PLUGINS", str(plugin))
    assert complete("swap", "swin_tiny", "--mixer", "poo") == ["pooling"]
    assert complete("--plugin", str(plugin), "swap", "s", "--mixer", "poo") == ["pooling"]


@pytest.mark.parametrize("text", ["stages: [", "[1]", "mixer: 3\nstages: 4", "\0"])
def test_a_file_that_is_no_spec_is_as_none(complete, text):
    Path("bad.yaml").write_text(text)
    assert "mixer.window_size=" in complete("show", "bad.yaml", "--set", "mixer.")


# the shells


def ask(shell, words, **environment):
    """The completions that a shell of this name is given, by the installed command."""
    environment = {**os.environ, **environment, "_HIERARCH_COMPLETE": f"complete_{shell}"}
    environment["_TYPER_COMPLETE_ARGS"] = words
    done = subprocess.run([HIERARCH], env=environment, capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout


def test_zsh_and_fish_are_given_descriptions():
    words = "hierarch show swin_tiny --set mixer.window_s"
    assert '"mixer.window_size=":"Tokens along a side of a window' in ask("zsh", words)
    fish = ask("fish", words, _TYPER_COMPLETE_FISH_ACTION="get-args").splitlines()
    assert fish[0].startswith("mixer.window_size=\tTokens along a side of a window")
    assert fish[1] == "mixer.window_size=7"
    values = ask("fish", f"{words}ize=", _TYPER_COMPLETE_FISH_ACTION="get-args")
    assert values.split() == ["mixer.window_size=7"]


WORDS = [
    *(["sw"], ["show", "swin_t"], ["swap", "swin_tiny", "--mixer", "w"], ["new", "--family", ""]),
    *(["show", "swin_tiny", "--set", "mixer."], ["train", "swin_tiny", "--set", "spec.mixer.w"]),
]
WATCHED = """
import sys
from hierarch.cli import main
try:
    main()
finally:
    print(*sorted({"torch", "fvcore"} & sys.modules.keys()), file=sys.stderr)
"""


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_a_completion_imports_no_torch(words):
    environment = {
        **os.environ,
        "_HIERARCH_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(["hierarch", *words]),
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv = ['hierarch']\n{WATCHED}"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split()
    assert done.stderr.split() == []


def test_a_process_of_its_own_completes_a_field_of_a_stage():
    words = "hierarch\nshow\nswin_tiny\n--set\nstages.2.d"
    assert ask("bash", "", COMP_WORDS=words, COMP_CWORD="4").split() == [
        *("stages.2.dim=", "stages.2.depth=", "stages.2.downsample.", "stages.2.downsample="),
        *("stages.2.drop_rate=",),
    ]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_a_real_bash():
    """Keys that are pressed, and what stands on the line then."""
    process, terminal = pty.fork()
    if process == 0:
        environment = {
            "PATH": f"{HIERARCH.parent}:{os.environ['PATH']}",
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "PS1": "% ",
            "TERM": "dumb",
            "HOME": "/nonexistent",
        }
        os.execve(shutil.which("bash"), ["bash", "--norc", "--noprofile", "-i"], environment)
    bash = Bash(terminal)
    try:
        bash.reads("% ")
        bash.types('bind "set enable-bracketed-paste off"; bind "set completion-query-items 0"\n')
        bash.types('bind "set page-completions off"; eval "$(hierarch --show-completion bash)"\n')
        bash.types("hierarch sho\t")
        bash.reads("hierarch show ")
        bash.types("convnext_t\t")
        bash.reads("convnext_tiny ")
        bash.types("--set mixer.ker\t")
        bash.reads("--set mixer.kernel_size=")
        bash.types("\t\t")
        bash.reads("7")
        bash.types("\x15hierarch show swin_tiny --set mixer.small_map=cl\t")
        bash.reads("mixer.small_map=clamp")
        bash.types("_b\t")
        bash.reads("_both ")
        bash.types("\x15exit\n")
    finally:
        os.close(terminal)
        os.waitpid(process, 0)


class Bash:
    """An interactive shell behind a pseudoterminal."""

    def __init__(self, terminal):
        self.terminal = terminal
        self.written = ""

    def types(self, keys):
        os.write(self.terminal, keys.encode())

    def reads(self, expected):
        """Waits until this is written, after what was waited for before."""
        end = time.monotonic() + 60
        while expected not in self.written:
            ready, _, _ = select.select([self.terminal], [], [], max(0, end - time.monotonic()))
            assert ready, f"{expected!r} is not in {self.written!r}"
            self.written += os.read(self.terminal, 4096).decode().replace("\a", "")
        self.written = self.written.partition(expected)[2]
