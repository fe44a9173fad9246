"""Which layout a checkpoint has, told from its keys."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from torch import Tensor

from hierarch.errors import WeightsError
from hierarch.weights.files import listed
from hierarch.weights.layouts import LAYOUTS, LIBRARIES, Layout
from hierarch.weights.names import from_theirs

WORKED_OUT = re.compile(r"(^|\.)(relative_position_index|relative_coords_table|attn_mask)$")
"""Buffers that publications store and that no weight depends on."""

WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.", "student.", "teacher.")
"""What trainers put before the names of the network that they train."""


@dataclass(frozen=True)
class Recognized:
    """A checkpoint's tensors under the names that its layout has for them."""

    layout: Layout
    tensors: dict[str, Tensor]
    original: dict[str, str]
    """The names in the checkpoint."""

    def ours(self) -> dict[str, Tensor]:
        """The tensors under our names; what is no weight of the network is left out.

        Raises `WeightsError` where parts of a weight are missing or do not fit each other.
        """
        links, _ = from_theirs(self.layout.rows, self.tensors)
        found: dict[str, Tensor] = {}
        for link in links:
            if missing := [name for name in link.theirs if name not in self.tensors]:
                raise WeightsError(f"the checkpoint lacks {listed('parts', missing).strip()}")
            found |= dict(zip(link.ours, self.converted(link.ours, link.theirs), strict=True))
        return found

    def converted(self, ours: tuple[str, ...], theirs: tuple[str, ...]) -> list[Tensor]:
        """Our tensors, from theirs."""
        links, _ = from_theirs(self.layout.rows, theirs)
        given = [self.tensors[name] for name in theirs]
        try:
            return list(links[0].conversion.to_ours(given))
        except (RuntimeError, ValueError, IndexError):
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in given)
            raise WeightsError(f"{ours[0]} cannot be made of {shapes}") from None


def recognize(tensors: dict[str, Tensor], layout: str = "auto") -> Recognized:
    """Tell the layout from the keys; `layout` is a library's name, or "timm:swin".

    Raises `WeightsError`, which says what was seen, where two layouts fit or none.
    """
    known = [candidate for candidate in LAYOUTS if layout in ("auto", *_names(candidate))]
    if not known:
        raise WeightsError(f"unknown layout {layout[:80]!r}; known: auto, {', '.join(LIBRARIES)}")
    for prefix in _prefixes(tensors):
        fitting = []
        for candidate in known:
            spelled = _spelled(candidate, tensors, prefix)
            if candidate.marks(set(spelled.values())):
                fitting.append((candidate, spelled))
        if fitting:
            break
    if not fitting and len(known) == 1:
        fitting = [(known[0], _spelled(known[0], tensors, ""))]
    if len(fitting) != 1:
        names = " and ".join(candidate.name for candidate, _ in fitting)
        found = names or f"none of {', '.join(candidate.name for candidate in known)}"
        seen = listed("seen", list(tensors)).strip()
        raise WeightsError(f"which layout? The keys fit {found}; {seen}")
    chosen, spelled = fitting[0]
    uses = Counter(spelled.values())
    if twice := [name for name, key in spelled.items() if uses[key] > 1]:
        raise WeightsError(f"one weight has several names: {listed('seen', twice).strip()}")
    return Recognized(
        chosen,
        {key: tensors[name] for name, key in spelled.items()},
        {key: name for name, key in spelled.items()},
    )


def _names(layout: Layout) -> tuple[str, str]:
    return layout.library, layout.name


def _spelled(layout: Layout, names: Collection[str], prefix: str) -> dict[str, str]:
    """Each name, and what the layout's rows call it."""
    spelled = {}
    for name in names:
        key = name.removeprefix(prefix)
        for pattern, replacement in layout.spellings:
            key = re.sub(pattern, replacement, key)
        spelled[name] = key
    return spelled


def _prefixes(names: Collection[str]) -> Iterator[str]:
    """No prefix, then what wrappers may have put there, up to three of them."""
    found = [""]
    for _ in range(3):
        yield from found
        longer = [prefix + wrapper for prefix in found for wrapper in WRAPPERS]
        found = [prefix for prefix in longer if any(name.startswith(prefix) for name in names)]
    yield from found
