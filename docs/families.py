"""Writes the table of families.md: every preset, and its difference from timm's network.

python docs/families.py             write the table; docs/figures.py writes and checks it too

Parameters are counted on the meta device. MACs are the claim; the tests check that the count equals
it. The difference is measured on a small network with each preset's parts, in float64.
"""

import math
import re
import sys
from pathlib import Path

import torch
from oracles import difference, oracle, small

import hierarch
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.claim import claim, growing
from hierarch.spec.grid import pair

PAGE = Path(__file__).resolve().with_name("families.md")
SPECS = PAGE.parents[1] / "specs"
TABLE = re.compile(r"(?<=<!-- families -->\n).*?(?=<!-- end -->)", re.DOTALL)
FAMILIES = {
    r"swin_(tiny|small|base|large).*": "Swin Transformer",
    r"swin_mixer_.*": "Swin-Mixer",
    r"swin_v2/.*": "Swin Transformer V2",
    r"metaformer/poolformer_[sm].*": "PoolFormer",
    r"metaformer/poolformer_v2.*": "PoolFormerV2",
    r"metaformer/identityformer.*": "IdentityFormer",
    r"metaformer/convformer.*": "ConvFormer",
    r"metaformer/caformer.*": "CAFormer",
    r"convnext/.*": "ConvNeXt",
    r"vit/.*": "ViT, DeiT",
    r"mlp/mlp_mixer.*": "MLP-Mixer",
    r"mlp/resmlp.*": "ResMLP",
}
LEAST = -12
"""Differences in float64 below this power of ten are rounding, and shown as that."""


def presets() -> list[str]:
    """Every preset but the ablations, by family."""
    names = hierarch.presets()
    return [name for family in FAMILIES for name in names if re.fullmatch(family, name)]


def line(preset: str) -> str:
    """A preset's row."""
    spec = hierarch.load(preset)
    [family] = {title for names, title in FAMILIES.items() if re.fullmatch(names, preset)}
    size = pair(spec.input_size)
    with torch.device("meta"):
        model = hierarch.build(spec)
    peer = oracle(preset)
    cells = [
        family,
        f"[`{spec.name}`](../specs/{preset}.yaml)",
        str(lines((SPECS / f"{preset}.yaml").read_text("utf-8"))),
        f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        "×".join(map(str, size)),
        f"{claim(spec, size).macs:,}",
        f"`{peer.name}`{'*' if peer.arguments else ''}" if peer else "none",
        furthest(preset) if peer else "",
        "superlinear" if growing(spec) else "linear",
    ]
    return f"| {' | '.join(cells)} |"


def lines(text: str) -> int:
    """Lines of YAML that are neither empty nor a comment."""
    return sum(
        bool(line.strip()) and not line.lstrip().startswith("#") for line in text.split("\n")
    )


def furthest(preset: str) -> str:
    """The smallest power of ten above the difference from timm's network, as `< 1e-12`."""
    spec, arguments = small(preset)
    images_of = {"img_size": spec.input_size} if "swin" in preset else {}
    peer = oracle(preset)
    assert peer
    theirs = peer.build(**arguments, **images_of).double()
    largest = difference(noisy(spec), theirs, noise(2, 3, *pair(spec.input_size), seed=0))
    return f"< 1e{max(LEAST, math.floor(math.log10(largest or 1e-99)) + 1)}"


def noisy(spec: BackboneSpec) -> hierarch.Backbone:
    """A network with noise on every weight: a wrong bias would not show at its initial 0."""
    model = hierarch.build(spec).double().eval()
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            parameter += 0.05 * noise(*parameter.shape, seed=i)
    return model


def noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def filled(page: str) -> str:
    """The page with its table as it is now."""
    titles = ["family", "spec", "lines", "parameters", "image", "MACs", "timm's", "difference"]
    titles += ["cost in the area"]
    rule = [":--", ":--", "--:", "--:", "--:", "--:", ":--", "--:", ":--"]
    rows = [f"| {' | '.join(cells)} |" for cells in (titles, rule)]
    table = "\n".join([*rows, *map(line, presets())])
    return TABLE.sub(lambda _: f"\n{table}\n\n", page)


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit(f"usage: python {sys.argv[0]}")
    PAGE.write_text(filled(PAGE.read_text("utf-8")), encoding="utf-8")
