"""Every built-in mixer passes the conformance kit, and mixers with a defect do not."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from helpers import noise
from timm.models.metaformer import Pooling as TimmPooling
from torch import nn

from hierarch import MixerSpec, SpecError, register
from hierarch.mixers.pooling import Pooling
from hierarch.nn.cut import Cut, FrontPadded, Shifted, shifted_cut
from hierarch.nn.window_mixer import WindowMixer
from hierarch.spec import registry
from hierarch.testing import CHECKS, ConformanceError, check_mixer, runs_alike_in_a_block

WINDOWS = [
    {"head_dim": 8},
    {"num_heads": 4, "window_size": 4, "shift_size": 2},
    {"num_heads": 1, "window_size": [3, 5], "shift_size": [1, 0]},
    {"head_dim": 16, "window_size": [8, 2], "shift_size": [7, 1]},
]
RULES = ["pad", "pad_shift", "clamp", "clamp_both"]
BUILT_IN = {
    "window_attention": [
        *({**fields, "small_map": rule} for fields in WINDOWS for rule in RULES),
        {"head_dim": 8, "shift_size": 3, "qkv_bias": False},
        {"head_dim": 8, "shift_size": 3, "position_bias": "none"},
        *({"head_dim": 8, "shift_size": 3, "shift_mask": False, "small_map": r} for r in RULES),
        {"head_dim": 8, "shift_size": 3, "shift_mask": False, "position_bias": "none"},
        {"head_dim": 8, "window_size": 1, "position_bias": "none"},
    ],
    "window_mlp": [
        *({**fields, "small_map": rule} for fields, rule in zip(WINDOWS, RULES, strict=True)),
        {"head_dim": 8, "window_size": 1},
    ],
    "grid_attention": [
        *({k: v for k, v in fields.items() if k != "shift_size"} for fields in WINDOWS),
        {"head_dim": 8, "qkv_bias": False},
        {"head_dim": 8, "position_bias": "none"},
    ],
    "neighborhood_attention": [
        {"head_dim": 8},
        {"num_heads": 1, "kernel_size": 3, "qkv_bias": False},
        {"head_dim": 8, "kernel_size": 9, "position_bias": "none"},
        {"head_dim": 8, "kernel_size": 1, "position_bias": "none"},
        {"head_dim": 8, "kernel_size": 3, "dilation": 2},
        {"head_dim": 8, "kernel_size": 5, "dilation": 3, "position_bias": "none"},
    ],
    "linear_attention": [{"head_dim": 8}, {"num_heads": 1, "qkv_bias": False}, {"head_dim": 1}],
    "cosine_window_attention": [
        *({**fields, "small_map": rule} for fields, rule in zip(WINDOWS, RULES, strict=True)),
        {"head_dim": 8, "shift_size": 3, "qkv_bias": False},
        {"head_dim": 8, "shift_size": [0, 3], "shift_mask": False},
        {"head_dim": 8, "window_size": 6, "pretrained_window_size": [12, 1]},
        {"head_dim": 8, "window_size": [1, 4]},
    ],
    "global_attention": [
        {"head_dim": 8},
        {"num_heads": 1, "qkv_bias": False},
        {"head_dim": 8, "proj_bias": False},
        {"head_dim": 8, "key_bias": False, "rope": {"temperature": 30.0}},
    ],
    "depthwise_conv": [{}, {"kernel_size": 3, "bias": False}, {"kernel_size": 1}],
    "separable_conv": [
        {},
        {"kernel_size": 3, "expand_ratio": 0.5, "bias": True},
        {"kernel_size": 1, "expand_ratio": 1.1, "activation": "gelu"},
    ],
    "token_mlp": [
        {"grid": [5, 9]},
        {"grid": 1},
        {"grid": [9, 11], "hidden_dim": 6},
        {"grid": 4, "hidden_dim": 7, "activation": "star_relu"},
    ],
    "axial_shift": [{}, {"kernel_size": 1}, {"kernel_size": 15}],
    "channel_attention": [
        {"head_dim": 8},
        {"num_heads": 1, "qkv_bias": False, "scale": "tokens"},
        {"head_dim": 4, "scale": "cosine"},
    ],
    "cross_window_attention": [
        {"head_dim": 8},
        {"num_heads": 2, "stripe_width": 2, "qkv_bias": False},
        {"num_heads": 1, "stripe_width": 3},
        {"head_dim": 8, "stripe_width": None},
    ],
    "focal_modulation": [
        {},
        {"focal_window": 5, "focal_level": 1, "normalize_modulator": True},
        {"focal_window": 1, "focal_level": 4, "norm": {"type": "layer_norm", "eps": 1e-6}},
        {"norm": "group_norm"},
    ],
    "global_filter": [{"grid": [5, 9]}, {"grid": 1}, {"grid": [4, 11]}],
    "inception_conv": [
        {},
        {"square_kernel_size": 5, "band_kernel_size": 9, "branch_ratio": 0.25},
        {"square_kernel_size": 1, "band_kernel_size": 1, "branch_ratio": 0.33},
    ],
    "mbconv": [
        {},
        {"kernel_size": 5, "expand_ratio": 0.5, "squeeze_ratio": None, "bias": False},
        {"norm": "layer_norm", "activation": {"type": "gelu", "approximate": "tanh"}},
    ],
    "large_kernel_attention": [{}, {"kernel_size": 3, "dilation": 1}],
    "random_mixing": [{"grid": [5, 9]}, {"grid": 1}, {"grid": [9, 11]}],
    "reduced_attention": [
        {"head_dim": 8},
        {"head_dim": 8, "reduction": 2, "qkv_bias": False},
        {"num_heads": 1, "pool_size": 3},
    ],
    "shift": [{}, {"n_div": 4}, {"n_div": 5}],
    "pooling": [{}, {"kernel_size": 5}],
    "identity": [{}],
}


def test_every_built_in_mixer_is_tested():
    assert registry._builtin("mixer") == sorted(BUILT_IN)


@pytest.mark.no_cover  # those with a defect go through the same checks
@pytest.mark.parametrize(
    "mixer",
    [{"type": name, **fields} for name, cases in BUILT_IN.items() for fields in cases],
    ids=lambda mixer: " ".join(map(str, mixer.values())),
)
def test_built_in_mixers_conform(mixer):
    check_mixer(mixer)


@pytest.mark.parametrize("dim", [8, 24, 96])
def test_conformance_at_other_widths(dim):
    check_mixer({"type": "window_attention", "head_dim": 8, "shift_size": 3}, dim=dim)
    check_mixer("pooling", dim=dim)


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
@pytest.mark.parametrize("grid", [(1, 1), (2, 9), (14, 14)], ids=str)
def test_pooling_is_poolformers(kernel_size, grid):
    x = noise(2, *grid, 8)
    expected = TimmPooling(kernel_size)(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(Pooling(kernel_size)(x), expected)


# twins: a mixer that keeps the contract, and for every check one that breaks only that


class Scale(nn.Module):
    """A correct mixer: each channel times a learned number."""

    def __init__(self, dim):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return x * self.gamma


class DropsARow(Scale):
    def forward(self, x):
        return super().forward(x)[:, :-1] if x.shape[1] > 1 else super().forward(x)


class DropsARowInTraining(Scale):
    def forward(self, x):
        x = super().forward(x)
        return x[:, 1:] if self.training else x


class Projects(Scale):
    def __init__(self, dim):
        super().__init__(dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        return self.proj(super().forward(x))


class HasAnIdleParameter(Scale):
    def __init__(self, dim):
        super().__init__(dim)
        self.idle = nn.Parameter(torch.ones(dim))


class HasAParameterTimesZero(HasAnIdleParameter):
    def forward(self, x):
        return super().forward(x) + 0 * self.idle


class SeesTheOtherImages(Scale):
    def forward(self, x):
        return super().forward(x - x.mean(0, keepdim=True))


class IsNeverTheSame(Scale):
    def forward(self, x):
        return super().forward(nn.functional.dropout(x, 0.1, training=True))


class ComputesInFloat32(Scale):
    def forward(self, x):
        return super().forward(x).float()


class LosesDigits(Scale):
    def forward(self, x):
        return super().forward((x + 1e4) - 1e4)


class SplitsTheWidth(Scale):
    def forward(self, x):
        return super().forward(x).view(*x.shape[:2], -1, 2, x.shape[3])[:, :, :, 0]


class RunsInFloat64Alone(Scale):
    def forward(self, x):
        assert x.dtype != torch.bfloat16
        return super().forward(x)


class UsesAnOperatorWithoutARule(Scale):
    def forward(self, x):
        return super().forward(x).logcumsumexp(1)


class KeepsItsWeightToItself(Scale):
    def __init__(self, dim):
        super().__init__(dim)
        self.register_buffer("hidden", torch.randn(dim), persistent=False)

    def forward(self, x):
        return super().forward(x) * self.hidden


class AddsTheMean(WindowMixer):
    """A correct windowed mixer: adds its window's mean to each token."""

    def __init__(self, dim):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))

    def cut(self, grid):
        return shifted_cut(grid, (4, 4), (2, 2))

    def mix(self, windows, cut, runs):
        return (windows + windows.mean(1, keepdim=True)) * self.scale


class MixesTwoWindowsInFloat32(AddsTheMean):
    def mix(self, windows, cut, runs):
        mixed = super().mix(windows, cut, runs)
        return mixed + windows.mean(0) if windows.dtype is torch.float32 else mixed


class MixesTwoWindows(AddsTheMean):
    def mix(self, windows, cut, runs):
        return super().mix(windows, cut, runs) + windows.mean(0)


class DependsOnTheTile(AddsTheMean):
    def mix(self, windows, cut, runs):
        return super().mix(windows, cut, runs) * windows.shape[0]


class IsWrongForOneWindow(AddsTheMean):
    def mix(self, windows, cut, runs):
        return super().mix(windows, cut, runs) * (1 if len(windows) > 1 else 2)


class LastTwoShareASlot(Shifted):
    def places(self, device):
        windows, places = super().places(device)
        same = torch.arange(self.size, device=device).clamp(max=max(0, self.size - 2))
        return windows[same], places[same]


class LosesAToken(AddsTheMean):
    def cut(self, grid):
        return Cut(tuple(LastTwoShareASlot(size, 4) for size in grid))


class StandsOutside(FrontPadded):
    def places(self, device):
        windows, places = super().places(device)
        return windows + 1, places


class LeavesTheWindows(AddsTheMean):
    def cut(self, grid):
        return Cut(tuple(StandsOutside(size, 4) for size in grid))

    def forward(self, x):
        return x * self.scale


class CountsAWindowLess(Cut):
    def runs(self, batch):
        return super().runs(batch)[:-1]


class ForgetsAKind(AddsTheMean):
    def cut(self, grid):
        return CountsAWindowLess(super().cut(grid).axes)


WINDOWED = [AddsTheMean, *AddsTheMean.__subclasses__()]
PLAIN = [Scale, *Scale.__subclasses__(), HasAParameterTimesZero]
MODULES = {cls.__name__: cls for cls in PLAIN + WINDOWED}


class TwinSpec(MixerSpec):
    """A mixer with the module that a field names, and the claims of its other fields."""

    type: Literal["twin"] = "twin"
    module: str = "Scale"
    per_token: int | float = 0
    padding: int | float = 0
    held: int | float | None = None
    reads_back: bool = True

    def macs(self, *, dim, grid):
        return self.per_token * grid[0] * grid[1]

    def padding_macs(self, *, dim, grid):
        return self.padding

    def params(self, *, dim):
        return super().params(dim=dim) if self.held is None else self.held

    def build(self, dim):
        return MODULES[self.module](dim)

    def to_data(self):
        return super().to_data() if self.reads_back else {"type": self.type}


@pytest.fixture
def twin():
    register(TwinSpec)
    yield "twin"
    del registry._registered["mixer"]["twin"]


def test_the_mixer_that_the_twins_break_conforms(twin):
    check_mixer(twin)
    check_mixer({"type": twin, "module": "Projects", "per_token": 32 * 32})
    check_mixer({"type": twin, "module": "AddsTheMean"})


BREAKS = {
    "shape": ({"module": "DropsARow"}, "keeps_shape", "turns .* into"),
    "shape in training": ({"module": "DropsARowInTraining"}, "keeps_shape", "turns .* into"),
    "a crash on odd grids": (
        {"module": "SplitsTheWidth"},
        "keeps_shape",
        "keeps_shape ends in RuntimeError: shape",
    ),
    "an operator that no rule counts": (
        {"module": "UsesAnOperatorWithoutARule"},
        "claim_equals_count",
        "claim_equals_count ends in CountError: .*logcumsumexp",
    ),
    "no claim": ({"module": "Projects"}, "claim_equals_count", r"claims 0 .* fvcore counts 1024"),
    "too small a claim": (
        {"module": "Projects", "per_token": 1023},
        "claim_equals_count",
        "claims 1023 MACs .* and fvcore counts 1024",
    ),
    "a cost that is not there": ({"per_token": 1}, "claim_equals_count", "fvcore counts 0"),
    "a claim in floats": (
        {"module": "Projects", "per_token": 1024.0},
        "claim_equals_count",
        "claims 1024.0 MACs",
    ),
    "parameters that are not there": ({"held": 33}, "claim_equals_count", "its module has 32"),
    "parameters in floats": ({"held": 32.0}, "claim_equals_count", "claims 32.0 parameters"),
    "padding beyond its cost": ({"padding": 1}, "claim_equals_count", "calls 1 of its 0 MACs"),
    "padding below zero": ({"padding": -1}, "claim_equals_count", "calls -1 of its 0 MACs"),
    "padding in floats": ({"padding": 0.0}, "claim_equals_count", "calls 0.0 of its 0 MACs"),
    "idle parameter": (
        {"module": "HasAnIdleParameter"},
        "every_parameter_learns",
        "its parameter idle gets no gradient",
    ),
    "parameter times zero": (
        {"module": "HasAParameterTimesZero"},
        "every_parameter_learns",
        "its parameter idle gets no gradient",
    ),
    "images mix": ({"module": "SeesTheOtherImages"}, "images_do_not_mix", "image 1 of a batch"),
    "chance": ({"module": "IsNeverTheSame"}, "is_deterministic", "two outputs for one input"),
    "type": ({"module": "ComputesInFloat32"}, "runs_in_other_types", "turns float64 into"),
    "a crash in bfloat16": (
        {"module": "RunsInFloat64Alone"},
        "runs_in_other_types",
        "runs_in_other_types ends in AssertionError",
    ),
    "digits": ({"module": "LosesDigits"}, "runs_in_other_types", "something else in bfloat16"),
    "yaml": ({"padding": 0, "per_token": 0, "reads_back": False}, "spec_survives_yaml", "YAML"),
    "state dict": (
        {"module": "KeepsItsWeightToItself"},
        "weights_survive_a_state_dict",
        "two modules with one state dict differ",
    ),
    "a token lost": (
        {"module": "LosesAToken"},
        "cut_holds_each_token_once",
        "puts two tokens in one slot",
    ),
    "a slot outside": (
        {"module": "LeavesTheWindows"},
        "cut_holds_each_token_once",
        "a slot outside all windows",
    ),
    "a kind forgotten": (
        {"module": "ForgetsAKind"},
        "cut_holds_each_token_once",
        r"has \d+ windows, its runs \[",
    ),
    "two windows mixed": (
        {"module": "MixesTwoWindows"},
        "windows_are_independent",
        "otherwise where other windows are beside it",
    ),
    "a result by tile": (
        {"module": "DependsOnTheTile"},
        "windows_are_independent",
        "otherwise where other windows are beside it",
    ),
    "two windows mixed in one type": (
        {"module": "MixesTwoWindowsInFloat32"},
        "runs_alike_in_a_block",
        "something else in a block: ",
    ),
}


NOTICED_BY_OTHERS = {
    *("keeps_shape", "images_do_not_mix", "is_deterministic", "runs_in_other_types"),
    *("cut_holds_each_token_once", "windows_are_independent"),
}
"""Checks whose defects fail other checks, too."""


@pytest.mark.parametrize(("fields", "check", "message"), BREAKS.values(), ids=BREAKS)
def test_a_mixer_with_a_defect_fails(twin, monkeypatch, fields, check, message):
    with pytest.raises(ConformanceError, match=f"^twin: .*{message}"):
        check_mixer({"type": twin, **fields})
    others = tuple(one for one in CHECKS if one.__name__ != check)
    assert len(others) == len(CHECKS) - 1
    if check not in NOTICED_BY_OTHERS:
        monkeypatch.setattr("hierarch.testing.CHECKS", others)
        check_mixer({"type": twin, **fields})


def test_a_block_is_run_with_tiles_of_several_sizes(twin, monkeypatch):
    """By a mixer that is wrong for a few windows alone, as in small tiles."""
    monkeypatch.setattr("hierarch.testing.CHECKS", (runs_alike_in_a_block,))
    with pytest.raises(ConformanceError, match="something else in a block: tile size 1"):
        check_mixer({"type": twin, "module": "IsWrongForOneWindow"})


def test_every_check_has_a_defect_that_it_detects():
    assert {check for _, check, _ in BREAKS.values()} == {check.__name__ for check in CHECKS}


def test_an_unknown_mixer_is_a_spec_error():
    with pytest.raises(SpecError, match="unknown mixer 'twin'"):
        check_mixer("twin")
    with pytest.raises(SpecError, match="dim=30 is not divisible by head_dim=8"):
        check_mixer({"type": "window_mlp", "head_dim": 8}, dim=30)
