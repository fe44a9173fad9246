"""Hierarchical vision backbones as data: YAML -> load -> build -> measure.

    spec   = hierarch.load("swin_tiny")
    model  = hierarch.build(spec)
    report = hierarch.measure(spec, sizes=[224, 448])
    other  = hierarch.swap(spec, "window_mlp", match="macs")
    table  = hierarch.compare([spec, other])
    timed  = hierarch.benchmark([spec], vs=["torchvision:swin_t"])
    file   = hierarch.export(model, "swin_tiny.onnx")
    page   = hierarch.write_report([spec, other], "report.html")

Names are imported when they are first used, so that `import hierarch` does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hierarch.bench import benchmark as benchmark
    from hierarch.building import Backbone as Backbone
    from hierarch.building import build as build
    from hierarch.comparing import compare as compare
    from hierarch.complexity import count_rule as count_rule
    from hierarch.complexity import measure as measure
    from hierarch.complexity import measure_peer as measure_peer
    from hierarch.errors import BenchError as BenchError
    from hierarch.errors import CountError as CountError
    from hierarch.errors import ExportError as ExportError
    from hierarch.errors import HierarchError as HierarchError
    from hierarch.errors import SpecError as SpecError
    from hierarch.errors import WeightsError as WeightsError
    from hierarch.exporting.export import export as export
    from hierarch.importing.imported import import_config as import_config
    from hierarch.page.writing import write_report as write_report
    from hierarch.report import BenchReport as BenchReport
    from hierarch.report import Report as Report
    from hierarch.spec.backbone import BackboneSpec as BackboneSpec
    from hierarch.spec.backbone import StageSpec as StageSpec
    from hierarch.spec.load import dump as dump
    from hierarch.spec.load import load as load
    from hierarch.spec.load import loads as loads
    from hierarch.spec.load import presets as presets
    from hierarch.spec.parts import MixerSpec as MixerSpec
    from hierarch.spec.registry import register as register
    from hierarch.spec.schema import schema as schema
    from hierarch.swapping import swap as swap
    from hierarch.train.recipe import Recipe as Recipe
    from hierarch.train.recipe import load_recipe as load_recipe
    from hierarch.weights.convert import convert_weights as convert_weights
    from hierarch.weights.export import export_weights as export_weights
    from hierarch.weights.from_timm import from_timm as from_timm
    from hierarch.weights.infer import from_checkpoint as from_checkpoint
    from hierarch.weights.infer import infer as infer
    from hierarch.weights.load import load_weights as load_weights

__version__ = "0.1.0"

_HOME = {
    "Backbone": "hierarch.building",
    "BackboneSpec": "hierarch.spec.backbone",
    "BenchError": "hierarch.errors",
    "BenchReport": "hierarch.report",
    "CountError": "hierarch.errors",
    "ExportError": "hierarch.errors",
    "HierarchError": "hierarch.errors",
    "MixerSpec": "hierarch.spec.parts",
    "Recipe": "hierarch.train.recipe",
    "Report": "hierarch.report",
    "SpecError": "hierarch.errors",
    "StageSpec": "hierarch.spec.backbone",
    "WeightsError": "hierarch.errors",
    "benchmark": "hierarch.bench",
    "build": "hierarch.building",
    "compare": "hierarch.comparing",
    "count_rule": "hierarch.complexity",
    "dump": "hierarch.spec.load",
    "load": "hierarch.spec.load",
    "convert_weights": "hierarch.weights.convert",
    "export": "hierarch.exporting.export",
    "export_weights": "hierarch.weights.export",
    "from_checkpoint": "hierarch.weights.infer",
    "from_timm": "hierarch.weights.from_timm",
    "import_config": "hierarch.importing.imported",
    "infer": "hierarch.weights.infer",
    "load_recipe": "hierarch.train.recipe",
    "load_weights": "hierarch.weights.load",
    "loads": "hierarch.spec.load",
    "measure": "hierarch.complexity",
    "measure_peer": "hierarch.complexity",
    "presets": "hierarch.spec.load",
    "register": "hierarch.spec.registry",
    "schema": "hierarch.spec.schema",
    "swap": "hierarch.swapping",
    "write_report": "hierarch.page.writing",
}

__all__ = [*sorted(_HOME), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'hierarch' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
