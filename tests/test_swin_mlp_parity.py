"""Swin-MLP compared with the published code: recorded outputs, and a reimplemented block."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import noise, perturb
from safetensors import safe_open
from safetensors.torch import save_file

import hierarch
from hierarch.mixers.window_mlp import WindowMlp

GOLDEN = Path(__file__).parent / "data" / "swin_mlp_window4_64px.safetensors"


def swin_mlp_spec(*, dims, depths, heads, window, num_classes=10):
    mixers = [
        [
            {"type": "window_mlp", "num_heads": n, "window_size": window, "shift_size": shift}
            | {"small_map": "clamp_both"}
            for shift in (0, window // 2)
        ]
        for n in heads
    ]
    stages = [
        {"dim": dim, "depth": depth, "mixer": mixer}
        for dim, depth, mixer in zip(dims, depths, mixers, strict=True)
    ]
    return {"name": "swin_mlp", "stages": stages, "head": {"num_classes": num_classes}}


# the recorded outputs


@pytest.fixture(scope="module")
def golden():
    with safe_open(GOLDEN, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # no mapping: it has keys alone


@pytest.fixture(scope="module")
def published_weights(golden):
    prefix = "params."
    return {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}


@pytest.fixture
def model():
    spec = swin_mlp_spec(dims=(16, 32, 64), depths=(2, 2, 2), heads=(2, 4, 8), window=4)
    return hierarch.build(spec).eval()


def test_golden_logits_from_a_state_dict(model, golden, published_weights):
    report = hierarch.load_weights(model, published_weights)
    assert report.layout == "official"
    assert len(report.loaded) == len(published_weights)
    assert not report.initialized
    assert not report.ignored
    with torch.no_grad():
        logits = model(golden["input"])
    torch.testing.assert_close(logits, golden["logits"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
def test_golden_logits_from_a_file(model, golden, published_weights, tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(published_weights, path)
    else:
        torch.save({"model": published_weights, "epoch": 300}, path)
    assert hierarch.load_weights(model, path).layout == "official"
    with torch.no_grad():
        logits = model(golden["input"])
    torch.testing.assert_close(logits, golden["logits"], atol=1e-5, rtol=0)


def test_golden_output_of_every_stage(model, golden, published_weights):
    hierarch.load_weights(model, published_weights)
    with torch.no_grad():
        maps = model.forward_intermediates(
            golden["input"], output_fmt="NHWC", intermediates_only=True
        )
        # a published layer closes with the merging that opens our next stage
        merges = [stage.downsample for stage in model.stages[1:]]
        layers = [merge(x) for merge, x in zip(merges, maps, strict=False)] + [maps[-1]]
    for index, layer in enumerate(layers):
        expected = golden[f"after_layer.stage{index}"]
        torch.testing.assert_close(layer.flatten(1, 2), expected, atol=1e-5, rtol=0)


def test_golden_fails_for_a_network_that_does_not_shift(golden, published_weights):
    spec = hierarch.swap(
        swin_mlp_spec(dims=(16, 32, 64), depths=(2, 2, 2), heads=(2, 4, 8), window=4),
        {"type": "window_mlp", "shift_size": 0},
    )
    unshifted = hierarch.build(spec).eval()
    hierarch.load_weights(unshifted, published_weights)
    with torch.no_grad():
        difference = (unshifted(golden["input"]) - golden["logits"]).abs().max()
    assert difference > 1e-3


# the published block, written out: NHWC tokens after norm1, and what is added to the shortcut


def reference_mixer(x, weight, bias, *, heads, window, shift):
    batch, height, width, channels = x.shape
    assert height % window == 0
    assert width % window == 0
    before, after = (window - shift, shift) if shift else (0, 0)
    x = F.pad(x, (0, 0, before, after, before, after))
    _, padded_height, padded_width, _ = x.shape
    rows, columns = padded_height // window, padded_width // window
    x = x.view(batch, rows, window, columns, window, channels).permute(0, 1, 3, 2, 4, 5)
    x = x.reshape(-1, window * window, heads, channels // heads).transpose(1, 2)
    x = x.reshape(-1, heads * window * window, channels // heads)
    x = F.conv1d(x, weight, bias, groups=heads)
    x = x.view(-1, heads, window * window, channels // heads).transpose(1, 2)
    x = x.reshape(batch, rows, columns, window, window, channels).permute(0, 1, 3, 2, 4, 5)
    x = x.reshape(batch, padded_height, padded_width, channels)
    return x[:, before : before + height, before : before + width]


def reference_network(params, images, *, depths, heads, window):
    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], params[f"{name}.weight"], params[f"{name}.bias"])

    def linear(x, name):
        return F.linear(x, params[f"{name}.weight"], params.get(f"{name}.bias"))

    proj = params["patch_embed.proj.weight"], params["patch_embed.proj.bias"]
    x = F.conv2d(images, *proj, stride=4).permute(0, 2, 3, 1)
    x = norm(x, "patch_embed.norm")
    for i, (depth, n) in enumerate(zip(depths, heads, strict=True)):
        for j in range(depth):
            name = f"layers.{i}.blocks.{j}"
            shift = 0 if j % 2 == 0 or min(x.shape[1:3]) <= window else window // 2
            mixing = params[f"{name}.spatial_mlp.weight"], params[f"{name}.spatial_mlp.bias"]
            normed = norm(x, f"{name}.norm1")
            x = x + reference_mixer(normed, *mixing, heads=n, window=window, shift=shift)
            hidden = F.gelu(linear(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1"))
            x = x + linear(hidden, f"{name}.mlp.fc2")
        if i < len(depths) - 1:
            quarters = x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]
            merged = norm(torch.cat(quarters, -1), f"layers.{i}.downsample.norm")
            x = linear(merged, f"layers.{i}.downsample.reduction")
    return linear(norm(x, "norm").mean((1, 2)), "head")


def published_params(*, dims, depths, heads, window, num_classes):
    seeds = itertools.count()

    def randn(*shape):
        return noise(*shape, dtype=torch.float64, seed=next(seeds)) * 0.1

    def affine(name, out, *inner):
        return {f"{name}.weight": randn(out, *inner), f"{name}.bias": randn(out)}

    params = affine("patch_embed.proj", dims[0], 3, 4, 4) | affine("patch_embed.norm", dims[0])
    for i, (dim, depth, n) in enumerate(zip(dims, depths, heads, strict=True)):
        for j in range(depth):
            name = f"layers.{i}.blocks.{j}"
            params |= affine(f"{name}.norm1", dim) | affine(f"{name}.norm2", dim)
            params |= affine(f"{name}.spatial_mlp", n * window**2, window**2, 1)
            params |= affine(f"{name}.mlp.fc1", 4 * dim, dim)
            params |= affine(f"{name}.mlp.fc2", dim, 4 * dim)
        if i < len(dims) - 1:
            params |= affine(f"layers.{i}.downsample.norm", 4 * dim)
            params[f"layers.{i}.downsample.reduction.weight"] = randn(dims[i + 1], 4 * dim)
    return params | affine("norm", dims[-1]) | affine("head", num_classes, dims[-1])


@pytest.mark.parametrize("window", [1, 2, 5, 7, 8])
@pytest.mark.parametrize("small_map", ["pad", "pad_shift", "clamp", "clamp_both"])
def test_mixer_is_the_published_grouped_convolution(window, small_map):
    x = noise(2, 2 * window, 3 * window, 12, dtype=torch.float64)
    for shift in {0, 1, window // 2, window - 1} - {window}:
        mixer = perturb(
            WindowMlp(
                num_heads=3,
                window_size=(window, window),
                shift_size=(shift, shift),
                small_map=small_map,
            ).double()
        )
        with torch.no_grad():
            expected = reference_mixer(
                x, mixer.weight, mixer.bias, heads=3, window=window, shift=shift
            )
            torch.testing.assert_close(mixer(x), expected, atol=1e-10, rtol=0)


NETWORKS = {
    "odd depths": ((1, 3), (64, 64), 4),
    "depths 3 and 1, the last map one window high": ((3, 1), (40, 80), 5),
    "odd shift, twice as wide as high": ((2, 3), (48, 96), 3),
    "three stages, window 8": ((1, 2, 2), (128, 256), 8),
    "window 7, the last map is one window": ((1, 1, 1, 3), (224, 224), 7),
    "window 2": ((2, 2, 2), (32, 96), 2),
}


@pytest.mark.parametrize(("depths", "size", "window"), NETWORKS.values(), ids=NETWORKS)
def test_network_is_the_published_one(depths, size, window):
    dims = [8 * 2**i for i in range(len(depths))]
    heads = [2**i for i in range(len(depths))]
    shape = {"dims": dims, "depths": depths, "heads": heads, "window": window, "num_classes": 6}
    params = published_params(**shape)
    model = hierarch.build(swin_mlp_spec(**shape)).double().eval()
    assert hierarch.load_weights(model, params).layout == "official"
    images = noise(2, 3, *size, dtype=torch.float64)
    expected = reference_network(params, images, depths=depths, heads=heads, window=window)
    with torch.no_grad():
        torch.testing.assert_close(model(images), expected, atol=1e-10, rtol=0)
