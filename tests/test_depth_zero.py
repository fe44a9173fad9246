"""A stage of depth 0: only a downsampling, in all that a network can be asked for."""

from __future__ import annotations

import pytest
import torch
from helpers import noise

import hierarch
from hierarch import engine
from hierarch.complexity.witnesses import measure

pytestmark = pytest.mark.usefixtures("one_thread")

TEXT = """\
name: ends_in_merging
input_size: 64
mixer: {type: window_attention, head_dim: 4, window_size: 4, shift_size: 2}
stages:
  - {dim: 8, depth: 2}
  - {dim: 16, depth: 0}
  - {dim: 24, depth: 1}
  - {dim: 32, depth: 0}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize("head", [None, {"num_classes": 3}])
def test_it_runs_as_defined_and_its_claim_is_the_count(head):
    model = hierarch.build(hierarch.loads(TEXT), head=head).eval()
    images = noise(2, 3, 75, 101)
    with torch.inference_mode():
        found = model(images)
        engine.explain(model, images)
        with engine.disabled():
            wanted = model(images)
    for one, other in zip(*(x if head is None else (x,) for x in (found, wanted)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    report = measure(model.spec, [(64, 64), (75, 101)])
    assert all(size.macs == size.claimed_macs for size in report.sizes)
    assert report.verdict == "linear"


@pytest.mark.parametrize("per", ["block", "stage"])
def test_it_trains(per):
    model = hierarch.build(hierarch.loads(TEXT), head={"num_classes": 3}, drop_path_rate=0.1)
    model.set_grad_checkpointing(per=per)
    model.train()(noise(2, 3, 64, 64)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    "command",
    [
        "flops {}",
        "show {}",
        "compare {} swin_tiny",
        "swap {} --mixer pooling",
        "swap {} --mixer window_mlp --match macs --move depths",
        "plot {} architecture -o {}.svg",
        "plot {} share -o {}.svg",
        "plot {} features -o {}.svg",
        "plot {} windows -o {}.svg",
        "plot {} shift -o {}.svg",
        "report {} -o {}.html",
    ],
)
def test_every_command_takes_it(run, file, command):
    status, _, err = run(*command.replace("{}", str(file)).split())
    assert status == 0, err


@pytest.mark.parametrize("kind", ["windows", "shift", "bias", "attention"])
def test_a_picture_of_its_blocks_is_refused(run, file, tmp_path, kind):
    status, _, err = run("plot", file, kind, "--stage", "1", "-o", tmp_path / "x.svg")
    assert status == 2
    assert "none" in err or "no mixer" in err
    assert len(err.splitlines()) < 5


def test_the_first_stage_needs_blocks_or_a_downsampling():
    with pytest.raises(hierarch.SpecError, match="at least 1 without a downsampling, got 0"):
        hierarch.load({"mixer": "pooling", "stages": [{"dim": 8, "depth": 0}]})
    stages = [{"dim": 8, "depth": 0, "downsample": "patch_merging"}]
    assert hierarch.load({"mixer": "pooling", "stages": stages}).strides() == ((8, 8),)
