"""VAN: published sizes, and the authors' weights through the network as the paper defines it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers import noise, perturb

import hierarch
from hierarch.complexity import measure

SIZES = {  # parameters in millions and GMACs at 224, as the paper's Table 3 gives them
    "van_b0": (4.1, 0.9),
    "van_b1": (13.9, 2.5),
    "van_b2": (26.6, 5.0),
    "van_b3": (44.8, 9.0),
}
DEPTHS, DIMS = (2, 1, 3, 1), (8, 16, 24, 32)


def small():
    """VAN-B0 with other depths and widths."""
    spec = hierarch.load("van_b0").to_data()
    sides = zip(spec["stages"], DIMS, DEPTHS, strict=True)
    stages = [stage | {"dim": dim, "depth": depth} for stage, dim, depth in sides]
    return spec | {"stages": stages, "head": spec["head"] | {"num_classes": 5}}


class Defined:
    """The network by the paper's equations, from weights under the authors' names."""

    def __init__(self, state):
        self.state = state

    def conv(self, x, name, **options):
        return F.conv2d(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], **options)

    def depthwise(self, x, name, *, dilation=1):
        padding = dilation * (self.state[f"{name}.weight"].shape[-1] // 2)
        return self.conv(x, name, padding=padding, dilation=dilation, groups=x.shape[1])

    def batch_norm(self, x, name):
        own = [self.state[f"{name}.{key}"] for key in ("running_mean", "running_var")]
        return F.batch_norm(x, *own, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def layer_norm(self, x, name):
        own = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return F.layer_norm(x.movedim(1, -1), x.shape[1:2], *own, eps=1e-6).movedim(-1, 1)

    def attention(self, x, name):
        values = F.gelu(self.conv(x, f"{name}.proj_1"))
        gate = f"{name}.spatial_gating_unit"
        near = self.depthwise(values, f"{gate}.conv0")
        far = self.depthwise(near, f"{gate}.conv_spatial", dilation=3)
        return self.conv(values * self.conv(far, f"{gate}.conv1"), f"{name}.proj_2") + x

    def mlp(self, x, name):
        widened = self.depthwise(self.conv(x, f"{name}.fc1"), f"{name}.dwconv.dwconv")
        return self.conv(F.gelu(widened), f"{name}.fc2")

    def __call__(self, x):
        for i, depth in enumerate(DEPTHS, start=1):
            stride, padding = (4, 3) if i == 1 else (2, 1)
            x = self.conv(x, f"patch_embed{i}.proj", stride=stride, padding=padding)
            x = self.batch_norm(x, f"patch_embed{i}.norm")
            for j in range(depth):
                block = f"block{i}.{j}"
                scales = (self.state[f"{block}.layer_scale_{n}"][:, None, None] for n in (1, 2))
                first, second = scales
                x = x + first * self.attention(
                    self.batch_norm(x, f"{block}.norm1"), f"{block}.attn"
                )
                x = x + second * self.mlp(self.batch_norm(x, f"{block}.norm2"), f"{block}.mlp")
            x = self.layer_norm(x, f"norm{i}")
        return F.linear(x.mean((2, 3)), self.state["head.weight"], self.state["head.bias"])


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (97, 66)])
def test_the_authors_weights_give_what_the_paper_defines(size):
    theirs = hierarch.export_weights(perturb(hierarch.build(small())).double(), layout="van")
    ours = hierarch.build(small()).double().eval()
    report = hierarch.load_weights(ours, theirs)
    assert (report.layout, report.network) == ("van", "van")
    images = noise(2, 3, *size).double()
    torch.testing.assert_close(ours(images), Defined(theirs)(images), rtol=0, atol=1e-10)


def test_the_authors_names_are_written_and_read():
    model = perturb(hierarch.build(small()))
    written = hierarch.export_weights(model, layout="van")
    norm = ("weight", "bias", "running_mean", "running_var")
    layers = ["attn.proj_1", "attn.proj_2", "mlp.fc1", "mlp.fc2", "mlp.dwconv.dwconv"]
    layers += [f"attn.spatial_gating_unit.{conv}" for conv in ("conv0", "conv_spatial", "conv1")]
    expected = {f"head.{n}" for n in ("weight", "bias")}
    for i, depth in enumerate(DEPTHS, start=1):
        expected |= {
            f"{name}.{n}" for name in (f"norm{i}", f"patch_embed{i}.proj") for n in norm[:2]
        }
        expected |= {f"patch_embed{i}.norm.{n}" for n in norm}
        for j in range(depth):
            block = f"block{i}.{j}"
            expected |= {f"{block}.{layer}.{n}" for layer in layers for n in norm[:2]}
            expected |= {f"{block}.norm{k}.{n}" for k in (1, 2) for n in norm}
            expected |= {f"{block}.layer_scale_{k}" for k in (1, 2)}
    assert written.keys() == expected
    assert written["block1.0.mlp.fc1.weight"].shape == (64, 8, 1, 1)
    assert written["block1.0.attn.spatial_gating_unit.conv_spatial.weight"].shape == (8, 1, 7, 7)
    again = hierarch.build(small())
    # a batch norm's counter, which the authors' files have
    theirs = written | {"patch_embed1.norm.num_batches_tracked": torch.tensor(3)}
    hierarch.load_weights(again, theirs)
    assert all(torch.equal(t, again.state_dict()[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize("name", SIZES)
def test_sizes_and_costs_are_the_papers(name):
    millions, giga = SIZES[name]
    report = measure(f"van/{name}", [224])
    assert round(report.params / 1e6, 1) == millions
    # the paper has 9.0 for 8.94
    assert report.sizes[0].macs / 1e9 == pytest.approx(giga, abs=0.07)
    assert report.verdict == "linear"


@pytest.mark.parametrize("name", SIZES)
def test_the_claim_is_the_count_at_odd_sizes(name):
    [size] = measure(f"van/{name}", [(97, 251)]).sizes
    assert size.parts == size.claimed_parts
    assert size.macs == size.claimed_macs
