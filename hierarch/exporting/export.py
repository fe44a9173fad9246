"""`export`: a network as a file of another runtime, which runs it before the file is there."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

import hierarch
from hierarch.building import Backbone, unpack_weights
from hierarch.errors import ExportError, HierarchError
from hierarch.exporting.checking import cases, check_images, check_sizes, images_for
from hierarch.exporting.program import Exported, program
from hierarch.exporting.registry import get_target
from hierarch.exporting.target import Job, Run, Target
from hierarch.files import writing_with_others
from hierarch.report.export import ExportReport, Measure
from hierarch.spec.grid import AXES, checked_size
from hierarch.spec.load import dump
from hierarch.weights.pickles import first_line

DYNAMIC = ("none", "batch", "size", "all")
"""Which of the images' axes may have any size."""
TOLERANCES: dict[str, float] = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.05, "int8": 0.1}
"""By dtype: of the relative difference; of a classifier in int8, of the share of images that get
another class."""
ROUNDS = 3


def export(
    model: Backbone,
    path: str | os.PathLike[str],
    *,
    to: str = "onnx",
    size: int | Sequence[int] | None = None,
    batch: int = 1,
    dynamic: str = "none",
    dtype: str = "float32",
    features: bool = False,
    images: Tensor | None = None,
    labels: Tensor | None = None,
    classes: Sequence[str] = (),
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    tolerance: float | None = None,
    rounds: int = ROUNDS,
) -> ExportReport:
    """Write a network as a file that another runtime runs, and compare it there with torch.

    `to` is a name of `hierarch.exporting.registry.target_names()`. The file is for images of one
    `size` (pixels, or (height, width); the spec's by default) and one `batch`, or of any, as
    `dynamic` says: "batch", "size" or "all". It takes images (B, C, H, W) in float32 and returns
    float32, whatever `dtype` it computes in. `features` returns the maps of all stages,
    (B, C_i, H_i, W_i) each, rather than logits. int8 is calibrated with `images` (N, C, H, W),
    normed as for training; all other types are compared on them, too. `labels` (N) add the
    accuracy. The file keeps `classes`, `mean` and `std` beside the spec.

    The file is run before it is moved to `path`: at several sizes where it serves several, each
    timed `rounds` times. Raises `ExportError` if the network cannot be written or run, and if
    outputs differ by more than `tolerance` (see `TOLERANCES`): then there is no file, and the error
    has the report. Raises `MissingPackageError` without the target's packages.

    >>> from hierarch import build
    >>> model = build({"mixer": "pooling", "stages": [{"dim": 8, "depth": 1}], "head": {}})
    >>> report = export(model, "small.pt2", to="torch-export", size=32, rounds=1)
    >>> report.holds, os.path.exists("small.pt2")
    (True, True)
    """
    target = get_target(to)
    axes = model.spec.axes
    wanted = checked_size(model.spec.size if size is None else size, axes=axes)
    _check(target, Path(path), dtype=dtype, dynamic=dynamic, batch=batch)
    any_size = _dynamic_axes(dynamic, axes)
    in_chans = model.spec.stem.in_chans
    batches = _batches(images, (batch, in_chans, *wanted), dtype)
    head = model.spec.head
    classifies = not features and head is not None and head.num_classes > 0
    network = unpack_weights(copy.deepcopy(model)).cpu().float().eval()
    as_defined = _runner(Exported(network, features=features))
    inputs = [
        images_for(case, in_chans, images) for case in cases(wanted, batch, any_size.values())
    ]
    about = {
        "version": hierarch.__version__,
        "spec": dump(model.spec),
        "size": json.dumps(wanted),
        "classes": json.dumps([*classes], ensure_ascii=False),
        "mean": json.dumps([*mean]),
        "std": json.dumps([*std]),
    }
    with _told(f"{model.spec.name} cannot be exported ({to}, {dtype})"), _written(path) as file:
        example = torch.zeros(2 if 0 in any_size else batch, in_chans, *wanted)
        cast = copy.deepcopy(network).to(target.traced(dtype))
        job = Job(
            program=program(Exported(cast, features=features), example, any_size),
            dtype=dtype,
            dynamic=any_size,
            outputs=_names(model, features=features),
            metadata={f"hierarch.{key}": value for key, value in about.items()},
            calibration=batches,
        )
        target.write(job, file)
        run = target.load(file, torch.get_num_threads(), dtype)
        report = ExportReport(
            name=model.spec.name,
            target=to,
            runtime=f"{target.runtime} {version(target.runtime)}",
            dtype=dtype,
            dynamic=tuple(any_size.values()),
            path=os.fspath(path),
            bytes=sum(part.stat().st_size for part in file.parent.iterdir()),
            weight_bytes=sum(4 * parameter.numel() for parameter in network.parameters()),
            measure=_measure(dtype, classifies=classifies),
            tolerance=TOLERANCES[dtype] if tolerance is None else tolerance,
            sizes=check_sizes(as_defined, run, inputs, rounds=rounds, classes=classifies),
            images=check_images(as_defined, run, batches, labels, classes=classifies)
            if batches
            else None,
        )
        if not report.holds:
            raise ExportError(f"{report.verdict}; nothing is written", report)
    return report


def _dynamic_axes(dynamic: str, axes: int) -> dict[int, str]:
    """The axes of images (B, C, H, W), or with so many other sides, that may have any size, and
    their names."""
    batch = {0: "batch"} if dynamic in ("batch", "all") else {}
    sides = dict(enumerate(AXES[axes], 2)) if dynamic in ("size", "all") else {}
    return batch | sides


def _check(target: Target, path: Path, *, dtype: str, dynamic: str, batch: int) -> None:
    """Raises `ExportError` for what the target has not, and `MissingPackageError`."""
    if dynamic not in DYNAMIC:
        raise ExportError(f"dynamic {dynamic[:80]!r}: should be one of {', '.join(DYNAMIC)}")
    if dynamic != "none" and not target.dynamic:
        raise ExportError(f"{target.name} files are for one size; leave out dynamic {dynamic!r}")
    if dtype not in target.dtypes:
        known = ", ".join(target.dtypes)
        raise ExportError(f"{target.name} files compute in {known}; got {dtype[:80]!r}")
    if type(batch) is not int or batch < 1:
        raise ExportError(f"batch {batch!r}: should be an integer from 1")
    if path.suffix != target.suffix or path.is_dir():
        raise ExportError(f"{path}: should be a file that ends in {target.suffix}")
    target.require(dtype)


def _batches(images: Tensor | None, shape: tuple[int, ...], dtype: str) -> tuple[Tensor, ...]:
    """Whole batches of the images. Raises `ExportError` for others, or none where int8 needs
    them."""
    if images is None:
        if dtype == "int8":
            raise ExportError("int8 is calibrated with images; give some")
        return ()
    batch, *one = shape
    if [*images.shape[1:]] != one or images.dtype is not torch.float32:
        kind = str(images.dtype).removeprefix("torch.")
        raise ExportError(
            f"images should be (N, {', '.join(map(str, one))}) in float32, got "
            f"{tuple(images.shape)} in {kind}"
        )
    whole = len(images) // batch * batch
    if not whole:
        raise ExportError(f"{len(images)} images are no batch of {batch}")
    return torch.split(images[:whole], batch)


def _names(model: Backbone, *, features: bool) -> list[str]:
    """The names of the outputs."""
    if features:
        return [f"stage{i}" for i in range(len(model.stages))]
    if model.spec.head is None:
        return [f"stage{i}" for i in model.spec.outputs]
    return ["logits" if model.spec.head.num_classes else "features"]


def _measure(dtype: str, *, classifies: bool) -> Measure:
    return "other classes" if dtype == "int8" and classifies else "relative difference"


def _runner(network: Exported) -> Run:
    def run(images: Tensor) -> tuple[Tensor, ...]:
        with torch.inference_mode():
            outputs = network(images)
        return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)

    return run


@contextmanager
def _written(path: str | os.PathLike[str]) -> Iterator[Path]:
    try:
        with writing_with_others(path) as temporary:
            yield temporary
    except OSError as error:
        raise ExportError(f"{path}: cannot be written: {error.strerror or error}") from None


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Raises `ExportError` for whatever an exporter or a runtime raises."""
    try:
        yield
    except HierarchError:
        raise
    except Exception as error:
        raise ExportError(f"{what}: {type(error).__name__}: {first_line(error)}") from error
