"""Plots that look into a network on a picture: their data, compared with arithmetic by hand, and
with what timm, scikit-learn and plain torch compute from the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import noise, perturb, tiny
from PIL import Image
from sklearn.decomposition import PCA
from timm.models.swin_transformer import SwinTransformer, window_partition
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torchvision.transforms.functional import normalize, to_tensor

import hierarch
from hierarch import plots
from hierarch.errors import DataError, PlotError, WeightsError
from hierarch.nn.attended import by_offset
from hierarch.plots.attended import attended
from hierarch.plots.kinds.attention import _outline
from hierarch.plots.kinds.bias import tables
from hierarch.plots.kinds.features import colors, components
from hierarch.plots.kinds.receptive import fields, random_images
from hierarch.plots.networks import picture, subject
from hierarch.plots.scene import scene
from hierarch.plots.style import caption_of

EXACT = {"atol": 1e-10, "rtol": 0}


def looked_into(spec, **options):
    return perturb(subject(spec, **options).model)


def tiny_of(mixer):
    return tiny() | {"mixer": mixer}


def images(*size, count=1):
    return noise(count, 3, *size, dtype=torch.float64)


# receptive: the arithmetic of convolutions


def convolutions(kernel, *, patch=4, depths=(2, 1), **fields):
    stages = [{"dim": 8 * 2**i, "depth": depth} for i, depth in enumerate(depths)]
    mixer = {"type": "depthwise_conv", "kernel_size": kernel}
    stem = {"type": "patch_embed", "patch_size": patch}
    return {"name": "conv", "stem": stem, "mixer": mixer, "stages": stages, **fields}


# kernel 3, twice: 5 tokens of 4 pixels. Merging makes 2 tokens of one; kernel 3: 3 of those, 6
# tokens, and the first stage's two convolutions add 4
# kernel 5, once: 5 tokens of 2 pixels. Then twice: 9 tokens, which are 18, and 4 more: 22
# three stages of kernel 3: 3 tokens; 3 -> 6 + 2 = 8; 3 -> 6 + 2 = 8 -> 16 + 2 = 18, of 4 pixels
@pytest.mark.parametrize(
    ("spec", "size", "extents"),
    [
        (convolutions(3), 96, [20, 40]),
        (convolutions(5, patch=2, depths=(1, 2)), 64, [10, 44]),
        (convolutions(3, depths=(1, 1, 1)), 192, [12, 32, 72]),
        (convolutions(1), 64, [4, 8]),
    ],
)
def test_a_field_of_convolutions_is_as_large_as_their_arithmetic(spec, size, extents):
    found = fields(looked_into(spec), images(size, size))
    assert [field.extent for field in found] == [(extent, extent) for extent in extents]
    assert all(
        field.reached.sum() == extent**2 for field, extent in zip(found, extents, strict=True)
    )


def test_a_field_lies_around_its_token():
    (first, second) = fields(looked_into(convolutions(3)), images(96, 64))
    assert (first.token, first.box) == ((12, 8), (4 * 10, 4 * 6, 4 * 15, 4 * 11))
    # token 6, 4 of 12 x 8: the tokens 5 to 7 are 10 to 15 below, and 8 to 17 with two more each
    assert (second.token, second.box) == ((6, 4), (4 * 8, 4 * 4, 4 * 18, 4 * 14))


def test_a_field_ends_at_the_border_of_the_image():
    (field,) = fields(looked_into(convolutions(7, depths=(4,))), images(64, 128))
    # 25 tokens of 4 pixels, 12 on each side; the image has 16 x 32 tokens
    assert field.box == (0, 4 * 4, 64, 4 * 29)


def test_a_weak_dependence_is_one():
    """ConvNeXt's branches begin at a millionth: a corner depends on six of them."""
    spec = convolutions(3, depths=(6,), layer_scale=1e-6)
    (field,) = fields(subject(spec).model, images(64, 64))
    assert field.extent == (4 * 13, 4 * 13)
    assert field.reached.sum() == (4 * 13) ** 2
    assert field.strength[:16].max() < 1e-30 * field.strength.max()


def test_a_field_of_overlapping_patches_and_downsampling():
    spec = convolutions(1, depths=(1, 1)) | {
        "stem": {"type": "conv_stem", "kernel_size": 7, "stride_size": 4, "padding": 2},
        "downsample": {"type": "conv_downsample", "kernel_size": 3, "stride_size": 2, "padding": 1},
    }
    first, second = fields(looked_into(spec), images(64, 64))
    # a token t: 7 pixels from 4t - 2; one of the next stage: 3 tokens from 2t - 1, 2 * 4 + 7 pixels
    assert (first.token, first.box) == ((8, 8), (30, 30, 37, 37))
    assert (second.token, second.box) == ((4, 4), (26, 26, 41, 41))


def test_a_field_of_windows_is_one_window():
    windows = {"type": "window_attention", "head_dim": 4, "window_size": 4}
    model = looked_into(tiny_of(windows))
    (first, second, _) = fields(model, images(96, 96))
    # 24 tokens, 6 windows a side; the middle token, 12, opens the window of tokens 12 to 15
    assert first.box == (48, 48, 64, 64)
    assert first.reached.sum() == 16 * 16
    # of the next stage, token 6 of 12 is in the window of tokens 4 to 7: 8 to 15 below, two windows
    assert second.box == (32, 32, 64, 64)


def test_a_shift_widens_the_field_and_global_attention_takes_all():
    first, *_ = fields(looked_into(tiny()), images(96, 96))
    # the shifted window of token 12 has the tokens 10 to 13, in windows of tokens 8 to 15
    assert first.box == (32, 32, 64, 64)
    spec = tiny_of({"type": "global_attention", "head_dim": 4})
    assert all(field.reached.all() for field in fields(looked_into(spec), images(32, 32)))


@pytest.mark.parametrize(("mask", "first"), [(True, 2), (False, 0)])
def test_masked_pairs_are_not_reached(mask, first):
    """The last shifted window holds both ends of the image, which the mask keeps apart."""
    regular = {"type": "window_attention", "head_dim": 4, "window_size": 4}
    shifted = regular | {"shift_size": 2, "shift_mask": mask}
    spec = tiny_of([shifted, regular, shifted]) | {"stages": [{"dim": 8, "depth": 3}]}
    (field,) = fields(looked_into(spec), images(48, 48))
    # of 12 tokens, number 6 has those of its shifted window, 6 to 9; of their windows, 4 to 11; and
    # of their shifted windows, 2 to 5, 6 to 9, and the last, which is 10, 11, 0, 1
    assert field.box == (4 * first, 4 * first, 48, 48)


def test_a_field_is_the_gradient_of_all_channels():
    """Random signs stand for the sum over channels: against the whole Jacobian."""
    model = looked_into(tiny(stages=[{"dim": 8, "depth": 1}]))
    image = images(16, 16)
    jacobian = torch.autograd.functional.jacobian(lambda x: model.maps(x, [0])[0][0, 2, 2], image)
    expected = jacobian.square().sum((0, 1, 2)).sqrt()
    (field,) = fields(model, image.expand(400, -1, -1, -1))
    torch.testing.assert_close(field.strength, expected, rtol=0.3, atol=0.05)
    torch.testing.assert_close(field.strength.norm(), expected.norm(), rtol=0.05, atol=0)


def test_half_of_the_strength():
    (field,) = fields(looked_into(convolutions(1, depths=(1,))), images(32, 32))
    # all of it is in one patch of 16 pixels
    assert 1 / 1024 <= field.holding(0.5) <= 8 / 1024
    assert field.holding(1.0) <= 16 / 1024


# attention: against timm's own, and plain torch


def timm_attention(module, model, image):
    """(windows, heads, N, N): the weights that a block of timm computes."""
    kept = []
    hook = module.attn_drop.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    with torch.no_grad():
        model(image)
    hook.remove()
    return kept[0]


def timm_row(block, weights, grid, token):
    """(heads, H, W): the weights of one token on the map, by timm's own windows."""
    h, w = grid
    numbers = torch.arange(h * w).view(1, h, w, 1)
    rolled = torch.roll(numbers, [-by for by in block.shift_size], dims=(1, 2))
    windows = window_partition(rolled, block.window_size).flatten(1)
    ((window, slot),) = torch.nonzero(windows == token).tolist()
    placed = weights.new_zeros(weights.shape[1], h * w)
    placed[:, windows[window]] = weights[window, :, slot]
    return placed.view(-1, h, w)


def timm_networks():
    shape = {"img_size": (64, 96), "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4)}
    yield SwinTransformer(window_size=4, **shape)
    yield SwinTransformerV2(window_size=4, **shape)


@pytest.mark.parametrize("theirs", [*timm_networks()], ids=["swin", "swin_v2"])
def test_attention_is_that_of_timm(theirs):
    theirs = perturb(theirs, std=0.3)
    ours = hierarch.from_timm(theirs)
    theirs, model = theirs.double(), subject(ours).model
    image = images(64, 96)
    shifted = 0
    for pixel in [(0, 0), (63, 95), (31, 40), (5, 90), (60, 3)]:
        found = attended(model, image, pixel)
        assert [(row.stage, row.block) for row in found] == [(0, 0), (0, 1), (1, 0), (1, 1)]
        for row in found:
            block = theirs.layers[row.stage].blocks[row.block]
            block.attn.fused_attn = False
            grid, stride = row.weights.shape[1:], 4 * 2**row.stage
            assert row.token == (pixel[0] // stride, pixel[1] // stride)
            weights = timm_attention(block.attn, theirs, image)
            token = row.token[0] * grid[1] + row.token[1]
            expected = timm_row(block, weights, grid, token)
            torch.testing.assert_close(row.weights, expected, **EXACT)
            ones = torch.ones(len(row.weights), dtype=torch.float64)
            torch.testing.assert_close(row.weights.sum((1, 2)), ones, **EXACT)
            shifted += any(block.shift_size)
    assert shifted == 10


def test_a_masked_pair_is_not_attended_to():
    """A pixel of the last shifted window, whose other end is on the other side of the picture."""
    model = looked_into(tiny(), seed=1)
    corner = attended(model, images(64, 64), (63, 63), stages=[0])
    regular, shifted = corner
    assert (regular.weights > 1e-6).any(0).nonzero().amin(0).tolist() == [12, 12]
    # the last window has the tokens 14, 15, 0 and 1 on both axes; of the corner, only 14 and 15
    assert shifted.keys.sum() == 16
    assert shifted.keys[0, 0]
    reached = shifted.weights > 1e-30
    assert reached[:, 14:, 14:].all()
    assert reached.any(0).sum() == 4
    spec = tiny()
    spec["mixer"][1]["shift_mask"] = False
    _, unmasked = attended(looked_into(spec, seed=1), images(64, 64), (63, 63), stages=[0])
    assert (unmasked.weights > 1e-30).any(0).sum() == 16


def plain(mixer, x, same):
    """(heads, N, N): softmax(q kᵀ / √d) among pairs that are the `same`, by plain torch."""
    tokens = x.flatten(0, 2)
    q, k, _ = (
        (tokens @ mixer.qkv.weight.T + mixer.qkv.bias)
        .view(len(tokens), 3, mixer.num_heads, -1)
        .permute(1, 2, 0, 3)
    )
    logits = q @ k.mT / q.shape[-1] ** 0.5
    return logits.masked_fill(~same, -torch.inf).softmax(-1)


def input_of(model, image, stage, block):
    kept = []
    mixer = model.stages[stage].blocks[block].mixer
    hook = mixer.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    with torch.no_grad():
        model(image)
    hook.remove()
    return mixer, kept[0]


def among_all(rows, columns):
    return (rows[:, None] == rows[None]) & (columns[:, None] == columns[None])


def everyone(y, x, grid):
    return among_all(y * 0, x * 0)


def of_a_grid(y, x, grid):
    """Dilated windows of 4: rows h / 4 apart, and columns w / 4."""
    return among_all(y % (grid[0] // 4), x % (grid[1] // 4))


def of_a_neighborhood(y, x, grid):
    """3 x 3 around each token, moved inside the map."""
    by_axis = [
        (at[None] - at[:, None].clamp(1, size - 2)).abs() <= 1
        for at, size in zip((y, x), grid, strict=True)
    ]
    return by_axis[0] & by_axis[1]


@pytest.mark.parametrize(
    ("mixer", "same"),
    [
        ({"type": "global_attention", "head_dim": 4}, everyone),
        (
            {"type": "grid_attention", "head_dim": 4, "window_size": 4, "position_bias": "none"},
            of_a_grid,
        ),
        (
            {
                "type": "neighborhood_attention",
                "head_dim": 4,
                "kernel_size": 3,
                "position_bias": "none",
            },
            of_a_neighborhood,
        ),
    ],
    ids=lambda case: case["type"] if isinstance(case, dict) else "",
)
def test_attention_is_that_of_plain_torch(mixer, same):
    model = looked_into(tiny_of(mixer))
    image = images(64, 96)
    for stage, pixel in [(0, (0, 0)), (0, (30, 50)), (1, (63, 95)), (1, (17, 40))]:
        for row in attended(model, image, pixel, stages=[stage]):
            module, x = input_of(model, image, row.stage, row.block)
            grid = x.shape[1:3]
            y, columns = torch.meshgrid(*map(torch.arange, grid), indexing="ij")
            pairs = same(y.flatten(), columns.flatten(), grid)
            token = row.token[0] * grid[1] + row.token[1]
            expected = plain(module, x, pairs)[:, token].view(-1, *grid)
            torch.testing.assert_close(row.weights, expected, **EXACT)
            assert torch.equal(row.keys.flatten(), pairs[token])
            assert row.padding.abs().max() == 0


def test_padding_takes_part():
    """A map that is padded: what goes to padding is told, and with it the weights sum to 1."""
    model = looked_into(tiny())
    found = attended(model, images(72, 72), (71, 71), stages=[0])
    for row in found:
        total = row.weights.sum((1, 2)) + row.padding
        torch.testing.assert_close(total, torch.ones(2, dtype=torch.float64), **EXACT)
    # 18 tokens in windows of 4: the last one has 2 x 2 of them, and 12 slots of padding
    assert found[0].keys.sum() == 4
    assert (found[0].padding > 0.1).all()


def test_a_pixel_that_no_token_begins_at():
    """A stem of convolutions ignores remaining pixels: the last token is theirs."""
    stem = {"type": "conv_stem", "kernel_size": 4, "stride_size": 4, "padding": 0}
    model = looked_into(tiny(stem=stem))
    first, *_ = attended(model, images(34, 35), (33, 34), stages=[0])
    assert (first.token, first.weights.shape[1:]) == ((7, 7), (8, 8))


def test_a_network_is_left_as_it_was():
    model = hierarch.build(tiny(), head={"num_classes": 3}).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attended(subject(model).model, images(64, 64), (0, 0))
    fields(subject(model).model, images(64, 64))
    assert all(module.training for module in model.modules())
    assert all(not module._forward_pre_hooks for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert next(model.parameters()).dtype == torch.float32


def test_packed_weights_attend_alike():
    model = hierarch.build(tiny()).eval()
    image, pixel = images(64, 64), (20, 20)
    expected = attended(subject(model).model, image, pixel)
    packed = attended(subject(model.pack_weights()).model, image, pixel)
    for a, b in zip(packed, expected, strict=True):
        torch.testing.assert_close(a.weights, b.weights, **EXACT)


# features


def test_components_are_those_of_sklearn():
    model = looked_into(tiny())
    image = images(64, 96)
    maps = model.forward_intermediates(image, norm=True, output_fmt="NHWC", intermediates_only=True)
    found = components(model, image)
    assert [len(map.shape) for map in maps] == [4, 4, 4]
    for map, stage in zip(maps, found, strict=True):
        expected = PCA(3, svd_solver="full").fit(map[0].flatten(0, 1).numpy())
        values = torch.from_numpy(expected.transform(map[0].flatten(0, 1).numpy()))
        assert stage.grid == map.shape[1:3]
        assert stage.explained == pytest.approx(expected.explained_variance_ratio_.tolist())
        ours = stage.values.flatten(0, 1)
        signs = (ours * values).sum(0).sign()
        torch.testing.assert_close(ours * signs, values, atol=1e-9, rtol=0)
        # a component has no sign of its own; ours makes the largest of its weights positive
        axes = torch.from_numpy(expected.components_) * signs[:, None]
        assert (axes.gather(1, axes.abs().argmax(1, keepdim=True)) > 0).all()


def test_a_map_of_one_token_has_no_components():
    (_, _, last) = components(looked_into(tiny()), images(16, 16))
    assert last.grid == (1, 1)
    assert last.values.abs().max() == 0


# bias


@pytest.mark.parametrize("mixer", ["window_attention", "cosine_window_attention", "grid_attention"])
@pytest.mark.parametrize("window", [(4, 4), (3, 5)], ids=str)
def test_the_bias_is_that_of_each_pair_of_tokens(mixer, window):
    part = {"type": mixer, "head_dim": 4, "window_size": list(window)}
    model = looked_into(tiny_of(part))
    (h, w), found = window, tables(model, (96, 96), stages=[0, 2])
    assert [(table.stage, table.block) for table in found] == [(0, 0), (0, 1), (2, 0), (2, 1)]
    for table in found:
        block = model.stages[table.stage].blocks[table.block]
        bias = block.mixer.bias(window)[0]
        assert table.values.shape == (len(bias), 2 * h - 1, 2 * w - 1)
        assert table.values.std() > 1e-3
        for query in range(h * w):
            for key in range(h * w):
                dy, dx = key // w - query // w, key % w - query % w
                drawn = table.values[:, dy + h - 1, dx + w - 1]
                assert torch.equal(drawn, bias[:, query, key])


def test_the_bias_of_a_neighborhood():
    part = {"type": "neighborhood_attention", "head_dim": 4, "kernel_size": 3}
    model = looked_into(tiny_of(part))
    table = tables(model, (64, 64))[0]
    mixer = model.stages[0].blocks[0].mixer
    # token 5, 5 of 16 x 16 has its neighbors around it
    axis = torch.stack([torch.arange(16) + by for by in (-1, 0, 1)], 1)
    bias = mixer.position_bias(axis, axis)[:, 5 * 16 + 5, 0].view(2, 3, 3)
    assert torch.equal(table.values[:, 1:4, 1:4], bias)


def test_a_window_that_shrinks_has_a_smaller_table():
    part = {"type": "window_attention", "head_dim": 4, "window_size": 8, "small_map": "clamp"}
    found = tables(looked_into(tiny_of(part)), (64, 64))
    assert {table.stage: table.values.shape[1:] for table in found} == {
        **dict.fromkeys([0, 1], (15, 15)),
        2: (7, 7),
    }


# what is wrong


@pytest.mark.parametrize("mixer", ["pooling", "linear_attention", "window_mlp"])
def test_no_attention(mixer):
    part = {"type": mixer} | ({} if mixer == "pooling" else {"head_dim": 4})
    model = looked_into(tiny_of(part))
    with pytest.raises(PlotError, match=rf"tiny: no block .* attends .* mixers: {mixer}"):
        attended(model, images(64, 64), (0, 0))
    with pytest.raises(PlotError, match=f"no position bias in {mixer}"):
        tables(model, (64, 64))


@pytest.mark.parametrize("pixel", [(64, 0), (0, 96), (-1, 3)])
def test_a_pixel_outside(pixel):
    message = (
        f"pixel {pixel[0]},{pixel[1]} is outside of the picture: rows are 0 to 63, columns 0 to 95"
    )
    with pytest.raises(PlotError, match=message):
        attended(looked_into(tiny()), images(64, 96), pixel)


def test_a_stage_that_is_not_there():
    with pytest.raises(PlotError, match=r"stages \[3\]: tiny has stages 0 to 2"):
        attended(looked_into(tiny()), images(64, 64), (0, 0), stages=[3])


def test_weights_that_a_network_has_already():
    with pytest.raises(PlotError, match="this network has its own"):
        subject(hierarch.build(tiny()), weights={})


# the picture


PIXELS = torch.randint(256, (48, 64, 3), generator=torch.Generator().manual_seed(0)).byte().numpy()


def test_a_picture_is_normed_as_for_imagenet():
    spec = hierarch.load(tiny())
    shown = picture(PIXELS, spec, size=(48, 64))
    expected = normalize(to_tensor(PIXELS), mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    torch.testing.assert_close(shown.images[0].float(), expected)
    assert (shown.pixels == PIXELS).all()


def test_a_picture_is_cut_to_its_middle(tmp_path):
    bars = np.zeros((40, 100, 3), np.uint8)
    bars[:, 30:70] = 255
    Image.fromarray(bars).save(tmp_path / "bars.png")
    shown = picture(tmp_path / "bars.png", hierarch.load(tiny()), size=40)
    assert shown.size == (40, 40)
    assert (shown.pixels == 255).all()
    assert picture(bars, hierarch.load(tiny())).size == (224, 224)
    gray = hierarch.load(tiny(stem={"type": "patch_embed", "in_chans": 1}))
    assert picture(bars[..., 0], gray, size=40).images.shape == (1, 1, 40, 40)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("nothing.png", "nothing.png: cannot be read"),
        (PIXELS / 255, r"array \(height, width\) .* of bytes, got float64 of shape \(48, 64, 3\)"),
        (PIXELS.transpose(2, 0, 1), r"got uint8 of shape \(3, 48, 64\)"),
        (PIXELS[None], r"got uint8 of shape \(1, 48, 64, 3\)"),
        (PIXELS[:0], r"got uint8 of shape \(0, 64, 3\)"),
    ],
    ids=["missing", "floats", "channels first", "a batch", "empty"],
)
def test_no_picture(image, message):
    with pytest.raises(DataError, match=message):
        picture(image, hierarch.load(tiny()))


def test_a_network_of_other_channels():
    spec = hierarch.load(tiny(stem={"type": "patch_embed", "in_chans": 5}))
    with pytest.raises(DataError, match="the image has 3 channels, and the network takes 5"):
        picture(PIXELS, spec)


def test_a_drawn_picture_stands_for_none(small):
    spec, model = small
    figure = plots.attention(model)
    assert (panels(figure)[0].images[0].get_array() == scene((64, 96))).all()
    assert "row 32, column 48" in caption_of(figure)
    assert len(panels(plots.features(spec))) == 4


# the figures


def drawn(axes):
    """The numbers of the last image in a panel."""
    return torch.from_numpy(np.ma.filled(axes.images[-1].get_array(), np.nan))


def panels(figure):
    return [axes for axes in figure.axes if axes.images and axes.get_label() != "<colorbar>"]


@pytest.fixture(scope="module")
def small():
    """A spec, and a network of it in whose weights a mistake would show."""
    spec = tiny(input_size=[64, 96])
    return spec, perturb(hierarch.build(spec), std=0.3)


def test_attention_is_drawn(small):
    _, model = small
    figure = plots.attention(model, image=PIXELS, pixel=(50, 70), stage=1)
    looked = subject(model)
    shown = picture(PIXELS, looked.spec)
    found = attended(looked.model, shown.images, (50, 70), stages=[1])
    whole, *heads = panels(figure)
    assert (whole.images[0].get_array() == shown.pixels).all()
    assert len(heads) == 3 * 4
    expected = [weights for row in found for weights in row.weights]
    for axes, weights in zip(heads, expected, strict=True):
        assert torch.equal(drawn(axes), weights)
        # the token in row 6, column 8 of 8 x 12, of 8 pixels, has the frame
        (frame,) = axes.patches
        assert frame.get_bbox().bounds == (63.5, 47.5, 8, 8)
        assert tuple(axes.images[-1].get_extent()) == (-0.5, 95.5, 63.5, -0.5)
    assert [axes.get_ylabel() for axes in heads[::4]] == ["block 0", "block 1", "block 2"]
    said = caption_of(figure)
    assert "the pixel in row 50, column 70 attends to in the blocks of stage 1" in said
    assert said.endswith("Shown with the network's own weights.")


def test_the_keys_are_outlined():
    keys = torch.zeros(4, 6, dtype=torch.bool)
    keys[1:3, 2:6] = True
    segments = _outline(keys, (8, 4)).get_segments()
    assert len(segments) == 2 * (2 + 4)
    corners = np.concatenate(segments)
    assert corners.min(0).tolist() == [2 * 4 - 0.5, 1 * 8 - 0.5]
    assert corners.max(0).tolist() == [6 * 4 - 0.5, 3 * 8 - 0.5]


def test_many_heads_are_drawn_in_lines():
    spec = tiny_of({"type": "global_attention", "num_heads": 16})
    spec["stages"] = [{"dim": 64, "depth": 2}]
    figure = plots.attention(spec, image=PIXELS, pixel=(0, 0), size=32)
    assert len(panels(figure)) == 1 + 2 * 16


def test_features_are_drawn(small):
    _, model = small
    figure = plots.features(model, image=PIXELS)
    looked = subject(model)
    found = components(looked.model, picture(PIXELS, looked.spec).images)
    _, *maps = panels(figure)
    for axes, stage in zip(maps, found, strict=True):
        values = drawn(axes)
        assert torch.equal(values, colors(stage.values))
        assert values.aminmax() == (0, 1)
        # a larger component is never drawn as less of its color
        order = stage.values.flatten(0, 1).argsort(0)
        assert (values.flatten(0, 1).gather(0, order).diff(dim=0) >= 0).all()


def test_the_bias_is_drawn(small):
    _, model = small
    heads = panels(plots.bias(model, stages=[0, 2]))
    blocks = [model.stages[i].blocks[j] for i, j in [(0, 0), (0, 1), (2, 0), (2, 1)]]
    with torch.no_grad():
        expected = [bias for b in blocks for bias in by_offset(b.mixer.bias((4, 4)), (4, 4))]
    assert len(heads) == len(expected) == 2 * 2 + 2 * 6
    for axes, bias in zip(heads, expected, strict=True):
        assert torch.equal(drawn(axes), bias.double())
    scales = {axes.images[0].get_clim() for axes in heads}
    ((low, high),) = scales  # one for all, with 0 in its middle
    assert high == -low == max(float(bias.abs().max()) for bias in expected)


def test_fields_are_drawn(small):
    spec, model = small
    other = hierarch.swap(spec, "pooling")
    figure = plots.receptive(model, other)
    rows = panels(figure)
    assert len(rows) == 6
    found = fields(subject(other).model, random_images(3, (64, 96)))
    for axes, field in zip(rows[3:], found, strict=True):
        values = drawn(axes)
        assert torch.equal(values.isnan(), ~field.reached)
        strength = field.strength / field.strength.max()
        expected = strength[field.reached].clamp(min=1e-5)
        torch.testing.assert_close(values[field.reached], expected, **EXACT)
        height, width = field.extent
        assert axes.get_xlabel().startswith(f"depends on {height} × {width} pixels")
    label = rows[3].get_ylabel().replace("\n", " ")
    assert label == "tiny, all stages: pooling for window_attention"
    said = caption_of(figure)
    assert "the network's own weights (tiny); random weights" in said


def test_fields_of_given_images():
    figure = plots.receptive(tiny(), images=[PIXELS, PIXELS], size=(48, 64))
    assert "averaged over 2 given images of 48 × 64 pixels" in caption_of(figure)


def test_weights_are_said(tmp_path, small):
    spec, model = small
    torch.save(
        hierarch.build(spec, head={"num_classes": 7}).state_dict() | model.state_dict(),
        tmp_path / "w.pt",
    )
    figure = plots.bias(spec, weights=tmp_path / "w.pt")
    assert caption_of(figure).endswith("Shown with weights of w.pt.")
    ours = panels(plots.bias(model))
    assert all(torch.equal(drawn(a), drawn(b)) for a, b in zip(panels(figure), ours, strict=True))
    assert caption_of(plots.bias(spec)).endswith("random weights: nothing is learned yet.")
    with pytest.raises(WeightsError):
        plots.bias(tiny("cosine_window_attention"), weights=tmp_path / "w.pt")


def test_random_weights_are_the_same_again():
    first, second = (panels(plots.bias(tiny())) for _ in range(2))
    assert all(torch.equal(drawn(a), drawn(b)) for a, b in zip(first, second, strict=True))
    other = panels(plots.bias(tiny(), seed=1))
    assert not torch.equal(drawn(first[0]), drawn(other[0]))


def test_nothing_is_left_in_pyplot(small):
    from matplotlib import pyplot

    plots.attention(small[1], image=PIXELS, pixel=(0, 0))
    assert pyplot.get_fignums() == []


# the command


@pytest.fixture
def files(tmp_path):
    (tmp_path / "tiny.yaml").write_text(hierarch.dump(hierarch.load(tiny())))
    Image.fromarray(PIXELS).save(tmp_path / "it.png")
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("attention", ["--image", "it.png", "--pixel", "3,5", "--stage", "2"], "blocks of stage 2"),
        ("features", ["--image", "it.png"], "principal components"),
        ("bias", ["--stage", "0,1"], "position bias"),
        ("receptive", ["--image", "it.png", "--image", "it.png"], "over 2 given images"),
    ],
)
def test_the_command_draws(run, files, monkeypatch, kind, options, says):
    monkeypatch.chdir(files)
    status, out, err = run("plot", "tiny.yaml", kind, "--size", "32x48", *options, "-o", "x.png")
    assert (status, err) == (0, "")
    assert says in out
    assert "random weights" in out
    with Image.open("x.png") as written:
        assert written.format == "PNG"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pixel", "32,0"], "pixel 32,0 is outside of the picture"),
        (["--image", "tiny.yaml", "--pixel", "3,5"], "tiny.yaml: cannot be read"),
        (["--image", "it.png", "--pixel", "3,5", "--stage", "9"], "tiny has stages 0 to 2"),
    ],
)
def test_the_command_says_what_is_wrong(run, files, monkeypatch, options, message):
    monkeypatch.chdir(files)
    status, out, err = run(
        "plot", "tiny.yaml", "attention", "--size", "32", *options, "-o", "x.png"
    )
    assert (status, out) == (2, "")
    assert message in err
    assert not (files / "x.png").exists()
