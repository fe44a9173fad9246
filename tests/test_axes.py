"""Networks of videos, volumes and signals: grids with three axes, and with one."""

from __future__ import annotations

import pytest
import timm
import torch
from helpers import noise, perturb
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models import video

import hierarch
import hierarch.integrations.timm
import hierarch.plots
from hierarch import engine
from hierarch.complexity import measure
from hierarch.exporting.registry import get_target
from hierarch.integrations.torchvision import fpn_backbone
from hierarch.integrations.transformers import HierarchConfig
from hierarch.nn.attention import relative_position_index
from hierarch.plots.kinds.cost import line_sizes
from hierarch.spec.claim import base_size
from hierarch.spec.grid import AXES
from hierarch.train.recipe import Recipe, image_size
from hierarch.weights.infer_swin import indexed

PRESETS = {"tiny": video.swin3d_t, "small": video.swin3d_s, "base": video.swin3d_b}
WINDOW, SHIFT = (8, 7, 7), (4, 3, 3)
CLIPS = [(16, 112, 112), (9, 75, 130), (32, 32, 64), (3, 33, 20), (1, 1, 1)]
"""Frames, height, width: whole windows, padding, and windows that shrink along some axes."""


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def windows(window, shift, **fields):
    mixer = {"type": "window_attention", "head_dim": 8, "window_size": [*window], **fields}
    return [mixer, mixer | {"shift_size": [*shift]}]


def network(axes, *, patch, window, shift, merge, depth=2, classes=5, **fields):
    """A small Swin on so many axes; a whole number stands for a side along each."""
    each = {"patch": patch, "window": window, "shift": shift, "merge": merge}
    each = {k: [v] * axes if isinstance(v, int) else [*v] for k, v in each.items()}
    return {
        "input_size": [32] * axes,
        "stem": {"type": "patch_embed", "patch_size": each["patch"]},
        "mixer": windows(each["window"], each["shift"], **fields),
        "downsample": {"type": "patch_merging", "merge_size": each["merge"]},
        "stages": [{"dim": 16, "depth": depth}, {"dim": 32, "depth": depth}],
        "head": {"num_classes": classes},
    }


def small_video(**fields):
    return network(3, patch=(2, 4, 4), window=WINDOW, shift=SHIFT, merge=(1, 2, 2), **fields)


def torchvision_video():
    return perturb(
        video.SwinTransformer3d(
            patch_size=[2, 4, 4],
            embed_dim=16,
            depths=[2, 2],
            num_heads=[2, 4],
            window_size=[*WINDOW],
            num_classes=5,
        )
    ).double()


@pytest.fixture(scope="module")
def theirs():
    return torchvision_video()


@pytest.mark.parametrize("size", CLIPS)
def test_videos_give_torchvisions_logits(theirs, size):
    ours = hierarch.build(small_video(small_map="clamp_first")).eval().double()
    report = hierarch.load_weights(ours, theirs.state_dict())
    assert (report.layout, report.network) == ("torchvision", "swin3d")
    clips = noise(1, 3, *size).double()
    with torch.no_grad():
        wanted, found = theirs(clips), ours(clips)
        with engine.disabled():
            defined = ours(clips)
    for logits in (found, defined, ours(clips)):
        torch.testing.assert_close(logits, wanted, rtol=0, atol=1e-10)


def test_torchvision_loads_what_is_exported(theirs):
    ours = hierarch.from_checkpoint(theirs.state_dict())
    written = hierarch.export_weights(ours, layout="torchvision")
    assert written.keys() == theirs.state_dict().keys()
    assert all(torch.equal(written[name], t) for name, t in theirs.state_dict().items())
    torchvision_video().load_state_dict(written, strict=True)


def test_a_checkpoint_of_a_video_network_says_its_spec(theirs):
    found = hierarch.infer(theirs.state_dict()).spec
    assert found.stem.patch_size == (2, 4, 4)
    assert found.downsample.merge_size == (1, 2, 2)
    mixers = found.plan()[0].mixers
    assert [(m.window, m.shift, m.small_map) for m in mixers] == [
        (WINDOW, (0, 0, 0), "clamp_first"),
        (WINDOW, SHIFT, "clamp_first"),
    ]
    lacking = {k: v for k, v in theirs.state_dict().items() if "index" not in k}
    with pytest.raises(hierarch.WeightsError, match=r"window_size=\(frames, height, width\)"):
        hierarch.infer(lacking)
    assert hierarch.infer(lacking, window_size=WINDOW).spec == found


@pytest.mark.parametrize(
    "index", [torch.zeros(0, 392), torch.zeros(392, 0), torch.zeros(392), torch.zeros(4, 4).long()]
)
def test_a_damaged_index_says_no_window(theirs, index):
    state = {k: index if k.endswith("index") else v for k, v in theirs.state_dict().items()}
    with pytest.raises(hierarch.WeightsError, match="do not determine a window of a video"):
        hierarch.infer(state)


@pytest.mark.parametrize("window", [(8, 7, 5), (2, 2, 2), (5, 3), (6,)])
def test_a_window_is_read_off_its_index(window):
    assert indexed(relative_position_index(window)) == window


@pytest.mark.parametrize("name", PRESETS)
def test_video_presets_have_torchvisions_parameters_and_claims_are_counts(name):
    spec = hierarch.load(f"video/swin3d_{name}")
    with torch.device("meta"):
        assert count(PRESETS[name]()) == count(hierarch.build(spec))
    report = measure(spec, [(16, 224, 224), (5, 75, 131)])
    assert report.verdict == "linear"
    assert all(size.macs == size.claimed_macs for size in report.sizes)


def test_cost_grows_as_the_volume():
    small, large = measure("video/swin3d_tiny", [(16, 224, 224), (32, 448, 448)]).sizes
    assert large.macs - large.head == 8 * (small.macs - small.head)


def test_a_published_video_network_gives_torchvisions_logits_in_float32():
    theirs = perturb(video.swin3d_t())
    ours = hierarch.build("video/swin3d_tiny").eval()
    hierarch.load_weights(ours, theirs.state_dict())
    for size in [(16, 224, 224), (8, 96, 160), (5, 75, 75), (20, 64, 64)]:
        clips = noise(1, 3, *size)
        with torch.no_grad():
            wanted, found = theirs(clips), ours(clips)
        scale = wanted.abs().max().clamp(min=1)
        torch.testing.assert_close(found / scale, wanted / scale, rtol=0, atol=1e-5)


# the same network on fewer axes


def as_on_more_axes(model, like):
    """The weights for a network with another axis, of length 1, in front."""
    state = model.state_dict()
    state["stem.proj.weight"] = state["stem.proj.weight"].unsqueeze(2)
    like.load_state_dict(state)
    return like


@pytest.mark.parametrize("small_map", ["pad", "clamp", "clamp_first", "pad_shift"])
@pytest.mark.parametrize("axes", [1, 2])
def test_an_axis_of_length_one_changes_nothing(axes, small_map):
    sides = {"patch": (2,), "window": (5,), "shift": (2,), "merge": (2,)}
    few = {name: side * axes for name, side in sides.items()}
    more = {name: ((0,) if name == "shift" else (1,)) + side for name, side in few.items()}
    plain = perturb(hierarch.build(network(axes, **few, small_map=small_map))).double()
    wider = hierarch.build(network(axes + 1, **more, small_map=small_map)).eval().double()
    as_on_more_axes(plain, wider)
    for size in [(37,), (8,), (3,)]:
        x = noise(2, 3, *(size * axes)).double()
        with torch.no_grad():
            torch.testing.assert_close(wider(x[:, :, None]), plain(x), rtol=0, atol=1e-12)


def test_a_still_clip_of_an_inflated_network_is_its_image():
    sides = {"patch": 4, "window": 7, "shift": 3, "merge": 2}
    plain = perturb(hierarch.build(network(2, **sides, small_map="clamp")))
    inflated = hierarch.build(small_video(small_map="clamp")).eval()
    report = hierarch.load_weights(inflated, plain.state_dict())
    assert {change.how for change in report.resampled} == {
        "repeated along the frames, and averaged",
        "repeated along the frames",
    }
    image = noise(1, 3, 60, 44)
    with torch.no_grad():
        found = inflated(image[:, :, None].expand(-1, -1, 2, -1, -1))
        torch.testing.assert_close(found, plain(image), rtol=0, atol=1e-5)


@pytest.mark.parametrize("mixer", ["grid_attention", "cosine_window_attention", "window_mlp"])
def test_other_mixers_in_windows_work_on_three_axes(mixer):
    data = network(3, patch=2, window=(2, 3, 4), shift=0, merge=(1, 2, 2))
    own = {"type": mixer, "head_dim": 8, "window_size": [2, 3, 4]}
    shifted = {} if mixer == "grid_attention" else {"shift_size": [1, 1, 2]}
    data["mixer"] = [own, own | shifted]
    model = perturb(hierarch.build(data))
    clips = noise(1, 3, 7, 21, 30)
    with torch.no_grad():
        found = model(clips)
        with engine.disabled():
            torch.testing.assert_close(found, model(clips), rtol=0, atol=1e-5)
    report = measure(data, [(7, 21, 30), (16, 48, 32)])
    assert report.verdict == "linear"
    assert report.params == sum(
        m.params(dim=s.dim) for s in hierarch.load(data).plan() for m in s.mixers
    ) + count(hierarch.build(data | {"mixer": "identity"}))


@pytest.mark.parametrize("mixer", ["identity", "global_attention", "linear_attention"])
def test_mixers_that_need_no_grid_work_on_any_axes(mixer):
    heads = {} if mixer == "identity" else {"head_dim": 8}
    for axes in (1, 2, 3):
        data = network(axes, patch=2, window=4, shift=2, merge=2)
        data["mixer"] = {"type": mixer, **heads}
        size = (9, 12, 7)[:axes]
        assert perturb(hierarch.build(data))(noise(1, 3, *size)).shape == (1, 5)
        report = measure(data, [size])
        assert report.sizes[0].macs == report.sizes[0].claimed_macs


# any spec


@st.composite
def specs(draw):
    axes = draw(st.integers(1, 3))

    def sides(low, high):
        return draw(st.tuples(*[st.integers(low, high)] * axes))

    window = sides(1, 5)
    shift = [draw(st.integers(0, side - 1)) for side in window]
    rule = draw(st.sampled_from(["pad", "pad_shift", "clamp", "clamp_first", "clamp_both"]))
    data = network(
        axes, patch=sides(1, 4), window=window, shift=shift, merge=sides(1, 3), small_map=rule
    )
    return data, draw(st.lists(st.tuples(*[st.integers(1, 40)] * axes), min_size=1, max_size=2))


@settings(deadline=None, max_examples=20)
@given(specs())
def test_claim_equals_count_on_any_axes(drawn):
    data, sizes = drawn
    for size in measure(data, sizes).sizes:
        assert size.macs == size.claimed_macs
    if data["mixer"][0]["small_map"] == "clamp_both":  # pads oblong windows at any size
        return
    padded = measure(data, [base_size(hierarch.load(data))]).sizes[0]
    assert padded.padding_macs == 0


@settings(deadline=None, max_examples=20)
@given(specs())
def test_the_engine_computes_the_definition_on_any_axes(drawn):
    data, sizes = drawn
    model = perturb(hierarch.build(data))
    for size in sizes:
        x = noise(2, 3, *size)
        with torch.no_grad():
            found = model(x)
            with engine.disabled():
                wanted = model(x)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


# what is said


def test_maps_and_strides_have_the_images_axes():
    model = hierarch.build(small_video(), head=None).eval()
    assert model.feature_info.reduction() == [(2, 4, 4), (2, 8, 8)]
    with torch.no_grad():
        maps = model(noise(1, 3, 4, 33, 32))
    assert [tuple(m.shape) for m in maps] == [(1, 16, 2, 9, 8), (1, 32, 2, 5, 4)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stem": "patch_embed"}, r"stem: patch_embed works on 2 axes here, and the network has 3"),
        (
            {"downsample": "patch_merging"},
            r"downsample: patch_merging works on 2 axes .* sides; give merge_size a list of 3$",
        ),
        ({"mixer": "pooling"}, r"mixer.*: pooling works on 2 axes .* sides$"),
        (
            {"mixer": windows((7, 7), (3, 3))},
            r"mixer.*: window_attention works on 2 axes .*; give window_size and shift_size a list",
        ),
        (
            {"mixer": windows((8, 7, 7), (3, 3))},
            r"should be smaller than window_size=.8, 7, 7. on 3 axes",
        ),
        ({"channel_mixer": "conv_mlp"}, r"channel_mixer: conv_mlp works on 2 axes"),
        ({"norm": "group_norm"}, r"norm: group_norm works on 2 axes"),
        ({"position": "conditional"}, r"position: conditional works on 2 axes"),
        (
            {"block": {"type": "pre_norm", "position": "conditional"}},
            r"block: pre_norm works on 2 axes",
        ),
        (
            {"mixer": windows((8, 7, 7), (3, 3, 8))},
            r"should be smaller than window_size=.8, 7, 7. on 3 axes",
        ),
        ({"input_size": 32}, r"window_attention works on 3 axes here, and the network has 2"),
        ({"input_size": [1, 2, 3, 4]}, r"a list of them, one per axis"),
    ],
)
def test_parts_for_other_axes_are_refused_with_their_place(changes, message):
    with pytest.raises(hierarch.SpecError, match=message):
        hierarch.load(small_video() | changes)


def test_images_with_other_axes_are_refused():
    model = hierarch.build(small_video())
    with pytest.raises(
        ValueError, match=r"\(batch, 3, frames, height, width\), got \(1, 3, 64, 64"
    ):
        model(noise(1, 3, 64, 64))
    with pytest.raises(hierarch.SpecError, match="the network has 3 axes, so a size has 3 sides"):
        measure(small_video(), [(64, 64)])
    with pytest.raises(hierarch.WeightsError, match="timm has no network on 3 axes"):
        hierarch.export_weights(model, layout="timm")


@pytest.mark.parametrize(
    "use",
    [
        *(
            lambda spec, kind=kind: getattr(hierarch.plots, kind)(spec)
            for kind in (
                *("architecture", "attention", "bias", "features", "receptive"),
                *("shift", "windows"),
            )
        ),
        lambda spec: hierarch.write_report([spec], "report.html"),
        lambda spec: image_size(spec, Recipe(epochs=1)),
        lambda spec: timm.create_model("hierarch_spec", spec=spec),
        lambda spec: fpn_backbone(spec, out_channels=8),
        lambda spec: HierarchConfig(spec),
    ],
)
def test_what_is_for_images_says_so(use, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(hierarch.SpecError, match="has 3 axes, and this is for networks of images"):
        use(hierarch.load(small_video()))
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("kind", ["cost", "share"])
def test_where_its_cost_goes_is_drawn(run, tmp_path, kind):
    file, picture = tmp_path / "spec.yaml", tmp_path / "picture.svg"
    file.write_text(hierarch.dump(hierarch.load(small_video())))
    status, out, err = run("plot", file, kind, "--size", "8x64x64", "-o", picture)
    assert status == 0, err
    assert picture.exists()
    assert "8 × 64 × 64" in out if kind == "share" else "by its volume" in out
    status, _, err = run("plot", file, kind, "--size", "64x64", "-o", picture)
    assert status == 2
    assert "frames x height x width" in err


def test_the_line_of_a_videos_cost_goes_through_sizes_that_pad_nothing():
    spec = hierarch.load("video/swin3d_tiny")
    base, measured = (16, 224, 224), [(16, 224, 224), (64, 896, 896)]
    assert line_sizes(spec, measured) == [tuple(n * side for side in base) for n in (1, 2, 3, 4)]


# other ways to run it


@pytest.mark.parametrize(("to", "axes"), [("onnx", 1), ("torch-export", 1), ("onnx", 3)])
def test_a_file_for_any_size_computes_the_same(to, axes, tmp_path):
    """On three axes by ONNX's exporter alone, which begins with torch.export."""
    stages = [{"dim": 16, "depth": 2}, {"dim": 32, "depth": 1}]
    spec = network(axes, patch=2, window=4, shift=2, merge=2) | {"stages": stages}
    model = perturb(hierarch.build(spec))
    path = tmp_path / f"file{get_target(to).suffix}"
    size = (16, 20, 12)[:axes]
    report = hierarch.export(model, path, to=to, size=size, dynamic="all", rounds=1)
    assert report.holds
    assert report.dynamic == ("batch", *AXES[axes])
    assert len({check.size for check in report.sizes}) == 5
    assert path.exists()


def test_a_network_of_videos_is_timed_and_compared():
    spec = hierarch.load(small_video())
    report = hierarch.benchmark([spec], sizes=[(4, 32, 48)], rounds=1, memory=False, gemm_side=0)
    [record] = report.records()
    assert [record[name] for name in ("frames", "height", "width")] == [4, 32, 48]
    other = hierarch.load({**small_video(), "name": "full", "mixer": {"type": "identity"}})
    found = hierarch.compare([spec, other], sizes=[(4, 32, 48)])
    assert found.records()[0]["frames"] == 4


@pytest.mark.parametrize("mixer", ["window_mlp", "grid_attention", "identity"])
def test_a_swap_keeps_axes_and_budget(mixer):
    spec = hierarch.load(small_video())
    found = hierarch.swap(spec, mixer, match="macs", at=(16, 64, 64))
    assert found.axes == 3
    sizes = [measure(one, [(16, 64, 64)]).sizes[0].macs for one in (spec, found)]
    assert 0.97 < sizes[1] / sizes[0] < 1.03
    with pytest.raises(hierarch.SpecError, match="pooling works on 2 axes"):
        hierarch.swap(spec, "pooling")


def test_compiled_it_computes_the_same():
    model = perturb(hierarch.build(small_video(depth=1)))
    clips = noise(1, 3, 6, 40, 36)
    compiled = torch.compile(model, dynamic=False)
    torch.testing.assert_close(compiled(clips), model(clips), rtol=1e-4, atol=1e-5)
