"""Loading a checkpoint into a model: all of its weights, or none."""

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
from hierarch.weights.recognize import DERIVED_BUFFERS, Recognized, recognize

OUTPUT_NORM = re.compile(r"stages\.\d+\.norm\.")
HEAD = re.compile(r"(norm|head)\.")
CLASSIFIER = re.compile(r"head\.(fc|hidden)\.")


def load_weights(
    model: Backbone,
    source: Source,
    *,
    layout: str = "auto",
    key: str | None = None,
    prefix: str | None = None,
    new_head: bool = False,
) -> LoadReport:
    """Load the weights of a checkpoint into a model: all of them, or none.

    `source` is a state dict, a mapping that holds one, or a file: .safetensors, or a pickle of
    `torch.save` or of numpy arrays (.pth, .pt, .bin, .ckpt, .pkl), which is read without running
    code. `layout` is the library whose names the weights have ("timm"), by default whichever
    library's layout recognizes them.

    The network is found in any nested mapping and after any prefix. Of several, averaged weights
    are preferred to others, a teacher to its student, and an encoder to its momentum encoder.
    `key` ("model", or "model.teacher" for a nested mapping) and `prefix` ("module.backbone.")
    choose another one; an empty string means that there is none.

    Relative position tables, absolute position embeddings and the stem's input channels are
    resampled to the model's shapes, as published. `new_head` keeps the model's own head if the
    checkpoint has none, or one with another number of classes. Buffers that follow from the spec,
    and weights of other networks, are ignored.

    Raises `WeightsError` if the file cannot be read, if it holds no network that a layout
    recognizes, or several that no rule prefers, and if its weights do not fit the model, which is
    then unchanged.

    >>> from hierarch import build
    >>> mixer = {"type": "window_attention", "head_dim": 8}
    >>> stages = [{"dim": 16, "depth": 2}, {"dim": 32, "depth": 2}]
    >>> model = build({"mixer": mixer, "stages": stages, "head": {"num_classes": 3}})
    >>> report = load_weights(model, {"state_dict": model.state_dict()})
    >>> report.layout, report.location.key, len(report.loaded) == len(model.state_dict())
    ('hierarch', 'state_dict', True)
    """
    recognized = recognize(read(source), layout, key=key, prefix=prefix)
    return load_recognized(model, recognized, new_head=new_head)


def load_recognized(
    model: Backbone, recognized: Recognized, *, new_head: bool = False
) -> LoadReport:
    """Load a checkpoint that has been read; see `load_weights`."""
    matching = _Matching(recognized, model, new_head=new_head)
    matching.check()
    state = model.state_dict()
    dtypes = {t.dtype for name, t in matching.fitted.items() if t.dtype != state[name].dtype}
    model.load_state_dict(state | matching.fitted)
    return LoadReport(
        layout=recognized.layout.library,
        network=recognized.layout.network,
        loaded=tuple(matching.fitted),
        resampled=tuple(matching.resampled),
        initialized=tuple(matching.unchanged),
        ignored=(*(recognized.original[n] for n in matching.unused), *recognized.others),
        dtypes=tuple(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes)),
        location=recognized.location,
        candidates=recognized.candidates,
    )


class _Matching:
    """The checkpoint's weights matched to the model's, and resampled; the model is not changed.

    Raises `WeightsError` for weights that cannot be resampled, or of which a part is missing.
    """

    def __init__(self, recognized: Recognized, model: Backbone, *, new_head: bool) -> None:
        self.recognized = recognized
        self.model = model
        self.new_head = new_head
        self.fitted: dict[str, Tensor] = {}
        """By our names, in the model's shapes."""
        self.resampled: list[Resampled] = []
        self.unchanged: list[str] = []
        """The model's weights that may be missing in the checkpoint, and are."""
        self.missing: list[str] = []
        """The model's other weights that are missing."""
        used: set[str] = set()
        state = model.state_dict()
        links, unmatched = from_ours(recognized.layout.rows, state)
        self.theirs = {name: link.theirs for link in links for name in link.ours}
        for link in links:
            absent = [name for name in link.theirs if name not in recognized.tensors]
            if len(absent) == len(link.theirs):
                unmatched += [name for name in link.ours if name in state]
            elif absent:
                raise WeightsError(f"the checkpoint lacks {listed('parts', absent).strip()}")
            elif state.keys() >= {*link.ours} and self._fit(link, state):
                used |= {*link.theirs}
        for name in unmatched:
            optional = OUTPUT_NORM.match(name) or (new_head and HEAD.match(name))
            (self.unchanged if optional else self.missing).append(name)
        self.unused = [name for name in recognized.tensors if name not in used]

    def _fit(self, link: Link, state: dict[str, Tensor]) -> bool:
        """Resample a link's weights to the model; False if the model's own head is kept."""
        weights = self.recognized.converted(link.ours, link.theirs)
        for name, tensor in zip(link.ours, weights, strict=True):
            if self.new_head and HEAD.match(name) and tensor.shape != state[name].shape:
                self.unchanged.append(name)
                return False
            self.fitted[name], change = _adapted(name, tensor, self.model, state[name])
            self.resampled += [change] if change else []
        return True

    def check(self) -> None:
        """Raise `WeightsError` if the checkpoint or the model lacks one of the other's weights."""
        left = self._left_over()
        if not self.missing and not left:
            return
        message = (
            f"the {self.recognized.layout.library} checkpoint does not fit {self.model.spec.name}: "
            f"{listed('missing', self._missing_names())}{listed('left over', left)}"
        ).strip()
        if self.missing and not left and all(map(HEAD.match, self.missing)):
            message += "; to keep the model's own head, say new_head=True"
        raise WeightsError(message)

    def _missing_names(self) -> list[str]:
        """The missing weights, under the checkpoint's names."""
        names = (name for ours in self.missing for name in self.theirs.get(ours, (ours,)))
        return list(dict.fromkeys(names))

    def _left_over(self) -> list[str]:
        """The checkpoint's names of weights that the model lacks and should have."""
        omitted = _omitted_names(self.model.spec)

        def is_left_over(key: str) -> bool:
            replaced = self.new_head and HEAD.match(key)
            return key not in omitted and not OUTPUT_NORM.match(key) and not replaced

        left = []
        for name in self.unused:
            links, _ = from_theirs(self.recognized.layout.rows, [name])
            if links and not DERIVED_BUFFERS.search(name) and any(map(is_left_over, links[0].ours)):
                left.append(self.recognized.original[name])
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


def _omitted_names(spec: BackboneSpec) -> set[str]:
    """Names that a full network has and this spec omits: ignored in a checkpoint, not errors."""
    with torch.device("meta"):
        classifier = build(spec, head=HeadSpec(), out_indices=None)
        outputs = build(spec, head=None, out_indices=None)
    if spec.head is None:
        return {*classifier.state_dict(), *outputs.state_dict()}
    return set() if spec.head.num_classes else {*classifier.state_dict()}
