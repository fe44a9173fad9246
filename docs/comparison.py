"""Writes comparison.md: the networks of the Swin paper's table 1, published and counted.

python docs/comparison.py           write the page; docs/figures.py writes and checks it too

Networks other than Swin are timm's. Everything is built on the meta device.
"""

import csv
import functools
from collections.abc import Iterable
from pathlib import Path

from torchvision.models import get_model_weights

import hierarch

PAGE = Path(__file__).resolve().with_name("comparison.md")
PUBLISHED = PAGE.with_suffix(".csv")
TITLES = {"1K": "ImageNet-1K", "22K": "ImageNet-22K pre-training"}
NO_PRODUCTS = {"layer_norm", "batch_norm", "group_norm", "adaptive_avg_pool2d"}

INTRODUCTION = """\
# Swin beside its peers

The networks of table 1 of the Swin paper (Liu et al. 2021, arXiv:2103.14030), all counted in the
same way. *Published* is from that table ([comparison.csv](comparison.csv)): millions of parameters,
and GFLOPs, which are multiply-adds and so GMACs here. *Counted* is fvcore's count in a trace of the
built network at the same image size: our presets for Swin, timm's networks for the rest. *Products*
leaves out norms and pooling: convolutions, linear layers and attention remain. *Twice the side* is
the factor by which the MACs grow at twice the height and width: ×4 if the cost is linear in the
area, and more if the cost per pixel grows.

This page is written by `python docs/comparison.py`. `hierarch flops` counts any of these beside
your own spec, for example with `--vs timm:deit_small_patch16_224`. See [complexity](complexity.md).

"""

NOTE = """
## The growth with the image

Swin's windows cost the same wherever they are, so four times the area costs four times as much. So
do convolutions, up to the rounding of odd maps: EfficientNet-B3's last map has 10 rows for an image
of 300, and 19 for one of 600. The products of global attention grow with the square of the area.
They are {small_share:.0%} of DeiT-S at 224 pixels and {large_share:.0%} at 448, where it costs
×{deit:.2f}. So the comparison of DeiT with Swin depends on the size, and the gap widens with it. A
vision transformer has weights for one image size, so it was built for each of the two.

## Where counted and published differ

In MACs, all but EfficientNet are within {others:.1%} of what is printed.

- **EfficientNet**, up to {worst:+.1%}. The printed figures are those of its own paper (Tan and Le
  2019, arXiv:1905.11946), which gives two digits. fvcore counts 2 for each element of a batch norm,
  and that is {norms_from:.1%} to {norms_to:.1%} of these networks, whose convolutions cost few MACs
  an element. Without norms, B3 and B6 are what is printed, rounded to two digits, and B7 is
  {b7:.1%} above. B4 and B5 stay {b4:.1%} and {b5:.1%} above, and we do not know why. The parameters
  agree, and torchvision's own figures for its networks, {b4_torchvision:.2f} and
  {b5_torchvision:.2f} GMACs, are the products counted here. Squeeze and excitation runs on pooled
  maps and costs next to nothing. timm's `tf_efficientnet_*` pad as the authors' code does, more on
  one side than on the other; their maps have the same sizes, and they count the same.
- **ViT and DeiT.** The published figures include the products of attention. Without them ViT-B/16
  at 384 would be {vit_without:+.1%} off. What is left is small, and the norms, at 5 an element, are
  a part of it.
- **R-101x3 and R-152x4** standardize their weights, which timm writes as a batch norm of the
  weights. That costs the same at any image size. It is counted, and makes most of the difference.
- **Swin.** 5 for each element of a norm, where the authors count 1, and rounding:
  [published, counted, claimed](published.md). Swin-T has {swin_t:.1f} million parameters, which the
  table rounds up to 29.
"""

COLUMNS = {
    "network": ":--",
    "counted as": ":--",
    "image": "--:",
    "parameters published": "--:",
    "parameters counted": "--:",
    "parameters off by": "--:",
    "GFLOPs published": "--:",
    "GMACs counted": "--:",
    "GMACs off by": "--:",
    "products": "--:",
    "products off by": "--:",
    "twice the side": "--:",
}
"""Headings, and how Markdown aligns what is under them."""


@functools.cache
def measured(network: str, side: int):
    """Parameters, and the costs at an image size and at twice its sides."""
    measure = hierarch.measure_peer if ":" in network else hierarch.measure
    report = measure(network, [side, 2 * side])
    return report.params, *report.sizes


def products(cost) -> int:
    return sum(macs for name, macs in cost.operators.items() if name not in NO_PRODUCTS)


def published() -> list[dict[str, str]]:
    with PUBLISHED.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def line(row: dict[str, str]) -> str:
    """One line of the page."""
    params, cost, doubled = measured(row["network"], int(row["image"]))
    gflops = float(row["gflops"]) * 1e9
    cells = (
        row["name"],
        f"`{row['network']}`",
        f"{row['image']}²",
        f"{row['params']} M",
        f"{params / 1e6:.1f} M",
        f"{params / float(row['params']) / 1e6 - 1:+.1%}",
        row["gflops"],
        f"{cost.macs / 1e9:.2f}",
        f"{cost.macs / gflops - 1:+.1%}",
        f"{products(cost) / 1e9:.2f}",
        f"{products(cost) / gflops - 1:+.1%}",
        f"×{doubled.macs / cost.macs:.2f}",
    )
    return joined(cells)


def joined(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def note() -> str:
    """The explanations, with their figures."""
    off = {}
    for row in published():
        _, cost, _ = measured(row["network"], int(row["image"]))
        gflops = float(row["gflops"]) * 1e9
        off[row["network"]] = (cost.macs / gflops - 1, products(cost) / gflops - 1, cost)
    efficient = {name: found for name, found in off.items() if "efficientnet" in name}
    norms = [cost.operators["batch_norm"] / cost.macs for _, _, cost in efficient.values()]
    _, small, large = measured("timm:deit_small_patch16_224", 224)
    vit, attention = off["timm:vit_base_patch16_384"], "scaled_dot_product_attention"
    return NOTE.format(
        swin_t=measured("swin_tiny", 224)[0] / 1e6,
        small_share=small.operators[attention] / small.macs,
        large_share=large.operators[attention] / large.macs,
        deit=large.macs / small.macs,
        others=max(abs(found[0]) for name, found in off.items() if name not in efficient),
        worst=max(found[0] for found in efficient.values()),
        norms_from=min(norms),
        norms_to=max(norms),
        b7=off["timm:efficientnet_b7"][1],
        b4=off["timm:efficientnet_b4"][1],
        b5=off["timm:efficientnet_b5"][1],
        b4_torchvision=get_model_weights("efficientnet_b4").DEFAULT.meta["_ops"],
        b5_torchvision=get_model_weights("efficientnet_b5").DEFAULT.meta["_ops"],
        vit_without=(1 + vit[0]) * (1 - vit[2].operators[attention] / vit[2].macs) - 1,
    )


def page() -> str:
    """The whole page."""
    tables = [
        "\n".join(
            [
                f"## {title}\n",
                joined(COLUMNS),
                joined(COLUMNS.values()),
                *(line(row) for row in published() if row["table"] == table),
            ]
        )
        for table, title in TITLES.items()
    ]
    return INTRODUCTION + "\n\n".join(tables) + "\n" + note()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print("docs/comparison.md written")
