"""How good a network is on labelled images: counts, which add up over processes and batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from hierarch.errors import DataError
from hierarch.report.training import SizeAccuracy
from hierarch.spec.grid import Sides
from hierarch.train.images import Images, collate_readable
from hierarch.train.order import Share

Reduce = Callable[[Tensor], Tensor]


def score(
    network: nn.Module,
    images: Images,
    *,
    size: Sides,
    classes: int,
    batch_size: int,
    fabric: Any,
    workers: int = 0,
    skip_broken: bool = False,
) -> SizeAccuracy:
    """Every image once, each process its share; the counts of all processes are added. All
    processes run the network equally often.

    Raises `DataError` for an image that cannot be read, unless `skip_broken` leaves it out.
    """
    share = Share(
        len(images),
        batch_size,
        process=fabric.global_rank,
        processes=fabric.world_size,
    )
    loader: Any = DataLoader(
        images, batch_sampler=share, collate_fn=collate_readable, num_workers=workers
    )
    dtype = next(network.parameters()).dtype
    confusion = torch.zeros(classes * classes, dtype=torch.float64)
    sums = torch.zeros(4, dtype=torch.float64)  # loss, top-5, broken, not allowed to be
    message = ""
    training = network.training
    network.eval()
    # FSDP2 goes on to train with what it gathers here, which inference_mode would not let it do
    with torch.no_grad(), fabric.autocast():
        for batch in loader:
            sums[2] += len(batch.broken)
            if batch.broken and not skip_broken:
                sums[3] += 1
                message = message or str(batch.broken[0])
            stop = torch.tensor(float(bool(message)), device=fabric.device)
            if fabric.all_reduce(stop, reduce_op="sum"):
                break
            if not len(batch.labels):  # a network whose weights are shared is run by all or none
                network(torch.zeros(1, images.in_chans, *size, device=fabric.device, dtype=dtype))
                continue
            labels = batch.labels.to(fabric.device)
            logits = network(batch.images.to(fabric.device, dtype)).double()
            sums[0] += F.cross_entropy(logits, labels, reduction="sum").cpu()
            likeliest = logits.topk(min(5, classes)).indices
            sums[1] += (likeliest == labels[:, None]).sum().cpu()
            pairs = (labels * classes + likeliest[:, 0]).cpu()
            confusion += torch.bincount(pairs, minlength=classes * classes)
    network.train(training)
    sums, confusion = (
        fabric.all_reduce(total.to(fabric.device), reduce_op="sum").cpu()
        for total in (sums, confusion)
    )
    if sums[3]:
        raise DataError(
            (message or "an image of another process cannot be read")
            + "; --skip-broken leaves such images out, and counts them"
        )
    counts = confusion.reshape(classes, classes).long().tolist()
    total = max(1.0, float(confusion.sum()))
    return SizeAccuracy(
        size=size,
        loss=float(sums[0]) / total,
        top5=int(sums[1]),
        confusion=tuple(map(tuple, counts)),
        broken=int(sums[2]),
    )
