"""The loop over steps. What a step does follows from the seed and its number alone.

A checkpoint therefore holds weights, the optimizer's state and counts, and no random state.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from hierarch.building import Backbone
from hierarch.errors import DataError, TrainError
from hierarch.report.training import SizeAccuracy
from hierarch.train.average import Average
from hierarch.train.culprit import culprit
from hierarch.train.folder import RunFolder
from hierarch.train.images import Batch, Broken, Images, collate
from hierarch.train.mixing import mixing
from hierarch.train.optim import Schedule, optimizer
from hierarch.train.order import Batches, Plan, seed_of
from hierarch.train.progress import Counts, Progress
from hierarch.train.recipe import Recipe
from hierarch.train.sharding import full, load_network, load_optimizer, whole

FORM = 2
"""Of checkpoints; another number for each form that the one before cannot go on as."""


class Loop:
    """One run, from its first step or from a checkpoint on."""

    def __init__(
        self,
        model: Backbone,
        recipe: Recipe,
        plan: Plan,
        *,
        fabric: Any,
        folder: RunFolder,
        identity: Mapping[str, Any],
    ) -> None:
        self.recipe, self.plan, self.fabric, self.folder = recipe, plan, fabric, folder
        self.identity = {**identity, "form of checkpoint": FORM}
        assert model.spec.head is not None
        self.mix = mixing(recipe.mix, model.spec.head.num_classes)
        self.network: Backbone = model
        self.model = fabric.setup_module(torch.compile(model) if recipe.compile else model)
        self.optimizer = optimizer(model, recipe.optimizer)  # of the weights as they are set up
        self.stepper = fabric.setup_optimizers(self.optimizer)
        self.average = Average(model, recipe.ema_decay) if recipe.ema_decay else None
        self.schedule = Schedule(
            self.optimizer, recipe, steps=plan.steps, steps_per_epoch=plan.steps_per_epoch
        )
        self.counts = Counts()
        self.broken = 0
        """Of this process, since the last checkpoint."""

    def evaluated(self) -> AbstractContextManager[None]:
        """While this is entered the network is what is evaluated and kept: the average, if any."""
        return self.average.in_place() if self.average else nullcontext()

    def keep(self, path: Path) -> None:
        """Write the network's weights as they are now."""
        weights = self._whole(self.network.state_dict())
        if self.fabric.is_global_zero:
            self.folder.save_weights(path, weights, kept="the checkpoint")

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint. Raises `TrainError` for that of another run."""
        for what, value in self.identity.items():
            if state["identity"].get(what) != value:
                raise TrainError(
                    f"{self.folder.path}: its {what} differs from that of this command; give "
                    "another --run, or the one that the run began with"
                )
        load_network(self.network, state["model"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["scaler"])
        if self.average:
            self.average.load(state["model_ema"], state["averaged"])
        self.counts = Counts(**state["counts"])

    def save(self) -> None:
        """Write the checkpoint, in one process, with what all processes counted."""
        counts = self.counts
        counts.losses = self._reduced(counts.losses, "mean")
        counts.broken += int(self._reduced(self.broken, "sum"))
        self.broken = 0
        state: dict[str, Any] = {
            "identity": self.identity,
            "model": self._whole(self.network.state_dict()),
            "optimizer": self._whole(self.optimizer.state_dict()),
            "scaler": self.fabric.strategy.precision.state_dict(),
            "counts": vars(counts),
        }
        if self.average:
            averages = self._whole(self.average.values)
            state["model_ema"] = state["model"] | averages
            state["averaged"] = self.average.count
        if self.fabric.is_global_zero:
            kept = "the checkpoint before it" if self.folder.checkpoint.exists() else "nothing"
            self.folder.save(state, kept=kept)
        self.fabric.barrier()

    def run(
        self,
        images: Images,
        *,
        evaluate: Callable[[nn.Module], SizeAccuracy] | None,
        workers: int = 0,
        advance: Callable[[Progress], None] | None = None,
    ) -> Counts:
        """Train to the end. Raises `TrainError` at a number that is not finite."""
        batches = self._batches(images, workers)
        every = self.recipe.checkpoint_steps or self.plan.steps_per_epoch
        per_epoch = self.plan.steps_per_epoch
        self.network.train()
        begun, first = time.perf_counter(), self.counts.step
        for step in range(first, self.plan.steps):
            lr = self.schedule.set(step)
            loss, norm = self.step(step, batches)
            counts, done = self.counts, step + 1
            counts.step = done
            counts.losses += loss
            counts.since += 1
            speed = (done - first) * self.plan.batch_size / (time.perf_counter() - begun)
            if advance:
                advance(Progress(done, self.plan.steps, step // per_epoch, loss, speed))
            if done % self.recipe.log_steps == 0 or done == self.plan.steps:
                self._log(lr, norm, speed)
                begun, first = time.perf_counter(), done
            trained = time.perf_counter()
            epoch_ends, ends = done % per_epoch == 0, done == self.plan.steps
            due = epoch_ends and done // per_epoch % self.recipe.evaluate_epochs == 0
            if evaluate and (ends or due):
                self._evaluate(evaluate)
            if ends or done % every == 0:
                self.save()
            begun += time.perf_counter() - trained
        return self.counts

    def step(self, step: int, batches: Iterator[Batch]) -> tuple[float, float]:
        """One optimizer step: (mean loss of this process, norm of the gradient of all)."""
        parts = self.recipe.accumulate
        total = torch.zeros((), device=self.fabric.device)
        seen = []
        for part in range(parts):
            batch = next(batches)
            self.broken += len(batch.broken)
            images, labels = self._on_device(batch)
            seen.append((images, labels))
            with self.fabric.no_backward_sync(self.model, enabled=part < parts - 1):
                loss = self._loss(self.model, images, labels, step, part)
                self.fabric.backward(loss / parts)
            total = total + loss.detach() / parts
        norm = self._clipped()
        value, length = torch.stack([total.double(), norm.double()]).tolist()
        if not math.isfinite(value) or not (math.isfinite(length) or self._overflows()):
            self._stop(step, seen)
        self.stepper.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.update()
        return value, length

    def _loss(self, model: Any, images: Tensor, labels: Tensor, step: int, part: int) -> Tensor:
        torch.manual_seed(seed_of(self.recipe.seed, "step", step, part, self.fabric.global_rank))
        images, targets = self.mix(images, labels)
        logits = model(images)
        targets = targets.to(logits.dtype) if targets.is_floating_point() else targets
        return F.cross_entropy(logits, targets, label_smoothing=self.recipe.label_smoothing)

    def _on_device(self, batch: Batch) -> tuple[Tensor, Tensor]:
        device = self.fabric.device
        images = batch.images.to(device, non_blocking=True)
        if self.recipe.precision == "float64":
            images = images.double()
        return images, batch.labels.to(device, non_blocking=True)

    def _overflows(self) -> bool:
        """Whether a gradient that is not finite says no more than that float16's scale is too
        large: then the step is left out, and the scale halved."""
        scaler = getattr(self.fabric.strategy.precision, "scaler", None)
        return scaler is not None and scaler.get_scale() > 1

    def _clipped(self) -> Tensor:
        """The norm of the gradient, which is scaled down to the recipe's largest."""
        self.fabric.strategy.precision.unscale_gradients(self.optimizer)
        parameters = [p for p in self.network.parameters() if p.grad is not None]
        norm = full(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
        if self.recipe.clip_grad_norm:
            nn.utils.clip_grads_with_norm_(parameters, self.recipe.clip_grad_norm, norm)
        return norm

    def _batches(self, images: Images, workers: int) -> Iterator[Batch]:
        order = Batches(self.plan, self.fabric.global_rank, start=self.counts.step)
        loader: Any = DataLoader(
            images,
            batch_sampler=order,
            collate_fn=collate,
            num_workers=workers,
            pin_memory=self.fabric.device.type == "cuda",
        )
        for batch in loader:
            if isinstance(batch, Broken):
                raise DataError(
                    f"{batch}; --skip-broken takes other images in place of such, and counts them"
                )
            yield batch

    def _log(self, lr: float, norm: float, speed: float) -> None:
        counts = self.counts
        counts.loss = self._reduced(counts.losses / counts.since, "mean")
        counts.losses, counts.since = 0.0, 0
        row = {
            "lr": lr,
            "loss": counts.loss,
            "grad_norm": norm,
            "images_per_s": round(speed, 1),
        }
        self._write(row)

    def _evaluate(self, evaluate: Callable[[nn.Module], SizeAccuracy]) -> None:
        with self.evaluated():
            found = evaluate(self.network)
            self.network.train()
            top1, top5 = found.share(found.right) or 0.0, found.share(found.top5) or 0.0
            counts = self.counts
            counts.last = {"val_loss": found.loss, "val_top1": top1, "val_top5": top5}
            self._write(counts.last)
            if counts.best_top1 is None or top1 > counts.best_top1:
                counts.best_top1, counts.best_step = top1, counts.step
                self.keep(self.folder.best)

    def _write(self, row: Mapping[str, float]) -> None:
        """A row of metrics.csv, and the same numbers to whoever else logs."""
        step = self.counts.step
        epoch = (step - 1) // self.plan.steps_per_epoch
        if self.fabric.is_global_zero:
            self.folder.log({"step": step, "epoch": epoch, **row})
        self.fabric.log_dict(dict(row), step=step)

    def _stop(self, step: int, seen: list[tuple[Tensor, Tensor]]) -> None:
        """Keep the weights, which are those before this step, and say where it went wrong."""
        self.optimizer.zero_grad(set_to_none=True)
        if step > 0:
            self.save()
        found = [self._culprit(step, part, *images) for part, images in enumerate(seen)]
        everywhere = self._gathered(next(filter(None, found), ""))
        where = next(filter(None, everywhere), "no layer: run again, the same step may succeed")
        kept = f"{self.folder.checkpoint} has the weights before it" if step else "nothing is kept"
        raise TrainError(
            f"step {step + 1} (epoch {step // self.plan.steps_per_epoch}) made numbers that are "
            f"not finite, first in {where}; {kept}. A lower optimizer.lr, clip_grad_norm or a "
            "longer warm-up may help; give --weights to begin from them"
        )

    def _whole(self, state: Any) -> Any:
        return whole(state, keep=self.fabric.is_global_zero)

    def _reduced(self, value: float, how: str) -> float:
        """A number of each process -> their mean or sum."""
        local = torch.tensor(value, dtype=torch.float64, device=self.fabric.device)
        return float(self.fabric.all_reduce(local, reduce_op=how))

    def _gathered(self, value: str) -> list[str]:
        """A text of each process -> all of them."""
        found = [value] * self.fabric.world_size
        if self.fabric.world_size > 1:
            torch.distributed.all_gather_object(found, value)
        return found

    def _culprit(self, step: int, part: int, images: Tensor, labels: Tensor) -> str:
        def loss() -> Tensor:
            with self.fabric.autocast():
                return self._loss(self.network, images, labels, step, part)

        return culprit(self.network, loss)
