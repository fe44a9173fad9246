"""Traces and ONNX files, run by the real onnxruntime, at the size of the example and at others.

The presets are exported by the new exporter in test_export_command."""

from __future__ import annotations

import onnxruntime
import pytest
import torch
from helpers import newer_compiler, noise, perturb, tiny
from torch.export import Dim

import hierarch
from hierarch.spec.registry import names

HEAD = {"head": {"num_classes": 5}}
MAPS = {"out_indices": [0, 1]}
STAGES = [{"dim": 8, "depth": 1}, {"dim": 16, "depth": 1}]
EXAMPLE = (2, 3, 75, 101)
SIZES = [EXAMPLE, (1, 3, 64, 64), (3, 3, 33, 129), (1, 3, 200, 52), (2, 3, 11, 40)]
"""The last one has fewer rows of tokens than a window."""

SHIFTED = ["window_attention", "window_mlp", "cosine_window_attention"]
HEADS = ["linear_attention", "channel_attention"]
MIXERS: dict[str, dict[str, object]] = {
    **{name: {"head_dim": 4, "window_size": 4, "shift_size": 2} for name in SHIFTED},
    "grid_attention": {"head_dim": 4, "window_size": 4},
    **{name: {"head_dim": 4} for name in HEADS},
    "global_attention": {"head_dim": 4, "rope": {}},
    "neighborhood_attention": {"head_dim": 4, "kernel_size": 3, "dilation": 2},
    **{name: {} for name in ("pooling", "depthwise_conv", "separable_conv", "identity")},
    "axial_shift": {},
    "cross_window_attention": {"head_dim": 2, "stripe_width": 3},
    "focal_modulation": {},
    "inception_conv": {},
    "large_kernel_attention": {},
    "mbconv": {},
    "shift": {"n_div": 4},
    "reduced_attention": {"head_dim": 4, "reduction": 2},
}
FIXED_GRID = {
    "token_mlp": {"grid": [19, 26], "hidden_dim": 6},
    "global_filter": {"grid": [19, 26]},
    "random_mixing": {"grid": [19, 26]},
}
"""Mixers whose weights belong to one grid, which are exported for it: that of `EXAMPLE`."""
RULES = ["pad", "pad_shift", "clamp", "clamp_both"]
RULES_OF = {
    "window_attention": ["pad_shift", "clamp"],
    "window_mlp": ["clamp_both"],
    "cosine_window_attention": ["pad"],
}
"""The rules for the new exporter, which takes seconds a block. How windows are cut is one code for
all mixers, so that each rule is exported with one of them, and that of two after a merging.
Others are in test_export, by torch.export, with which this exporter begins."""


def built(mixers, **fields):
    return perturb(hierarch.build(tiny(**fields) | {"mixer": mixers}))


def network(name, rules=RULES, **fields):
    """Of one block, or of a block for each rule for small maps, the last one on a grid of its
    own."""
    entry = {"type": name, **MIXERS[name], **fields}
    if name not in SHIFTED:
        return built(entry, stages=STAGES[:1], **HEAD)
    *others, last = (entry | {"small_map": rule} for rule in rules)
    if not others:
        return built(last, stages=STAGES[:1], **HEAD)
    stages = [STAGES[0] | {"mixer": others, "depth": len(others)}, STAGES[1] | {"mixer": last}]
    return built(entry, stages=stages, **HEAD)


def with_mixers(mixers):
    """Of a block for each mixer: an exporter takes seconds for each network."""
    cycle = [{"type": name, **mixers[name]} for name in sorted(mixers)]
    return built(cycle, stages=[{"dim": 8, "depth": len(cycle)}], **HEAD)


def preset(name):
    """A preset with two blocks in its first stage, and one in each other."""
    spec = hierarch.load(name)
    first, *others = (stage.to_data() for stage in spec.stages)
    depths = [first | {"depth": 2}, *(stage | {"depth": 1} for stage in others)]
    return perturb(hierarch.build(spec.to_data() | {"stages": depths}), std=0.02)


def onnx_runtime(path):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()

    def run(images):
        outputs = session.run(None, {given.name: images.numpy()})
        return tuple(map(torch.from_numpy, outputs))

    return run


@torch.no_grad()
def assert_same_outputs(run, model, sizes):
    for size in sizes:
        images = noise(*size)
        found, wanted = run(images), model(images)
        found, wanted = (out if isinstance(out, tuple) else (out,) for out in (found, wanted))
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


def old_export(model, path, example=EXAMPLE):
    """By torch.jit.trace, for all sizes."""
    axes = {0: "batch", 2: "height", 3: "width"}
    options = {"dynamo": False, "input_names": ["images"], "dynamic_axes": {"images": axes}}
    with torch.no_grad():
        torch.onnx.export(model, (noise(*example),), path, **options)
    return onnx_runtime(path)


def new_export(model, path, dynamic=(0, 2, 3), example=EXAMPLE):
    """By torch.export; `dynamic` are the axes of which the size may change."""
    dims = (dict.fromkeys(dynamic, Dim.DYNAMIC),) if dynamic else None
    options = {"dynamo": True, "dynamic_shapes": dims, "verbose": False}
    with torch.no_grad():
        torch.onnx.export(model, (noise(*example),), path, **options)
    return onnx_runtime(path)


def test_every_mixer_is_here():
    assert sorted(MIXERS | FIXED_GRID) == names("mixer")


def test_the_new_exporter_is_given_every_rule_and_every_mixer_of_windows():
    assert sorted(RULES_OF) == sorted(SHIFTED)
    assert {rule for rules in RULES_OF.values() for rule in rules} == {*RULES}


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("mixer", MIXERS)
def test_a_trace_computes_the_same_at_all_sizes(mixer):
    model = network(mixer)
    with torch.no_grad():
        traced = torch.jit.trace(model, noise(*EXAMPLE))
    assert_same_outputs(traced, model, SIZES)


@pytest.mark.filterwarnings("ignore")  # of the old exporter, which torch deprecates
@pytest.mark.parametrize("mixer", ["window_attention", "cosine_window_attention"])
def test_without_the_mask_a_trace_and_the_old_exporter_serve_all_sizes(tmp_path, mixer):
    model = network(mixer, shift_mask=False)
    with torch.no_grad():
        traced = torch.jit.trace(model, noise(*EXAMPLE))
    assert_same_outputs(traced, model, SIZES)
    assert_same_outputs(old_export(model, tmp_path / "model.onnx"), model, SIZES)


@newer_compiler
@pytest.mark.filterwarnings("ignore")  # of the exporter's own
def test_without_the_mask_the_new_exporter_writes_one_file_for_all_sizes(tmp_path):
    """Of one mixer: both cut alike, and the old exporter writes both."""
    model = network("window_attention", ["pad_shift"], shift_mask=False)
    assert_same_outputs(new_export(model, tmp_path / "model.onnx"), model, SIZES)


@pytest.mark.filterwarnings("ignore")  # of the old exporter, which torch deprecates
@pytest.mark.parametrize("mixer", MIXERS)
def test_the_old_exporter_writes_one_file_for_all_sizes(tmp_path, mixer):
    model = network(mixer)
    assert_same_outputs(old_export(model, tmp_path / "model.onnx"), model, SIZES)


@newer_compiler
@pytest.mark.filterwarnings("ignore")  # of the exporter's own
@pytest.mark.parametrize("mixer", SHIFTED)
def test_the_new_exporter_writes_one_file_for_all_sizes(tmp_path, mixer):
    model = network(mixer, RULES_OF[mixer])
    assert_same_outputs(new_export(model, tmp_path / "model.onnx"), model, SIZES)


@newer_compiler
@pytest.mark.filterwarnings("ignore")  # of the exporter's own
def test_the_new_exporter_writes_one_file_of_all_other_mixers_for_all_sizes(tmp_path):
    model = with_mixers({name: MIXERS[name] for name in MIXERS.keys() - set(SHIFTED)})
    assert_same_outputs(new_export(model, tmp_path / "model.onnx"), model, SIZES)


@newer_compiler
@pytest.mark.filterwarnings("ignore")  # of the exporter's own
@pytest.mark.parametrize("dynamic", [(), (0,)], ids=["static", "batch"])
def test_the_new_exporter_writes_a_file_for_one_size_of_images(tmp_path, dynamic):
    # the batch of others changes in a file for all sizes, too
    some = {name: MIXERS[name] for name in SHIFTED} if dynamic else MIXERS
    model = with_mixers(some | FIXED_GRID)
    run = new_export(model, tmp_path / "model.onnx", dynamic)
    batches = [1, 2, 5] if dynamic else [EXAMPLE[0]]
    assert_same_outputs(run, model, [(batch, *EXAMPLE[1:]) for batch in batches])


@newer_compiler
@pytest.mark.filterwarnings("ignore")  # of the exporters' own
@pytest.mark.parametrize("export", [old_export, new_export])
def test_several_maps_are_several_outputs(tmp_path, export):
    model = built("pooling", stages=STAGES, downsample="conv_downsample", **MAPS)
    run = export(model, tmp_path / "model.onnx")
    assert [len(found.shape) for found in run(noise(*EXAMPLE))] == [4, 4]
    assert_same_outputs(run, model, SIZES)


PRESETS = {
    "swin_tiny": 224,
    "swin_v2_tiny_window8_256": 256,
    "swin_mixer_tiny_d24": 256,
    "convnext_tiny": 224,
    "caformer_s18": 224,
    "convformer_s18": 224,
    "poolformer_s12": 224,
    "vit_tiny_patch16": 224,
}
"""By the size that they are published for."""


@pytest.mark.filterwarnings("ignore")  # of the old exporter, which torch deprecates
@pytest.mark.parametrize("name", PRESETS)
def test_the_old_exporter_writes_presets(tmp_path, name):
    model, native = preset(name), (1, 3, PRESETS[name], PRESETS[name])
    run = old_export(model, tmp_path / "model.onnx", native)
    assert_same_outputs(run, model, [native, (2, 3, 97, 260)])
