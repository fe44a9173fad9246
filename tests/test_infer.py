"""Specs inferred from weights, and conversions from one library's layout to another's."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import torch
from helpers import noise, perturb, tiny
from safetensors.torch import load_file, save_file
from test_weights_layouts import CASES, NETWORKS
from typer.testing import CliRunner

import hierarch
from hierarch import SpecError, WeightsError
from hierarch.cli import app
from hierarch.weights.recognize import DERIVED_BUFFERS


def same_function(found, wanted, size=64):
    images = noise(1, 3, size, size)
    with torch.no_grad():
        one, other = found(images), wanted(images)
    if isinstance(one, torch.Tensor):
        one, other = [one], [other]
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("network", "library"), CASES)
def test_the_network_of_a_checkpoint_computes_what_it_did(network, library):
    model = perturb(hierarch.build(NETWORKS[network]))
    state = hierarch.export_weights(model, layout=library)
    found = hierarch.from_checkpoint(state, window_size=4)
    # no map is a single window here: what libraries do with those differs
    same_function(found, model, 128)
    assert not found.training


def test_an_own_file_carries_its_spec(tmp_path):
    spec = tiny(head={"num_classes": 5}, norm="affine", layer_scale=0.1) | {"mixer": "pooling"}
    model = perturb(hierarch.build(spec))
    hierarch.export_weights(model, tmp_path / "own.safetensors")
    inferred = hierarch.infer(tmp_path / "own.safetensors")
    assert inferred.spec == model.spec
    assert inferred.assumed == ()
    same_function(hierarch.from_checkpoint(tmp_path / "own.safetensors"), model)


@pytest.mark.parametrize(
    "spec", ["", "stages: 3", "!!python/object/apply:os.system [ls]", "a: &a [*a]"]
)
def test_a_hostile_spec_in_a_file_is_refused(tmp_path, spec):
    state = hierarch.build(tiny()).state_dict()
    save_file(state, tmp_path / "own.safetensors", metadata={"spec": spec})
    with pytest.raises(SpecError, match="the checkpoint's own spec"):
        hierarch.from_checkpoint(tmp_path / "own.safetensors")


FAMILIES = [
    *("convnext_tiny", "poolformer_s12", "caformer_s18", "vit_tiny_patch16", "resmlp_s12"),
    "inception_next_atto",  # with the running statistics of batch norms, which are no parameters
]


@pytest.mark.parametrize("preset", FAMILIES)
def test_other_families_are_recognized_by_their_presets(preset):
    made = hierarch.load(preset)
    stages = [stage.to_data() | {"depth": 1 + i % 2} for i, stage in enumerate(made.stages)]
    model = perturb(
        hierarch.build(made, stages=stages, head=made.head.to_data() | {"num_classes": 7})
    )
    state = hierarch.export_weights(model, layout="timm")
    inferred = hierarch.infer(state)
    assert [s.depth for s in inferred.spec.stages] == [s["depth"] for s in stages]
    assert inferred.spec.head.num_classes == 7
    assert "what the weights do not determine is taken from" in inferred.assumed[0]
    same_function(hierarch.from_checkpoint(state), model, 224)


def test_two_networks_of_the_same_weights_are_not_guessed():
    state = hierarch.export_weights(hierarch.build("poolformer_v2_s12"), layout="timm")
    message = "identityformer_.* and poolformer_v2_.* have weights of these names and shapes"
    with pytest.raises(WeightsError, match=message):
        hierarch.from_checkpoint(state)


def test_a_window_that_weights_do_not_determine_is_asked_for():
    model = hierarch.build(NETWORKS["swin v2"])
    state = hierarch.export_weights(model, layout="timm")
    with pytest.raises(WeightsError, match="give one by window_size=8"):
        hierarch.infer(state)
    assert hierarch.infer(state, window_size=4).spec.mixer[0].window_size == 4
    # its buffers tell
    state = hierarch.export_weights(model, layout="official")
    assert hierarch.infer(state).spec.mixer[1].shift_size == 2


def test_a_buffer_determines_the_pretrained_window():
    spec = NETWORKS["swin v2"]
    cycle = [entry | {"pretrained_window_size": [3, 7]} for entry in spec["mixer"]]
    model = perturb(hierarch.build(spec | {"mixer": cycle}))
    state = hierarch.export_weights(model, layout="official")
    assert hierarch.infer(state).spec.mixer[0].pretrained_window_size == (3, 7)
    same_function(hierarch.from_checkpoint(state), model)


def test_overrides_are_those_of_build():
    model = perturb(hierarch.build(NETWORKS["swin"]))
    state = hierarch.export_weights(model, layout="timm")
    maps = hierarch.from_checkpoint(state, head=None, out_indices=[1])(noise(1, 3, 64, 64))
    assert [m.shape for m in maps] == [(1, 16, 8, 8)]


def test_a_table_unlike_its_stages_is_not_resized_unsaid():
    state = dict(hierarch.build(NETWORKS["swin"]).state_dict())
    name = "stages.1.blocks.1.mixer.relative_position_bias_table"
    state[name] = torch.zeros(25, 4)
    with pytest.raises(WeightsError, match=f"{name}: 25x4 to 49x4, bicubic was needed"):
        hierarch.from_checkpoint(state)
    assert hierarch.from_checkpoint(state, name="asked for").spec.name == "asked for"


def test_what_is_assumed_and_what_is_resampled_is_logged(caplog):
    state = hierarch.export_weights(hierarch.build(NETWORKS["swin"]), layout="timm")
    hierarch.from_checkpoint(state)
    [assumed] = caplog.messages
    assert assumed.endswith("the image size is the smallest that needs no padding")
    hierarch.from_checkpoint(state, stem={"type": "patch_embed", "in_chans": 1})
    assert "stem.proj.weight: 8x3x4x4 to 8x1x4x4, summed" in caplog.messages[-1]


# conversions


def weights_of(state):
    return {n: t for n, t in state.items() if not n.endswith(("_index", "_mask", "_table"))}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("source", ["official", "timm", "torchvision", "huggingface", "hierarch"])
@pytest.mark.parametrize("target", ["official", "timm", "torchvision", "huggingface", "hierarch"])
def test_every_library_to_every_library(tmp_path, source, target, suffix):
    model = perturb(hierarch.build(NETWORKS["swin"]))
    path, out = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    hierarch.export_weights(model, path, layout=source)
    done = hierarch.convert_weights(path, out, layout=target)
    found = load_file(out) if suffix == ".safetensors" else torch.load(out)
    wanted = hierarch.export_weights(model, layout=target)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    assert (done.source_layout, done.layout, done.tensors) == (source, target, len(wanted))
    assert all(DERIVED_BUFFERS.search(name) for name in done.ignored)


def run(*arguments):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    if result.exception and not isinstance(result.exception, SystemExit):
        return 2, result.stdout, str(result.exception)
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "swin.pth"
    hierarch.export_weights(perturb(hierarch.build(NETWORKS["swin"])), path, layout="official")
    return path


def test_the_command_line(tmp_path, checkpoint):
    out, spec = tmp_path / "out.safetensors", tmp_path / "spec.yaml"
    options = ["--layout", "timm", "--spec-out", spec, "--format", "json"]
    status, stdout, _ = run("convert", checkpoint, out, *options)
    assert status == 0
    assert json.loads(stdout)["tensors"] == len(load_file(out))
    model = hierarch.build(spec)
    hierarch.load_weights(model, out)
    same_function(model.eval(), hierarch.from_checkpoint(checkpoint))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layout", "keras"], "unknown layout 'keras'"),
        (["--from", "torchvision"], "does not fit|lacks|determine|which layout"),
        (["--layout", "mmdetection"], "mmdetection:swin has no name for weights"),
        (["--window-size", "x"], "--window-size 'x': write it as 8"),
        (["--spec", "swin_small"], "is no complete swin_small: missing"),
    ],
)
def test_mistakes_leave_what_was_there(tmp_path, checkpoint, options, message):
    out = tmp_path / "out.pth"
    out.write_text("precious")
    status, stdout, stderr = run("convert", checkpoint, out, *options)
    assert status == 2
    assert stdout == ""
    assert "\n" not in stderr.strip()
    assert re.search(message, stderr), stderr
    assert out.read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.pth", "swin.pth"]


def test_an_incomplete_checkpoint_is_not_converted(tmp_path, checkpoint):
    state = torch.load(checkpoint)
    del state["layers.1.blocks.1.norm2.bias"]
    with pytest.raises(
        WeightsError, match=r"no complete .*: missing 1 \(stages.1.blocks.1.norm2.bias"
    ):
        hierarch.convert_weights(state, tmp_path / "out.pth", layout="timm")
    with pytest.raises(WeightsError, match=r"should end in .safetensors, .pth, .pt or .bin"):
        hierarch.convert_weights(checkpoint, tmp_path / "out.zip", layout="timm")


def rectangular(network):
    cycle = [entry | {"window_size": [2, 4], "shift_size": 0} for entry in network["mixer"]]
    return network | {"mixer": cycle}


UNDETERMINED = {
    "swin v2": NETWORKS["swin v2"],
    "windows of no square": rectangular(NETWORKS["swin"]),
    "two presets": hierarch.load("poolformer_v2_s12").to_data(),
}
"""Networks whose spec timm's weights do not determine, though none is missing."""


@pytest.mark.parametrize("case", UNDETERMINED)
def test_an_undetermined_network_is_converted_whole_or_not_at_all(tmp_path, case):
    model = perturb(hierarch.build(UNDETERMINED[case]))
    state = hierarch.export_weights(model, layout="timm")
    out = tmp_path / "out.pth"
    assert hierarch.convert_weights(state, out, layout="hierarch").spec is None
    found = torch.load(out)
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[name], value) for name, value in model.state_dict().items())
    out.unlink()
    for name in [n for n in state if "norm1" in n or n.endswith("fc2.bias")][-2:]:
        with pytest.raises(WeightsError):
            hierarch.convert_weights(
                {n: t for n, t in state.items() if n != name}, out, layout="hierarch"
            )
        with pytest.raises(WeightsError):
            hierarch.convert_weights(state | {name: torch.ones(3)}, out, layout="hierarch")
    assert not out.exists()


def test_a_layout_that_needs_the_spec_asks_for_it(tmp_path):
    state = hierarch.export_weights(hierarch.build(NETWORKS["swin v2"]), layout="timm")
    with pytest.raises(WeightsError, match="window_size=8; or give the spec"):
        hierarch.convert_weights(state, tmp_path / "out.pth", layout="torchvision")


PEAK = """
import sys
from hierarch.weights.convert import convert_weights

def memory(what):
    [line] = [line for line in open("/proc/self/status") if line.startswith(what)]
    return int(line.split()[1]) * 1024

convert_weights(sys.argv[1], sys.argv[1] + ".small.pth", layout="timm")
before = memory("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
convert_weights(sys.argv[2], sys.argv[3], layout=sys.argv[4])
print(memory("VmHWM") - before)
"""
"""Prints the peak of resident memory above what the libraries take."""


@pytest.mark.parametrize(
    ("source", "target", "suffix"),
    [("torchvision", "huggingface", ".pth"), ("huggingface", "official", ".safetensors")],
)
def test_a_conversion_holds_no_three_copies(tmp_path, checkpoint, source, target, suffix):
    large = tmp_path / "large.pth"
    hierarch.export_weights(hierarch.build("swin_small"), large, layout=source)
    arguments = [str(checkpoint), str(large), str(tmp_path / f"out{suffix}"), target]
    made = subprocess.run(
        [sys.executable, "-c", PEAK, *arguments], capture_output=True, text=True, check=True
    )
    assert 0 < int(made.stdout) <= 2.2 * large.stat().st_size
