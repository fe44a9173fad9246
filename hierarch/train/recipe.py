"""A recipe: how a network is trained, as data. Imports no torch.

A recipe is a YAML file, read and checked as a spec is; those in `recipes/` come with the library.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, Strict, model_validator

from hierarch.errors import SpecError
from hierarch.spec import documents
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.base import Flag, Name, Rate, Side, Spec, fault
from hierarch.spec.grid import Sides, per_axis
from hierarch.spec.load import of_images
from hierarch.spec.overrides import Assignment, assign
from hierarch.spec.reader import Document, Kind
from hierarch.spec.schema import document_schema

RECIPE = Kind("recipe", "`epochs`", "recipes")

Positive = Annotated[float, Strict(), Field(gt=0, le=1_000_000, allow_inf_nan=False)]
Size = Annotated[float, Strict(), Field(ge=0, le=1_000_000, allow_inf_nan=False)]
Share = Annotated[float, Strict(), Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Strict(), Field(ge=1, le=1_000_000)]


class OptimizerRecipe(Spec):
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101), or Muon (Jordan et al. 2024) beside it.

    Muon takes the matrices inside blocks, each step of which is made orthogonal, and AdamW all
    else. One learning rate and weight decay serve both: Muon's steps are scaled by 0.2
    sqrt(max(rows, columns)), to the size of AdamW's (Liu et al. 2025, arXiv:2502.16982).

    >>> OptimizerRecipe(lr=0.01).weight_decay
    0.05
    """

    type: Literal["adamw", "muon"] = "adamw"
    """AdamW for all weights, or Muon for the matrices inside blocks (torch 2.9 or newer)."""
    lr: Positive = 0.001
    """The learning rate after warm-up, of the whole batch: nothing scales it."""
    weight_decay: Size = 0.05
    """Of matrices and kernels. Norms, biases, position tables and whatever else a network names in
    `no_weight_decay()` have none."""
    betas: tuple[Rate, Rate] = (0.9, 0.999)
    """Decay of the running means of the gradient and of its square."""
    eps: Positive = 1e-8
    """Added to the denominator."""
    momentum: Rate = 0.95
    """Of Muon: decay of the running mean of the gradient, in Nesterov's way."""
    layer_decay: Annotated[float, Strict(), Field(gt=0, le=1)] = 1.0
    """The learning rate of a block, over that of the block after it (Bao et al. 2022,
    arXiv:2106.08254); 1 for the same rate everywhere."""

    @model_validator(mode="after")
    def _momentum_is_used(self) -> OptimizerRecipe:
        if self.type != "muon" and "momentum" in self.model_fields_set:
            message = f"is of type muon alone, and type is {self.type}"
            raise fault("OptimizerRecipe", (("momentum",), message, ...))
        return self


class ScheduleRecipe(Spec):
    """Linear warm-up, then half a period of a cosine, set at every step.

    >>> ScheduleRecipe(warmup_epochs=5).min_lr
    0.0
    """

    warmup_epochs: Size = 0
    """Length of the warm-up, in epochs or parts of them."""
    warmup_lr: Size = 0.0
    """The learning rate at the first step of the warm-up."""
    min_lr: Size = 0.0
    """The learning rate that the cosine ends at."""


class AugmentRecipe(Spec):
    """What is done to each training image, in this order (torchvision.transforms.v2).

    >>> AugmentRecipe(crop="padded").crop_padding
    4
    """

    crop: Literal["random_resized", "padded", "center"] = "random_resized"
    """A random part of the image, resized; a random place after padding; or as in evaluation."""
    crop_scale: tuple[Share, Share] = (0.08, 1.0)
    """The smallest and the largest share of the image's area, of a random resized crop."""
    crop_padding: Annotated[int, Strict(), Field(ge=0, le=1024)] = 4
    """Pixels around the image, of a padded crop."""
    flip: Share = 0.5
    """Probability of a horizontal flip."""
    randaugment_ops: Annotated[int, Strict(), Field(ge=0, le=16)] = 0
    """Operations of RandAugment (Cubuk et al. 2020, arXiv:1909.13719) on each image; 0 for none."""
    randaugment_magnitude: Annotated[int, Strict(), Field(ge=0, le=30)] = 9
    """Their strength, from 0 to 30."""
    color_jitter: Share = 0.0
    """Strength of a random change of brightness, contrast and saturation."""
    erasing: Share = 0.0
    """Probability that a rectangle is replaced by noise (Zhong et al. 2020, arXiv:1708.04896)."""

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> AugmentRecipe:
        low, high = self.crop_scale
        if not 0 < low <= high:
            message = f"should be two shares above 0, the smaller first, got {[low, high]}"
            raise fault("AugmentRecipe", (("crop_scale",), message, ...))
        return self


class MixRecipe(Spec):
    """Pairs of images of a batch mixed with their labels, with one ratio for each batch.

    >>> MixRecipe(mixup=0.8, cutmix=1.0).cutmix
    1.0
    """

    mixup: Size = 0.0
    """Alpha of mixup (Zhang et al. 2018, arXiv:1710.09412): images are added; 0 for none."""
    cutmix: Size = 0.0
    """Alpha of CutMix (Yun et al. 2019, arXiv:1905.04899): a rectangle is taken over; 0 for none.
    Where there are both, each batch has either, with equal probability."""
    probability: Share = 1.0
    """Probability that a batch is mixed at all."""


class EvaluateRecipe(Spec):
    """How an image is made ready where nothing is random.

    >>> EvaluateRecipe().crop_ratio
    0.875
    """

    crop_ratio: Annotated[float, Strict(), Field(gt=0, le=1)] = 0.875
    """The image's size over the length that its shorter side is resized to before the crop."""
    batch_size: Count | None = None
    """Images a step, of all processes; by default those of a training step at one time."""


class Recipe(Spec):
    """How a network is trained.

    >>> Recipe(epochs=10).optimizer.type
    'adamw'
    """

    name: Name = "recipe"
    """What the run folder is called after."""
    seed: Annotated[int, Strict(), Field(ge=0, lt=2**32)] = 0
    """Of weights, order and augmentation, each of which follows from it alone."""
    epochs: Count
    """Times that the whole set is seen."""
    batch_size: Count = 128
    """Images of one optimizer step: of all processes, and of all accumulated parts, together."""
    accumulate: Count = 1
    """Parts that a step's images are taken in, one after the other, to save memory."""
    image_size: Annotated[int | Sides, Side(8, 4096)] | None = None
    """Side of the images, or [height, width]; by default the spec's `input_size`."""
    interpolation: Literal["bicubic", "bilinear", "nearest"] = "bicubic"
    """How images are resized."""
    mean: tuple[Share, ...] = (0.485, 0.456, 0.406)
    """Subtracted from each channel, of values from 0 to 1: ImageNet's. One value serves all."""
    std: tuple[Positive, ...] = (0.229, 0.224, 0.225)
    """What each channel is then divided by."""
    precision: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    """Of the arithmetic; with bfloat16 and float16, weights stay in float32 (autocast). With
    float16, which is for GPUs, the loss is scaled, and a step that overflows is left out."""
    compile: Flag = False
    """torch.compile."""
    init: Literal["published", "fan_in"] = "published"
    """How weights are drawn: as published, with deviation 0.02, or 1/sqrt(n), where n numbers add
    up to an output. The latter suits networks that are narrower than the published ones."""
    optimizer: OptimizerRecipe = OptimizerRecipe()
    """The optimizer."""
    schedule: ScheduleRecipe = ScheduleRecipe()
    """The learning rate over time."""
    augment: AugmentRecipe = AugmentRecipe()
    """What is done to training images."""
    mix: MixRecipe = MixRecipe()
    """What is done to training batches."""
    evaluate: EvaluateRecipe = EvaluateRecipe()
    """How the held-out images are made ready."""
    label_smoothing: Rate = 0.0
    """Share of a label that is spread over all classes."""
    clip_grad_norm: Positive | None = None
    """The largest norm of the gradient of all weights together; null for any."""
    ema_decay: Rate | None = None
    """Decay of a moving average of the weights, which starts fast: (1 + n) / (10 + n) at step n if
    that is less. It is evaluated and kept instead of the weights; null for none."""
    log_steps: Count = 50
    """Steps from one line of metrics to the next, which has the mean loss between them."""
    evaluate_epochs: Count = 1
    """Epochs from one evaluation on held-out images to the next; the last one always has one."""
    checkpoint_steps: Count | None = None
    """Steps from one checkpoint to the next; by default those of an epoch."""

    @model_validator(mode="after")
    def _batch_divides(self) -> Recipe:
        if self.batch_size % self.accumulate:
            message = f"batch_size={self.batch_size} is not divisible by it, got {self.accumulate}"
            raise fault("Recipe", (("accumulate",), message, ...))
        return self

    @model_validator(mode="after")
    def _channels_agree(self) -> Recipe:
        if not self.mean or len(self.mean) != len(self.std):
            message = f"has {len(self.std)} values, and mean has {len(self.mean)}: one for each"
            raise fault("Recipe", (("std",), f"{message} channel, or one", ...))
        return self

    def norm(self, in_chans: int) -> tuple[list[float], list[float]]:
        """Mean and deviation of each channel of images with so many; for gray images of a recipe
        for color, and for one value that serves all, the average."""
        mean, std = list(self.mean), list(self.std)
        if len(mean) != in_chans:
            mean, std = [sum(mean) / len(mean)] * in_chans, [sum(std) / len(std)] * in_chans
        return mean, std


Source = Recipe | str | os.PathLike[str] | Mapping[str, Any]


def load_recipe(source: Source, *, assignments: Iterable[Assignment] = ()) -> Recipe:
    """Read a recipe from a YAML file's path, a preset's name ("imagenet_300"), or a mapping.

    `assignments` are values set on top, as `hierarch.spec.overrides.parse_assignment` reads them.
    Raises `SpecError`, which names file, line, column and the path into the recipe.

    >>> load_recipe("imagenet_300").epochs
    300
    """
    document = _read(source)
    if isinstance(document.data, dict):
        assign(document.data, assignments)
    return documents.validate(document, Recipe, RECIPE)


def image_size(spec: BackboneSpec, recipe: Recipe) -> Sides:
    """The recipe's image size in pixels, or the spec's. Raises `SpecError` for a network of videos
    or signals."""
    return per_axis(recipe.image_size or of_images(spec).input_size)


def recipes() -> list[str]:
    """The names of the recipes that come with the library, sorted."""
    return documents.presets(RECIPE)


@functools.cache
def recipe_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a recipe's YAML."""
    return document_schema(Recipe, RECIPE.word)


def _read(source: Source) -> Document:
    if isinstance(source, Recipe):
        return Document(source.to_data())
    if isinstance(source, Mapping):
        return Document(dict(source))
    if isinstance(source, str | os.PathLike):
        return documents.read(source, RECIPE)
    kind = type(source).__name__
    raise SpecError(f"a recipe is a path, a preset's name or a mapping, not {kind}")
