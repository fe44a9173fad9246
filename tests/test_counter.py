"""The count: fvcore's conventions, and the corrections of its wrong rules."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import swin_t

from hierarch.complexity import count, count_rule
from hierarch.complexity.counter import (  # fvcore is imported in one place
    _DEFAULT_SUPPORTED_OPS,
    _FREE,
    _RULES,
    JitModelAnalysis,
)
from hierarch.errors import CountError


class Calls(nn.Module):
    """A module around a function of (B, C, H, W)."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x):
        return self.function(self, x)


def macs(function, *, size=(6, 8), in_chans=4, **modules):
    with torch.device("meta"):
        module = Calls(function, **{name: make() for name, make in modules.items()})
    return count(module, size, in_chans=in_chans).total()


def plain_fvcore(module, size, *, in_chans=3, handles=_DEFAULT_SUPPORTED_OPS):
    analysis = JitModelAnalysis(module, (torch.zeros(1, in_chans, *size),))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    for name, handle in handles.items():
        analysis.set_op_handle(name, handle)
    return analysis.total()


def test_a_peer_is_counted_as_plain_fvcore_counts_it_on_real_tensors():
    with torch.device("meta"):
        on_meta = count(swin_t().eval(), (224, 224), in_chans=3)
    assert on_meta.total() == plain_fvcore(swin_t().eval(), (224, 224)) == 4_509_232_128


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"kernel_size": 3, "padding": 1}, (9, 7)),
        ({"kernel_size": (3, 5), "stride": (2, 1), "padding": (1, 2), "dilation": 2}, (20, 30)),
        ({"kernel_size": 4, "stride": 4, "groups": 2, "bias": False}, (16, 8)),
    ],
)
def test_convolutions_on_the_meta_device_count_as_on_real_tensors(options, size):
    def make():
        return nn.Sequential(nn.Conv2d(4, 6, **options))

    with torch.device("meta"):
        counted = count(make(), size, in_chans=4)
    assert counted.total() == plain_fvcore(make(), size, in_chans=4) > 0


@pytest.mark.parametrize(("named", "number"), [("same", 2), ("valid", 0)])
def test_padding_by_name_is_counted_where_fvcore_counts_nothing(named, number):
    def counted(padding):
        return macs(lambda m, x: m.conv(x), conv=lambda: nn.Conv2d(4, 6, 5, padding=padding))

    assert counted(named) == counted(number) > 0
    assert plain_fvcore(nn.Sequential(nn.Conv2d(4, 6, 5, padding=named)), (6, 8), in_chans=4) == 0


def test_convolutions_over_one_and_three_axes_are_counted():
    one = macs(lambda m, x: m.conv(x.flatten(2)), conv=lambda: nn.Conv1d(4, 8, 3, padding=1))
    assert one == 8 * 4 * 3 * 48
    three = macs(lambda m, x: m.conv(x.unsqueeze(2)), conv=lambda: nn.Conv3d(4, 8, 1))
    assert three == 8 * 4 * 48


def test_same_padding_of_an_even_kernel_and_transposed_convolutions_are_errors():
    with pytest.raises(CountError, match="even kernel"):
        macs(lambda m, x: m.conv(x), conv=lambda: nn.Conv2d(4, 4, 2, padding="same"))
    with pytest.raises(CountError, match="transposed"):
        macs(lambda m, x: m.conv(x), conv=lambda: nn.ConvTranspose2d(4, 4, 2))


def test_attention_counts_both_of_its_products():
    def attend(module, x):
        q = x.flatten(2).transpose(1, 2).reshape(1, 2, 24, 4)
        return F.scaled_dot_product_attention(q, q[:, :, :10], q[:, :, :10])

    assert macs(attend) == 2 * 24 * 10 * (4 + 4)


def test_a_matrix_product_with_a_batch_only_on_the_right_is_counted():
    def mix(module, x):
        return module.linear.weight @ x.reshape(2, 2, 6, 8)

    assert macs(mix, linear=lambda: nn.Linear(6, 5, bias=False)) == 2 * 2 * 5 * 6 * 8


def test_einsum_is_counted_exactly():
    def mix(module, x):
        return torch.einsum("bchw, wk -> bchk", x, module.linear.weight)

    size = (1234, 4321)
    counted = macs(mix, size=size, linear=lambda: nn.Linear(7, 4321, bias=False))
    assert counted == 4 * 1234 * 4321 * 7


def test_an_einsum_that_cannot_be_counted_is_an_error():
    with pytest.raises(CountError, match="ellipsis"):
        macs(lambda m, x: torch.einsum("...h,...h->...", x, x))


def test_bicubic_resizing_counts_sixteen_neighbors():
    assert macs(lambda m, x: F.interpolate(x, size=(5, 7), mode="bicubic")) == 16 * 4 * 5 * 7


def test_an_operator_without_a_rule_is_an_error_until_it_has_one():
    def transform(module, x):
        return torch.cumprod(x, dim=2)

    with pytest.raises(CountError, match=r'count_rule\("aten::cumprod"\)'):
        macs(transform)
    count_rule("aten::cumprod")(lambda inputs, outputs: inputs[0][2] * 10)
    try:
        assert macs(transform) == 60
    finally:
        del _RULES["aten::cumprod"]


def test_nothing_that_fvcore_counts_is_free():
    assert not _FREE & _DEFAULT_SUPPORTED_OPS.keys()
    assert not _FREE & _RULES.keys()


def test_a_module_may_branch_on_its_sizes_while_it_is_counted():
    def branch(module, x):
        _, _, h, w = x.shape
        assert x.size(2) == h
        return module.conv(x) if h % 2 == 0 and w > 3 else x

    assert macs(branch, conv=lambda: nn.Conv2d(4, 4, 1)) == 16 * 48
    assert macs(branch, size=(7, 8), conv=lambda: nn.Conv2d(4, 4, 1)) == 0


def test_activations_of_fused_attention_include_the_attention_map():
    from fvcore.nn.activation_count import _DEFAULT_SUPPORTED_OPS as ACTIVATIONS

    import hierarch

    explicit = plain_fvcore(swin_t().eval(), (224, 224), handles=ACTIVATIONS)
    assert hierarch.measure("swin_tiny", [224]).sizes[0].activations == explicit


def products(n):
    """Complex products in a radix-2 transform of n numbers: n/2 after two transforms of n/2."""
    return 0 if n == 1 else 2 * products(n // 2) + n // 2


@pytest.mark.parametrize("dim", [(-2, -1), (1, 2)], ids=str)
def test_a_fourier_transform_counts_its_butterflies(dim):
    size = {-2: 8, -1: 16, 1: 4, 2: 8}
    first, second = (size[axis] for axis in dim)
    others = 4 * 8 * 16 // (first * second)
    # a complex product is 4 multiply-adds, and a transform of real numbers half of a complex one
    there = others * (first * products(second) + second * products(first)) * 4 // 2

    def back(m, x):
        return torch.fft.irfft2(torch.fft.rfft2(x, dim=dim), s=(first, second), dim=dim)

    assert macs(lambda m, x: torch.fft.rfft2(x, dim=dim), size=(8, 16)) == there
    assert macs(back, size=(8, 16)) == 2 * there


def test_a_fourier_transform_of_no_power_of_2_counts_as_many_steps_as_the_next_one():
    assert macs(lambda m, x: torch.fft.rfft2(x), size=(7, 9)) == 4 * 7 * 9 * (3 + 4)
    assert macs(lambda m, x: torch.fft.rfft2(x), size=(1, 1)) == 0
    with pytest.raises(CountError, match="fft_fft2"):
        macs(lambda m, x: torch.fft.fft2(x).real)
