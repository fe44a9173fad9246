"""Writes the tables of families.md: every preset, and its difference from timm's network; and what
each family brought.

python docs/families.py             write the tables; docs/figures.py writes and checks them too

Parameters are counted on the meta device. MACs are the claim; the tests check that the count equals
it. The difference is measured on a small network with each preset's parts, in float64.
"""

import ast
import io
import math
import re
import sys
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from oracles import difference, oracle, small

import hierarch
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.claim import claim, growing
from hierarch.spec.grid import per_axis
from hierarch.spec.parts import Part

PAGE = Path(__file__).resolve().with_name("families.md")
SPECS = PAGE.parents[1] / "specs"
TABLE = re.compile(r"(?<=<!-- families -->\n).*?(?=<!-- end -->)", re.DOTALL)
BROUGHT = re.compile(r"(?<=<!-- brought -->\n).*?(?=<!-- end -->)", re.DOTALL)
FAMILIES = {
    r"swin_(tiny|small|base|large).*": "Swin Transformer",
    r"swin_mixer_.*": "Swin-Mixer",
    r"video/.*": "Video Swin",
    r"volume/.*": "Swin UNETR, encoder",
    r"swin_v2/.*": "Swin Transformer V2",
    r"metaformer/poolformer_[sm].*": "PoolFormer",
    r"metaformer/poolformer_v2.*": "PoolFormerV2",
    r"metaformer/identityformer.*": "IdentityFormer",
    r"metaformer/convformer.*": "ConvFormer",
    r"metaformer/caformer.*": "CAFormer",
    r"convnext/convnext_[tsbl].*": "ConvNeXt",
    r"convnext/convnext_v2.*": "ConvNeXt V2",
    r"inception_next/.*": "InceptionNeXt",
    r"pvt_v2/.*": "PVT v2",
    r"twins/.*": "Twins",
    r"focalnet/.*": "FocalNet",
    r"davit/.*": "DaViT",
    r"maxvit/.*": "MaxViT",
    r"van/.*": "VAN",
    r"cswin/.*": "CSWin",
    r"nat/nat.*": "NAT",
    r"nat/dinat.*": "DiNAT",
    r"vit/vit.*": "ViT, averaged",
    r"vit/deit.*": "ViT, DeiT",
    r"vit/dinov2.*": "DINOv2",
    r"vit/dinov3.*": "DINOv3",
    r"vit/parallel.*": "ViT, parallel",
    r"mlp/mlp_mixer.*": "MLP-Mixer",
    r"mlp/resmlp.*": "ResMLP",
}
LEAST = -12
"""Differences in float64 below this power of ten are rounding, and shown as that."""


def presets() -> list[str]:
    """Every preset but the ablations, by family."""
    names = hierarch.presets()
    return [name for family in FAMILIES for name in names if re.fullmatch(family, name)]


def line(preset: str, known: Mapping[str, str] | None = None) -> str:
    """A preset's row. Its difference is measured, unless it is `known` for its spec."""
    spec = hierarch.load(preset)
    [family] = {title for names, title in FAMILIES.items() if re.fullmatch(names, preset)}
    size = per_axis(spec.input_size)
    with torch.device("meta"):
        model = hierarch.build(spec)
    peer, link = oracle(preset), f"[`{spec.name}`](../specs/{preset}.yaml)"
    cells = [
        family,
        link,
        str(lines((SPECS / f"{preset}.yaml").read_text("utf-8"))),
        f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        "×".join(map(str, size)),
        f"{claim(spec, size).macs:,}",
        f"`{peer.name}`{'*' if peer.arguments else ''}" if peer else "none",
        ((known or {}).get(link) or furthest(preset)) if peer else "",
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
    largest = difference(noisy(spec), theirs, noise(2, 3, *per_axis(spec.input_size), seed=0))
    return f"< 1e{max(LEAST, math.floor(math.log10(largest or 1e-99)) + 1)}"


def noisy(spec: BackboneSpec) -> hierarch.Backbone:
    """A network with noise on every weight and running statistic: a wrong bias would not show at
    its initial 0."""
    model = hierarch.build(spec).double().eval()
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            parameter += 0.05 * noise(*parameter.shape, seed=i)
        for i, (name, buffer) in enumerate(model.named_buffers()):
            if name.endswith(("running_mean", "running_var")):
                buffer += 0.05 * noise(*buffer.shape, seed=i).abs()
    return model


def noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def parts(value: Any) -> Iterator[type[Part]]:
    """The classes of all parts that a plan, a spec or a part is made of, itself included."""
    if isinstance(value, Part):
        yield type(value)
    if isinstance(value, list | tuple):
        inside = list(value)
    elif is_dataclass(value):
        inside = [getattr(value, field.name) for field in fields(value)]
    else:
        inside = [getattr(value, name) for name in getattr(type(value), "model_fields", ())]
    for one in inside:
        yield from parts(one)


def code_lines(text: str) -> int:
    """Lines of Python with code: no blank ones, comments and docstrings."""
    docstrings = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docstrings |= {*range(node.lineno, (node.end_lineno or 0) + 1)}
    empty = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    used = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in empty and token.type != tokenize.ENDMARKER:
            used |= {*range(token.start[0], token.end[0] + 1)}
    return len(used - docstrings)


def brought() -> str:
    """The table of what each family brought: parts that no family before it has."""
    titles = ["family", "presets", "lines of YAML", "new parts", "lines of Python"]
    rows, known = [titles, [":--", "--:", "--:", ":--", "--:"]], set()
    for names, title in FAMILIES.items():
        own = [name for name in hierarch.presets() if re.fullmatch(names, name)]
        yaml = [lines((SPECS / f"{name}.yaml").read_text("utf-8")) for name in own]
        specs = [hierarch.load(name) for name in own]
        used = {cls for spec in specs for cls in parts([spec.stem, spec.head, *spec.plan()])}
        used |= {cls for spec in specs for cls in parts([spec.position_embedding])}
        new = sorted(used - known, key=lambda cls: (cls.kind, cls.__module__))
        known |= used
        files = {sys.modules[cls.__module__].__file__ for cls in new}
        python = sum(code_lines(Path(str(file)).read_text("utf-8")) for file in files)
        span = f"{min(yaml)}" if min(yaml) == max(yaml) else f"{min(yaml)} to {max(yaml)}"
        shown = ", ".join(f"`{cls.model_fields['type'].default}`" for cls in new)
        rows.append([title, str(len(own)), span, shown or "none", str(python)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def differences(page: str) -> dict[str, str]:
    """What the page says of each spec's difference."""
    rows = [row.split(" | ") for row in page.split("\n") if "](../specs/" in row]
    return {cells[1]: cells[7] for cells in rows if len(cells) > 7}


def filled(page: str, *, measures: bool = True) -> str:
    """The page with its tables as they are now. The differences, which take minutes, and which the
    tests bound for each preset, are measured again if `measures`."""
    titles = ["family", "spec", "lines", "parameters", "image", "MACs", "timm's", "difference"]
    titles += ["cost in the area"]
    rule = [":--", ":--", "--:", "--:", "--:", "--:", ":--", "--:", ":--"]
    rows = [f"| {' | '.join(cells)} |" for cells in (titles, rule)]
    known = {} if measures else differences(page)
    table = "\n".join([*rows, *(line(preset, known) for preset in presets())])
    page = BROUGHT.sub(lambda _: f"\n{brought()}\n\n", page)
    return TABLE.sub(lambda _: f"\n{table}\n\n", page)


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit(f"usage: python {sys.argv[0]}")
    PAGE.write_text(filled(PAGE.read_text("utf-8")), encoding="utf-8")
