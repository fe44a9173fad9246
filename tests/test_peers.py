"""Networks of other libraries: built without weights and counted as by fvcore."""

import io

import pytest
import timm
import torch
import torchvision
from fvcore.nn import FlopCountAnalysis
from helpers import tiny

import hierarch
from hierarch.complexity import peers
from hierarch.errors import CountError, PeerError, SpecError

PEER = "timm:resnet18"


@pytest.fixture
def explicit_attention():
    """Attention as products that fvcore counts; it leaves out the fused operator."""
    before = timm.layers.use_fused_attn()
    timm.layers.set_fused_attn(False)
    yield
    timm.layers.set_fused_attn(before)


def plain_fvcore(model, size):
    analysis = FlopCountAnalysis(model.eval(), torch.zeros(1, 3, *size))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return analysis.total(), analysis.by_operator()


@pytest.mark.usefixtures("explicit_attention")
@pytest.mark.parametrize(
    ("name", "build", "size"),
    [
        ("timm:resnet50", lambda: timm.create_model("resnet50"), (64, 96)),
        ("timm:efficientnet_b3", lambda: timm.create_model("efficientnet_b3"), (75, 64)),
        ("timm:tf_efficientnet_b3", lambda: timm.create_model("tf_efficientnet_b3"), (75, 64)),
        ("timm:regnety_040", lambda: timm.create_model("regnety_040"), (64, 64)),
        (
            "timm:deit_small_patch16_224",
            lambda: timm.create_model("deit_small_patch16_224", img_size=(64, 48)),
            (64, 48),
        ),
        ("torchvision:swin_t", torchvision.models.swin_t, (64, 80)),
        ("torchvision:regnet_y_3_2gf", torchvision.models.regnet_y_3_2gf, (64, 64)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_cost_of_a_peer_is_plain_fvcores_count_on_real_tensors(name, build, size):
    model = build()
    total, _ = plain_fvcore(model, size)
    [cost] = hierarch.measure_peer(name, [size]).sizes
    assert cost.macs == total
    if "deit" not in name:
        params = sum(parameter.numel() for parameter in model.parameters())
        assert hierarch.measure_peer(name, [size]).params == params


@pytest.mark.usefixtures("explicit_attention")
def test_plain_fvcore_leaves_out_only_fused_attention():
    model = timm.create_model("deit_small_patch16_224")
    _, explicit = plain_fvcore(model, (224, 224))
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = True
    fused, _ = plain_fvcore(model, (224, 224))
    timm.layers.set_fused_attn(True)
    [cost] = hierarch.measure_peer("timm:deit_small_patch16_224", [224]).sizes
    attention = cost.operators["scaled_dot_product_attention"]
    assert attention == explicit["matmul"] > 0
    assert cost.macs == fused + attention


@pytest.mark.parametrize(
    "name", ["efficientnet_b4", "regnet_y_3_2gf", "vit_b_16", "resnet50", "convnext_tiny"]
)
def test_without_norms_and_pooling_the_cost_is_torchvisions_figure(name):
    weights = torchvision.models.get_model_weights(name).DEFAULT
    report = hierarch.measure_peer(
        f"torchvision:{name}", [weights.transforms.keywords["crop_size"]]
    )
    operators = report.sizes[0].operators
    free = ("batch_norm", "layer_norm", "adaptive_avg_pool2d")
    products = sum(macs for operator, macs in operators.items() if operator not in free)
    assert products / 1e9 == pytest.approx(weights.meta["_ops"], abs=0.001)
    assert report.params == weights.meta["num_params"]


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("timm:efficientnet_b3", 288),
        ("timm:tf_efficientnet_b3", 300),
        ("timm:tf_efficientnet_b3.ns_jft_in1k", 300),
        ("timm:deit_base_patch16_384", 384),
        ("torchvision:efficientnet_b3", 300),
        ("torchvision:vit_h_14", 518),
        ("transformers:swin", 224),
    ],
)
def test_a_peer_has_its_own_size(name, side):
    assert peers.find_peer(name).size == (side, side)


def test_without_sizes_a_peer_grows_from_its_own():
    report = hierarch.measure_peer(PEER)
    assert [size.size for size in report.sizes] == [(224 * n, 224 * n) for n in (1, 2, 4, 8)]
    assert report.exponent == pytest.approx(1, abs=1e-3)
    assert report.r2 == pytest.approx(1)


def test_a_peer_of_a_single_size_is_measured_at_that_with_a_note(monkeypatch):
    build = peers.find_peer(PEER).build

    def picky(size):
        if size != (64, 64):
            raise ValueError("64 only\nand more lines")
        return build(size)

    monkeypatch.setitem(peers.LIBRARIES, "timm", lambda name: peers.Peer((64, 64), 3, picky))
    report = hierarch.measure_peer(PEER)
    assert [size.size for size in report.sizes] == [(64, 64)]
    assert report.exponent is None
    assert report.why.endswith("; it takes no image of 128x128")
    message = f"^{PEER} cannot be built for 32x32: ValueError: 64 only$"
    with pytest.raises(PeerError, match=message):
        hierarch.measure_peer(PEER, [32])


def test_a_vision_transformer_is_built_for_each_size_and_grows_faster_than_the_area():
    report = hierarch.measure_peer("timm:deit_small_patch16_224", [224, 448, 896])
    assert report.exponent > 1.2
    small, large, _ = report.sizes
    assert 4.9 < large.macs / small.macs < 4.92
    # Swin, eq. (1): the products are 2N²C a block, with a class token beside the 16x16 patches
    for size, n in zip(report.sizes, (14, 28, 56), strict=True):
        assert size.operators["scaled_dot_product_attention"] == 12 * 2 * (n * n + 1) ** 2 * 384
    assert report.params == 22_050_664
    assert hierarch.measure_peer("timm:deit_small_patch16_224", [64]).params == 22_050_664


def test_a_window_transformer_of_another_library_is_linear_as_ours_is():
    [ours, theirs] = (
        measured.sizes
        for measured in (
            hierarch.measure("swin_tiny", [224, 448]),
            hierarch.measure_peer("timm:swin_tiny_patch4_window7_224", [224, 448]),
        )
    )
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.macs == other.macs
        assert mine.activations == other.activations


def test_the_costs_of_a_peers_children_add_up_to_the_total():
    [cost] = hierarch.measure_peer("timm:crossvit_9_240", [240]).sizes
    assert sum(cost.children.values()) == cost.macs
    assert cost.children["(own)"] == cost.operators["upsample_bicubic2d"]
    assert cost.head == cost.children["head"]


def test_the_cost_of_the_head_is_that_of_its_linear_layers():
    [cost] = hierarch.measure_peer("timm:convnext_atto", [64]).sizes
    assert cost.head == 320 * 1000 < cost.children["head"]
    [cost] = hierarch.measure_peer("torchvision:squeezenet1_0", [64]).sizes
    assert cost.head == 0 < cost.children["classifier"]


def test_an_operator_without_a_rule_names_the_network():
    with pytest.raises(CountError, match=r"timm:sequencer2d_s: no rule to count aten::lstm"):
        hierarch.measure_peer("timm:sequencer2d_s", [224])


@pytest.mark.parametrize("sizes", [[], [0], [2**17], [(1, 2, 3)]])
def test_an_invalid_size_is_an_error(sizes):
    with pytest.raises(SpecError, match="size"):
        hierarch.measure_peer(PEER, sizes)


@pytest.mark.parametrize("name", ["swin", "deit", "resnet", "segformer"])
def test_transformers_models_are_counted_in_their_default_configuration(name):
    report = hierarch.measure_peer(f"transformers:{name}", [224, 448])
    quadratic = name in ("deit", "segformer")
    assert report.exponent > 1.05 if quadratic else abs(report.exponent - 1) < 0.01
    assert all(sum(size.children.values()) == size.macs for size in report.sizes)


def test_transformers_swin_is_ours_but_for_the_head():
    ours = hierarch.measure("swin_tiny", [224]).sizes[0]
    theirs = hierarch.measure_peer("transformers:swin").sizes[0]
    assert theirs.macs - theirs.head - theirs.operators["adaptive_avg_pool1d"] == (
        ours.macs - ours.operators["linear"] + theirs.operators["linear"] - theirs.head
    )


def test_the_bar_advances_by_a_size_at_a_time(monkeypatch, tmp_path):
    advanced = []
    hierarch.measure_peer(PEER, [32, 64], advance=lambda: advanced.append(1))
    assert len(advanced) == 2


def test_rich_prints_a_report():
    from rich.console import Console

    console = Console(record=True, width=120, file=io.StringIO())
    console.print(hierarch.measure_peer(PEER, [32, 64]))
    drawn = console.export_text()
    assert "layer4" in drawn
    assert "fit: MACs ~ pixels^" in drawn
    assert hierarch.load(tiny()).name not in drawn
