"""One preset of every family, at its full size, in ONNX Runtime and OpenVINO.

    python benchmarks/exported_families.py [PRESET ...] [--to onnx,openvino] [--seed 0]

Each network gets noise in all of its parameters and is written twice: for one size of images, and
for any batch and size, where it is run at five sizes, odd ones among them. A row tells the largest
difference from torch's logits, over the largest logit, and how much larger the files are than the
network's weights.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

import hierarch
from hierarch.bench.machine import processor
from hierarch.errors import HierarchError
from hierarch.exporting.registry import get_target

PRESETS = [
    "swin_tiny",
    "swin_mixer_tiny_d6",
    "swin_v2/swin_v2_tiny_window8_256",
    "video/swin3d_tiny",
    "metaformer/poolformer_s12",
    "metaformer/poolformer_v2_s12",
    "metaformer/identityformer_s12",
    "metaformer/convformer_s18",
    "metaformer/caformer_s18",
    "convnext/convnext_tiny",
    "convnext/convnext_v2_atto",
    "inception_next/inception_next_atto",
    "pvt_v2/pvt_v2_b0",
    "twins/twins_pcpvt_small",
    "twins/twins_svt_small",
    "focalnet/focalnet_tiny_srf",
    "davit/davit_tiny",
    "maxvit/maxvit_tiny",
    "van/van_b0",
    "cswin/cswin_tiny",
    "nat/nat_mini",
    "nat/dinat_mini",
    "vit/vit_tiny_patch16",
    "vit/deit_tiny_distilled_patch16",
    "vit/dinov2_small_patch14_registers",
    "vit/dinov3_small_patch16",
    "vit/parallel_vit_wee_patch16",
    "mlp/mlp_mixer_base_patch16",
    "mlp/resmlp_s12",
]
NOISE = 0.02
"""Of the parameters: biases start at 0 and scales of layers near it, where no mistake is seen."""


def network(preset: str, seed: int) -> hierarch.Backbone:
    torch.manual_seed(seed)
    model = hierarch.build(preset).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += NOISE * torch.randn_like(parameter)
    return model


def cells(model: hierarch.Backbone, to: str, dynamic: str) -> tuple[str, str]:
    """The worst relative difference and the size of the file above the weights, or why not."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"network{get_target(to).suffix}"
        try:
            report = hierarch.export(model, file, to=to, dynamic=dynamic, rounds=1)
        except HierarchError as error:
            return " ".join(str(error).split())[:160], "-"
    worst = max(check.agreement.relative for check in report.sizes)
    above = report.bytes - report.weight_bytes
    share = above / report.weight_bytes
    return f"{worst:.0e}", f"{above / 1e6:+.2f} MB, {share:+.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("presets", nargs="*", default=PRESETS)
    parser.add_argument("--to", default="onnx,openvino")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{processor()}; torch {torch.__version__}\n")
    print("| preset | file | images | difference | file above weights | seconds |")
    print("| --- | --- | --- | --: | --: | --: |")
    for preset in options.presets:
        model = network(preset, options.seed)
        for to in options.to.split(","):
            for dynamic, images in (("none", "one size"), ("all", "any batch and size")):
                start = time.perf_counter()
                found = " | ".join(cells(model, to, dynamic))
                seconds = time.perf_counter() - start
                print(f"| {preset} | {to} | {images} | {found} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
