"""What the engine keeps between calls, and how to free it."""

from __future__ import annotations

import ctypes
import sys

from hierarch.engine import caches, orders
from hierarch.engine.onednn import forget_row_counts
from hierarch.engine.threads import end_pools


def kept() -> dict[str, int]:
    """Bytes of what is kept now, for all networks of the process, by what it is."""
    return {
        "masks": caches.mask_bytes(),
        "orders of windows": orders.kept.nbytes,
        "constants on a GPU": caches.constants.nbytes,
    }


def clear() -> None:
    """Frees what the engine keeps between calls, in all of the process: masks, orders of windows,
    indices on a GPU, and its threads with what torch's libraries keep in each; and gives freed
    memory back to the system, where its C library can. The next call makes again what it needs.

    It cannot free the programs that oneDNN keeps, half a megabyte for each shape of a
    multiplication, of which the engine uses few.

    >>> import torch
    >>> from hierarch import build
    >>> model = build("swin_tiny").eval()
    >>> with torch.no_grad():
    ...     _ = model(torch.zeros(1, 3, 224, 224))
    >>> sum(kept().values()) > 0
    True
    >>> clear()
    >>> sum(kept().values())
    0
    """
    caches.clear_masks()
    orders.kept.clear()
    caches.constants.clear()
    forget_row_counts()
    end_pools()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
