"""torch.export makes one program for every batch and every size."""

from __future__ import annotations

import itertools
import operator

import pytest
import sympy
import torch
import torch.fx.experimental._config as symbolic_shapes
from helpers import assert_same, newer_compiler, noise, perturb, shifted_block, tiny
from torch import nn
from torch.export import Dim

import hierarch
from hierarch.spec.grid import ceil_div

HEAD = {"num_classes": 5}
# one window or many, with padding and without, down to one image of one token
SIZES = [(2, 7, 3), (1, 16, 16), (3, 33, 129), (1, 64, 64), (2, 65, 48), (1, 200, 20), (1, 1, 1)]
STAGES = [{"dim": 8, "depth": 2}, {"dim": 16, "depth": 1}]


def export(model, images, *, least=1):
    """Like torch's ONNX exporter: sizes are symbolic from the start, or an axis
    of one window, or a batch of one image, would be a case apart. What still must hold is checked
    when the program runs, since no solver sees that n < 4n for every number of windows n.
    """
    height, width = (Dim(name, min=least) for name in ("height", "width"))
    dims = {0: Dim("batch", min=1), 2: height, 3: width}
    with symbolic_shapes.patch(backed_size_oblivious=True):
        return torch.export.export(
            model,
            (images,),
            dynamic_shapes=(dims,),
            prefer_deferred_runtime_asserts_over_guards=True,
        ).module()


def refused(program, *, least=1, tokens=1):
    """What a program asks of its sizes and not all of them fulfill, from `least` pixels a side and
    so many tokens on: at each rest of a division by up to 32, and at some large ones."""
    sides = [*range(least, least + 32), 224, 511, 1024, 4097]
    [images] = [node for node in program.graph.nodes if node.op == "placeholder"]
    batch, channels, *grid = images.meta["val"].shape
    sizes = [size.node.expr for size in (batch, *grid)]
    assert channels == 3
    assert all(size.is_symbol for size in sizes)
    assert len({*sizes}) == 3, "no size follows from another"
    asked = [
        n.args[0] for n in program.graph.nodes if n.target is torch.ops.aten._assert_scalar.default
    ]
    found = []
    for condition in {node.meta["val"].node.expr for node in asked if hasattr(node, "meta")}:
        assert {*condition.free_symbols} <= {*sizes}
        holds = sympy.lambdify(sizes, condition, modules=[{"FloorDiv": operator.floordiv}])
        several = [
            (batch, height, width)
            for batch, height, width in itertools.product([1, 2, 5], sides, sides)
            if ceil_div(height, 4) * ceil_div(width, 4) >= tokens
        ]
        if not all(holds(*size) for size in several):
            found.append(str(condition))
    return found


class Halves(nn.Module):
    def forward(self, images):
        return images.unflatten(2, (-1, 2)).mean(3)


@newer_compiler
def test_what_a_program_asks_of_its_sizes_is_seen():
    program = export(Halves(), noise(2, 3, 74, 101))
    assert any("Mod" in condition for condition in refused(program))
    assert refused(export(nn.GELU(), noise(2, 3, 74, 101))) == []


def assert_one_export_serves(model, sizes, *, tokens=1, **options):
    exported = export(model, noise(2, 3, 75, 101), **options)
    assert refused(exported, least=min(min(size[1:]) for size in sizes), tokens=tokens) == []
    with torch.no_grad():
        for batch, height, width in sizes:
            images = noise(batch, 3, height, width)
            assert_same(exported(images), model(images))


@newer_compiler
@pytest.mark.parametrize("mixer", ["window_attention", "window_mlp", "cosine_window_attention"])
def test_one_export_serves_every_size(mixer):
    spec = tiny(mixer, stages=STAGES, head=HEAD)
    assert_one_export_serves(perturb(hierarch.build(spec)), SIZES)


@newer_compiler
@pytest.mark.parametrize("mixer", ["window_attention", "cosine_window_attention"])
def test_one_export_serves_every_size_without_the_mask(mixer):
    assert_one_export_serves(shifted_block(mixer, shift_mask=False), SIZES)


@newer_compiler
def test_one_export_serves_every_size_of_maps():
    assert_one_export_serves(perturb(hierarch.build(tiny(stages=STAGES))), SIZES)


@newer_compiler
@pytest.mark.parametrize(
    ("mixer", "small_map"),
    [
        *(("window_attention", rule) for rule in ("pad_shift", "clamp", "clamp_both")),
        ("window_mlp", "clamp_both"),
        ("cosine_window_attention", "clamp"),
    ],
)
def test_one_export_serves_every_size_under_every_rule(mixer, small_map):
    """How a rule cuts is one code for all mixers; what a smaller window takes of a table is not."""
    # torch's own attention makes a case apart of a window that is clamped to one token
    clamped = mixer != "window_mlp" and small_map.startswith("clamp")
    sizes = SIZES[1:-1] if clamped else SIZES
    assert_one_export_serves(shifted_block(mixer, small_map=small_map), sizes)


@newer_compiler
@pytest.mark.parametrize("mixer", ["global_attention", "pooling", "identity"])
def test_one_export_serves_every_size_with_other_mixers(mixer):
    entry = {"type": mixer, "head_dim": 4} if mixer == "global_attention" else mixer
    spec = tiny(stages=STAGES[:1], layer_scale=0.1) | {"mixer": entry}
    assert_one_export_serves(perturb(hierarch.build(spec)), SIZES)


@newer_compiler
@pytest.mark.parametrize("mixer", ["grid_attention", "neighborhood_attention", "linear_attention"])
def test_one_export_serves_every_size_with_other_attention(mixer):
    spec = tiny(stages=STAGES[:1], layer_scale=0.1) | {"mixer": {"type": mixer, "head_dim": 4}}
    # torch's own reshape makes a case apart of a sequence of one token
    sizes, tokens = (SIZES, 1) if mixer == "grid_attention" else (SIZES[:-1], 2)
    assert_one_export_serves(perturb(hierarch.build(spec)), sizes, tokens=tokens)


BLOCKS = {
    "single_residual": {"block": "single_residual", "norm": "affine", "activation": "squared_relu"},
    "post_norm": {"block": "post_norm", "activation": "star_relu"},
    "parallel": {"block": "parallel", "layer_scale": 0.5},
    "residual_scale": {"block": {"type": "pre_norm", "residual_scale": 0.5}, "mlp_bias": False},
    "batch_norm": {"norm": "batch_norm"},
    "head": {"head": HEAD | {"pool_first": True, "hidden_ratio": 2}},
    "norm_last": {"downsample": {"type": "patch_merging", "norm_last": True}},
}


@newer_compiler
@pytest.mark.parametrize("case", BLOCKS)
def test_one_export_serves_every_size_with_other_blocks(case):
    spec = tiny(stages=STAGES) | {"mixer": "pooling"} | BLOCKS[case]
    assert_one_export_serves(perturb(hierarch.build(spec)), SIZES)


TOKENS_IN_ROWS = {
    "token_mlp": {"mixer": {"type": "token_mlp", "grid": [4, 6]}},
    "token_mlp with a hidden layer": {
        "mixer": {"type": "token_mlp", "grid": 6, "hidden_dim": 5, "activation": "star_relu"}
    },
    "group_norm": {"mixer": "pooling", "norm": "group_norm"},
}


@newer_compiler
@pytest.mark.parametrize("case", TOKENS_IN_ROWS)
def test_one_export_serves_every_size_of_more_than_one_token(case):
    # torch's own bicubic resizing and group norm make a case apart of a grid of one column
    spec = tiny(stages=STAGES[:1]) | TOKENS_IN_ROWS[case]
    assert_one_export_serves(perturb(hierarch.build(spec)), SIZES[1:-1])


CONVOLUTIONS = {
    "depthwise_conv": {"mixer": "depthwise_conv"},
    "separable_conv": {"mixer": "separable_conv"},
    "conv_stem": {"stem": {"type": "conv_stem", "norm": "layer_norm"}},
    "conv_downsample": {
        "stages": STAGES,
        "downsample": {"type": "conv_downsample", "kernel_size": 3, "padding": 1},
    },
    "pool_downsample": {"mixer": "pooling", "downsample": "pool_downsample"},
    "pool_downsample, overlapping": {
        "mixer": "pooling",
        "downsample": {"type": "pool_downsample", "pool": "mean", "kernel_size": 3},
    },
    "conv_downsample of a padded rest": {
        "stages": STAGES,
        "downsample": {"type": "conv_downsample", "pad_rest": True},
    },
    "mbconv": {"stages": STAGES, "mixer": "mbconv", "downsample": "mbconv"},
    "conv_stack": {"stem": {"type": "conv_stack", "strides": [2, 1], "padding": "same"}},
    "convnext": {
        "stem": {"type": "conv_stem", "kernel_size": 4, "padding": 0},
        "stages": STAGES,
        "downsample": {"type": "conv_downsample", "norm": "layer_norm"},
    },
}


@newer_compiler
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_one_export_of_a_convolution_serves_maps_that_its_kernel_fits(case):
    # torch's own convolution refuses a map smaller than its kernel, and export a symbolic one
    spec = tiny(stages=STAGES[:1]) | {"mixer": "identity"} | CONVOLUTIONS[case]
    sizes = [size for size in SIZES if min(size[1:]) >= 16]
    assert_one_export_serves(perturb(hierarch.build(spec)), sizes, least=16)


@newer_compiler
def test_a_resized_position_is_exported():
    position = {"type": "absolute", "grid": 6}
    spec = tiny(stages=STAGES[:1], position_embedding=position) | {"mixer": "identity"}
    # torch's own bicubic resizing makes a case apart of a grid of one token
    assert_one_export_serves(perturb(hierarch.build(spec)), SIZES[:-1], tokens=2)


@pytest.mark.parametrize("mixer", ["window_attention", "window_mlp"])
def test_a_plain_export_serves_sizes_of_several_windows(mixer):
    model = shifted_block(mixer)
    dims = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    exported = torch.export.export(model, (noise(2, 3, 75, 101),), dynamic_shapes=(dims,)).module()
    with torch.no_grad():
        for batch, height, width in [(2, 80, 80), (3, 97, 131), (5, 66, 130)]:
            images = noise(batch, 3, height, width)
            assert_same(exported(images), model(images))
