"""Reading a checkpoint into a model: all of it, or none."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from hierarch.building import Backbone, build
from hierarch.errors import WeightsError
from hierarch.report.weights import LoadReport, Resampled
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.head import HeadSpec
from hierarch.weights.adapt import adapt
from hierarch.weights.files import Source, listed, read
from hierarch.weights.names import Link, from_ours, from_theirs
from hierarch.weights.recognize import WORKED_OUT, Recognized, recognize

OUTPUT_NORM = re.compile(r"stages\.\d+\.norm\.")
HEAD = re.compile(r"(norm|head)\.")
CLASSIFIER = re.compile(r"head\.(fc|hidden)\.")


def load_weights(
    model: Backbone, source: Source, *, layout: str = "auto", new_head: bool = False
) -> LoadReport:
    """Read weights from a file (.safetensors, .pth, .pt, .bin) or a state dict into a model.

    The layout is told from the keys: "official" (microsoft/Swin-Transformer: Swin, Swin V2 and
    Swin-MLP), "timm", "torchvision", "huggingface" (transformers), "mmdetection" (and
    mmsegmentation), or the library's own, "hierarch"; wrappers ("model", "state_dict", "module.",
    "backbone." and the like) are taken off. A pickle is read without running code.

    What has another window, position grid or number of image channels is made to fit, as
    published. `new_head` keeps the model's own head where the checkpoint has none, or one of
    another number of classes. The report says what became of each weight. Raises `WeightsError`
    for a file that cannot be read, a layout that is not recognized, and weights that do not fit;
    the model is then unchanged.
    """
    checkpoint = read(source)
    found = recognize(checkpoint.tensors, layout)
    fitting = _Fitting(found, model, new_head=new_head)
    fitting.check()
    state = model.state_dict()
    types = {t.dtype for name, t in fitting.fitted.items() if t.dtype != state[name].dtype}
    model.load_state_dict(state | fitting.fitted)
    return LoadReport(
        layout=found.layout.library,
        network=found.layout.network,
        loaded=tuple(fitting.fitted),
        resampled=tuple(fitting.resampled),
        initialized=tuple(fitting.stays),
        ignored=(*(found.original[name] for name in fitting.unused), *checkpoint.beside),
        dtypes=tuple(sorted(str(dtype).removeprefix("torch.") for dtype in types)),
    )


class _Fitting:
    """What of a checkpoint goes where in a model; nothing is changed yet."""

    def __init__(self, found: Recognized, model: Backbone, *, new_head: bool) -> None:
        self.found = found
        self.model = model
        self.new_head = new_head
        self.fitted: dict[str, Tensor] = {}
        self.resampled: list[Resampled] = []
        self.stays: list[str] = []
        self.missing: list[str] = []
        used: set[str] = set()
        state = model.state_dict()
        links, unheld = from_ours(found.layout.rows, state)
        self.there = {name: link.theirs for link in links for name in link.ours}
        for link in links:
            absent = [name for name in link.theirs if name not in found.tensors]
            if len(absent) == len(link.theirs):
                unheld += link.ours
            elif absent:
                raise WeightsError(f"the checkpoint lacks {listed('parts', absent).strip()}")
            elif self._take(link, state):
                used |= {*link.theirs}
        for name in unheld:
            fresh = OUTPUT_NORM.match(name) or (new_head and HEAD.match(name))
            (self.stays if fresh else self.missing).append(name)
        self.unused = [name for name in found.tensors if name not in used]

    def _take(self, link: Link, state: dict[str, Tensor]) -> bool:
        """Fit a link's weights to ours, unless our own head is to be kept."""
        for name, tensor in zip(
            link.ours, self.found.converted(link.ours, link.theirs), strict=True
        ):
            if self.new_head and HEAD.match(name) and tensor.shape != state[name].shape:
                self.stays.append(name)
                return False
            self.fitted[name], change = _adapted(name, tensor, self.model, state[name])
            self.resampled += [change] if change else []
        return True

    def check(self) -> None:
        """Raise `WeightsError` if a weight of the model, or of the checkpoint, has no place."""
        left = self._left_over()
        if not self.missing and not left:
            return
        message = (
            f"the {self.found.layout.library} checkpoint does not fit {self.model.spec.name}: "
            f"{listed('missing', self._missing_there())}{listed('left over', left)}"
        ).strip()
        if self.missing and not left and all(map(HEAD.match, self.missing)):
            message += "; to keep the model's own head, say new_head=True"
        raise WeightsError(message)

    def _missing_there(self) -> list[str]:
        """What the checkpoint should have, under its own names."""
        names = (name for ours in self.missing for name in self.there.get(ours, (ours,)))
        return list(dict.fromkeys(names))

    def _left_over(self) -> list[str]:
        """Names of the network's weights that the model has no place for, and should have."""
        beyond = _beyond(self.model.spec)

        def has_no_place(key: str) -> bool:
            replaced = self.new_head and HEAD.match(key)
            return key not in beyond and not OUTPUT_NORM.match(key) and not replaced

        left = []
        for name in self.unused:
            links, _ = from_theirs(self.found.layout.rows, [name])
            if links and not WORKED_OUT.search(name) and any(map(has_no_place, links[0].ours)):
                left.append(self.found.original[name])
        return left


def _adapted(
    name: str, tensor: Tensor, model: Backbone, like: Tensor
) -> tuple[Tensor, Resampled | None]:
    try:
        return adapt(name, tensor, like, model.spec)
    except WeightsError as error:
        if CLASSIFIER.match(name):
            hint = "give the model as many classes, or keep its own head with new_head=True"
            raise WeightsError(f"{error}; {hint}") from None
        raise


def _beyond(spec: BackboneSpec) -> set[str]:
    """Our names of what a network leaves out: its classifier, or its head and last stages."""
    with torch.device("meta"):
        classifier = build(spec, head=HeadSpec(), out_indices=None)
        outputs = build(spec, head=None, out_indices=None)
    if spec.head is None:
        return {*classifier.state_dict(), *outputs.state_dict()}
    return set() if spec.head.num_classes else {*classifier.state_dict()}
