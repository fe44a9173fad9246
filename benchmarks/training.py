"""Time of a step of `hierarch train` over that of a plain loop, and of images over the network.

python benchmarks/training.py --data cifar10

One process on one thread; the two loops take steps in turn, and the ratio is the median of pairs.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

import hierarch
from hierarch.train.folder import RunFolder
from hierarch.train.images import Images, collate, training
from hierarch.train.loop import Loop
from hierarch.train.optim import optimizer
from hierarch.train.order import Batches, Plan
from hierarch.train.recipe import image_size, load_recipe
from hierarch.train.settings import Machine
from hierarch.train.sources import open_data

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
WARM_UP = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spec", default=RESULTS / "network.yaml")
    parser.add_argument("--recipe", default=RESULTS / "recipe.yaml")
    parser.add_argument("--data", required=True, help="as hierarch train takes it")
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = load_recipe(options.recipe).model_copy(
        update={"compile": False, "precision": "float32", "ema_decay": None}
    )
    spec = hierarch.load(options.spec)
    data = open_data(options.data)
    plan = Plan(seed=0, length=len(data.train), epochs=1, batch_size=recipe.batch_size)
    size, in_chans = image_size(spec, recipe), spec.stem.in_chans
    images = Images(data.train, training(recipe, size, in_chans), in_chans=in_chans)
    for _ in zip(range(options.steps + WARM_UP), loader(images, plan), strict=False):
        pass  # files are in memory for both
    ours, plain, ready = (list[float]() for _ in range(3))
    with tempfile.TemporaryDirectory() as folder:
        fabric = Machine(accelerator="cpu", devices="1").fabric("float32", folder)
        network = hierarch.build(spec).train()
        run = RunFolder(folder)
        loop = Loop(network, recipe, plan, fabric=fabric, folder=run, identity={})
        batches = loop._batches(images, workers=0)
        step = plain_step(hierarch.build(spec).train(), recipe)
        others = iter(loader(images, plan))
        for i in range(options.steps + WARM_UP):
            loop.schedule.set(i)
            ours.append(timed(lambda i=i: loop.step(i, batches)))
            begun = time.perf_counter()
            batch = next(others)
            ready.append(time.perf_counter() - begun)
            plain.append(ready[-1] + timed(lambda batch=batch: step(batch)))
    pairs = list(zip(ours, plain, ready, strict=True))[WARM_UP:]
    ratio = statistics.median(a / b for a, b, _ in pairs)
    faster = statistics.median((b - c) / c for _, b, c in pairs)
    speed = plan.batch_size / statistics.median(b for _, b, _ in pairs)
    print(f"a step of hierarch train over one of a plain loop: {ratio:.3f}")
    print(f"images are ready {faster:.1f} times as fast as the network takes them")
    print(f"({speed:.0f} images/s in the plain loop, both on one thread)")


def loader(images: Images, plan: Plan) -> DataLoader:
    return DataLoader(images, batch_sampler=Batches(plan, 0, start=0), collate_fn=collate)


def plain_step(network, recipe) -> Callable:
    """A training step as anyone would write it."""
    adam = optimizer(network, recipe.optimizer)

    def step(batch) -> float:
        logits = network(batch.images)
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=recipe.label_smoothing)
        loss.backward()
        if recipe.clip_grad_norm:
            torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_grad_norm)
        adam.step()
        adam.zero_grad()
        return float(loss.detach())

    return step


def timed(call: Callable) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
