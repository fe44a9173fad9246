"""The reports on loading and converting a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hierarch.report.formats import Block, Line, Paragraph, Table
from hierarch.report.shown import Shown
from hierarch.spec.backbone import BackboneSpec

SHOWN = 12
"""Items of a list that are shown; the rest is counted."""
MAX_LENGTH = 100
"""Characters of an item."""


@dataclass(frozen=True)
class Location:
    """Where a network's weights stand in a checkpoint.

    >>> print(Location(path=("model", "teacher"), prefix="backbone."))
    key='model.teacher' prefix='backbone.'
    """

    path: tuple[str, ...] = ()
    """The keys that lead to its state dict; none if the file is the state dict."""
    prefix: str = ""
    """What stands before the names of its weights: "module.backbone."."""

    @property
    def key(self) -> str:
        """The path as one string: "model.teacher"."""
        return ".".join(self.path)

    @property
    def parts(self) -> tuple[str, ...]:
        """The keys of the path, then the modules that the prefix names."""
        return (*self.path, *self.prefix.split(".")[:-1])

    def to_data(self) -> dict[str, str]:
        """The options that choose this network."""
        return {"key": self.key, "prefix": self.prefix}

    def __str__(self) -> str:
        options = {name: value for name, value in self.to_data().items() if value}
        shown = options or self.to_data()
        return " ".join(f"{name}={ascii(value)[:100]}" for name, value in shown.items())


def taken(location: Location, candidates: Sequence[Location]) -> str:
    """Which network of a checkpoint was taken, and which others it holds, in one line."""
    also = f" (also there: {listing(candidates)})" if candidates else ""
    return f"taken: {location}{also}"


def listing(items: Sequence[object]) -> str:
    """The first items, escaped to printable characters, and how many more there are."""
    more = [f"and {len(items) - SHOWN:,} more"] if len(items) > SHOWN else []
    return ", ".join([*(ascii(str(item))[1:-1][:MAX_LENGTH] for item in items[:SHOWN]), *more])


@dataclass(frozen=True)
class Resampled:
    """A weight whose shape was changed to the model's.

    >>> table = Resampled("bias_table", found=(169, 3), needed=(225, 3), how="bicubic")
    >>> print(table)
    bias_table: 169x3 to 225x3, bicubic
    """

    name: str
    """Its name in the model."""
    found: tuple[int, ...]
    """Its shape in the checkpoint."""
    needed: tuple[int, ...]
    """Its shape in the model."""
    how: str

    def to_data(self) -> dict[str, Any]:
        """Its fields, shapes as lists."""
        return asdict(self) | {"found": list(self.found), "needed": list(self.needed)}

    def __str__(self) -> str:
        found, needed = ("x".join(map(str, shape)) for shape in (self.found, self.needed))
        return f"{self.name}: {found} to {needed}, {self.how}"


@dataclass(frozen=True)
class LoadReport(Shown):
    """How each weight of a model and of a checkpoint was treated by `load_weights`.

    >>> from hierarch import build, load_weights
    >>> model = build({"mixer": "pooling", "stages": [{"dim": 8, "depth": 1}], "head": {}})
    >>> report = load_weights(model, model.state_dict())
    >>> report.layout, report.initialized, report.ignored
    ('hierarch', (), ())
    """

    layout: str
    """The library whose names the checkpoint has: "timm"."""
    network: str
    """Which of that library's networks it is: "swin"."""
    location: Location
    """Where in the checkpoint the network was found."""
    candidates: tuple[Location, ...]
    """Where other networks stand in the checkpoint."""
    loaded: tuple[str, ...]
    """The model's names of the weights that were read, the resampled ones among them."""
    resampled: tuple[Resampled, ...] = ()
    """The weights whose shape was changed to the model's."""
    initialized: tuple[str, ...] = ()
    """The model's names of weights that the checkpoint lacks and that were left unchanged: norms
    of outputs, and the head if `new_head` was given."""
    ignored: tuple[str, ...] = ()
    """The checkpoint's names of what was not used: buffers that follow from the spec, other
    networks' weights, a head that the model lacks, stages after its last output, an optimizer's
    state."""
    dtypes: tuple[str, ...] = ()
    """The dtypes in the checkpoint that are not the model's."""

    def to_data(self) -> dict[str, Any]:
        """Every field; the location as `key` and `prefix`."""
        return {
            "layout": self.layout,
            "network": self.network,
            **self.location.to_data(),
            "candidates": [location.to_data() for location in self.candidates],
            "loaded": list(self.loaded),
            "resampled": [change.to_data() for change in self.resampled],
            "initialized": list(self.initialized),
            "ignored": list(self.ignored),
            "dtypes": list(self.dtypes),
        }

    def records(self) -> list[dict[str, str]]:
        """One record per weight, in the model or in the checkpoint, and how it was treated."""
        changes = {change.name: change.how for change in self.resampled}
        loaded = [(name, "loaded", changes.get(name, "")) for name in self.loaded]
        others = [(name, "initialized", "") for name in self.initialized]
        others += [(name, "ignored", "") for name in self.ignored]
        return [
            {"name": name, "treatment": treatment, "resampled": how}
            for name, treatment, how in (*loaded, *others)
        ]

    def blocks(self) -> list[Block]:
        """The layout, where the network was found, and a paragraph per treatment."""
        treatments = {
            "resampled": self.resampled,
            "initialized": self.initialized,
            "ignored": self.ignored,
            "converted from": self.dtypes,
        }
        return [
            Line(f"layout: {self.layout}, {self.network}"),
            Line(taken(self.location, self.candidates)),
            Line(f"loaded: {len(self.loaded):,} weights"),
            *(
                Paragraph(f"{len(items):,} ({listing(items)})", lead=treatment)
                for treatment, items in treatments.items()
                if items
            ),
        ]


@dataclass(frozen=True)
class ConversionReport(Shown):
    """What `convert_weights` read and wrote.

    >>> from hierarch import build, convert_weights
    >>> model = build({"mixer": "pooling", "stages": [{"dim": 8, "depth": 1}], "head": {}})
    >>> report = convert_weights(model.state_dict(), "pool.safetensors", layout="hierarch")
    >>> report.output, report.tensors == len(model.state_dict())
    ('pool.safetensors', True)
    """

    source_layout: str
    """The library whose names the source has."""
    layout: str
    """The library whose names were written."""
    output: str
    """The path of the file that was written."""
    tensors: int
    """The number of tensors written, buffers among them."""
    bytes: int
    ignored: tuple[str, ...]
    """The source's names of what is no weight of the network."""
    spec: BackboneSpec | None
    """None if the weights do not determine it, and the layout does not need it."""
    assumed: tuple[str, ...]
    """What the weights do not determine of the spec, and what was assumed, in sentences."""
    location: Location
    """Where in the source the network was found."""
    candidates: tuple[Location, ...]
    """Where other networks stand in the source."""

    def to_data(self) -> dict[str, Any]:
        """Every field but the spec; the location as `key` and `prefix`."""
        return {
            "from": self.source_layout,
            "to": self.layout,
            **self.location.to_data(),
            "candidates": [location.to_data() for location in self.candidates],
            "tensors": self.tensors,
            "bytes": self.bytes,
            "ignored": list(self.ignored),
            "assumed": list(self.assumed),
            "output": self.output,
        }

    def records(self) -> list[dict[str, Any]]:
        """One record, with the lengths of lists in place of the lists."""
        data = self.to_data()
        return [{k: len(v) if isinstance(v, list) else v for k, v in data.items()}]

    def blocks(self) -> list[Block]:
        """The numbers in one table, and where the network was found."""
        columns = ("from", "to", "tensors", "bytes", "ignored", "assumed")
        [record] = self.records()
        cells = ((column, record[column]) for column in columns)
        row = {name: f"{cell:,}" if isinstance(cell, int) else cell for name, cell in cells}
        return [
            Table([row]),
            Line(taken(self.location, self.candidates)),
            Line(f"written: {listing([self.output])}"),
        ]
