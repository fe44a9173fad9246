"""float16 with its scaler, and torch.compile, in runs that stop and go on."""

import math

import pytest
import torch
import train_data
from helpers import newer_compiler
from test_train_loop import CPU, assert_equal, trained, weights, without_speed
from torch._inductor import config as inductor

from hierarch.errors import TrainError
from hierarch.train.folder import RunFolder
from hierarch.train.networks import evaluate
from hierarch.train.running import train
from hierarch.train.settings import Machine

pytestmark = pytest.mark.usefixtures("one_thread")


class Half(Machine):
    """A CPU that computes in float16 with a scaler, which Fabric does on GPUs alone. torch does it
    on both."""

    def fabric(self, precision, run, *, trains=True):
        from lightning.fabric import Fabric
        from lightning.fabric.plugins.precision import MixedPrecision

        scaler = torch.amp.GradScaler("cpu", init_scale=self.scale, growth_interval=4)
        plugin = MixedPrecision("16-mixed", device="cpu", scaler=scaler)
        fabric = Fabric(accelerator="cpu", devices=1, plugins=[plugin])
        fabric.launch()
        return fabric


class Overflowing(Half):
    scale = 2.0**28
    """Beyond float16, so that the first steps are left out."""


class Fitting(Half):
    scale = 2.0**10


@pytest.fixture
def data(tmp_path):
    return str(train_data.npz(tmp_path / "d.npz"))


def half(data, run, machine, *, stop_at=None, resume=False, **fields):
    def advance(progress):
        if progress.step == stop_at:
            raise KeyboardInterrupt

    recipe = train_data.RECIPE | {"precision": "float16", "checkpoint_steps": 2} | fields
    options = {"recipe": recipe, "resume": resume, "machine": machine, "advance": advance}
    return train(train_data.network(), data, run=run, **options)


def scaler(run):
    return RunFolder(run).load()["scaler"]


def test_a_scale_that_grows_goes_on_to_the_same_bits(data, tmp_path):
    half(data, tmp_path / "whole", Fitting())
    assert scaler(tmp_path / "whole")["scale"] == 2.0**12  # doubled every 4 of 9 steps
    with pytest.raises(KeyboardInterrupt):
        half(data, tmp_path / "run", Fitting(), stop_at=7)
    half(data, tmp_path / "run", Fitting(), resume=True)
    assert scaler(tmp_path / "run") == scaler(tmp_path / "whole")
    assert_equal(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    assert without_speed(tmp_path / "run") == without_speed(tmp_path / "whole")
    norms = [float(row["grad_norm"]) for row in RunFolder(tmp_path / "run").rows() if row["lr"]]
    assert max(norms) < 100  # of the gradient itself, without its scale


def test_steps_that_overflow_are_left_out(data, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        half(data, tmp_path / "run", Overflowing(), epochs=7, stop_at=3)
    state = RunFolder(tmp_path / "run").load()
    assert state["scaler"]["scale"] == 2.0**26  # halved at each of 2 steps
    assert_equal(state["model"], state["model_ema"])  # as they were at first
    half(data, tmp_path / "run", Overflowing(), epochs=7, resume=True)
    norms = [float(row["grad_norm"]) for row in RunFolder(tmp_path / "run").rows() if row["lr"]]
    assert not any(map(math.isfinite, norms[:3]))
    assert any(map(math.isfinite, norms[3:]))
    assert all(value.isfinite().all() for value in weights(tmp_path / "run").values())


def test_a_gradient_that_is_not_finite_whatever_the_scale_stops_the_run(data, tmp_path):
    wild = {"optimizer": {"lr": 1e6}, "clip_grad_norm": None, "ema_decay": None, "epochs": 40}
    with pytest.raises(TrainError, match="not finite, first in the"):
        half(data, tmp_path / "run", Fitting(), **wild)


@pytest.mark.parametrize("accelerator", ["cpu", "auto"])
def test_float16_is_refused_on_a_cpu(data, tmp_path, accelerator):
    if accelerator == "auto" and torch.cuda.is_available():
        pytest.skip("auto is a GPU here")
    machine = Machine(accelerator=accelerator, devices="1")
    with pytest.raises(TrainError, match="precision float16 is for GPUs: take bfloat16 or float32"):
        half(data, tmp_path / "run", machine)
    half(data, tmp_path / "run", Fitting())
    found = evaluate(tmp_path / "run", machine=machine)  # in float32
    assert found.sizes[0].images == 7


def test_float16_and_fsdp2_are_refused_together(data, tmp_path):
    machine = Machine(accelerator="cpu", devices="2", strategy="fsdp2")
    with pytest.raises(TrainError, match=r"Lightning Fabric refuses.*does not support.*16-mixed"):
        half(data, tmp_path / "run", machine)


@newer_compiler
@inductor.patch({"cpp.simdlen": 1})  # sooner made than vectors
def test_a_compiled_run_goes_on_to_the_same_bits(data, tmp_path):
    spec = train_data.network(mixer="pooling", stages=[{"dim": 8, "depth": 1}], drop_path_rate=0.0)
    fields = {"compile": True, "epochs": 1, "checkpoint_steps": 1}
    trained(data, tmp_path / "whole", spec=spec, recipe=fields)
    with pytest.raises(KeyboardInterrupt):
        trained(data, tmp_path / "run", spec=spec, recipe=fields, stop_at=2)
    trained(data, tmp_path / "run", spec=spec, recipe=fields, resume=True)
    assert_equal(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    trained(data, tmp_path / "plain", spec=spec, recipe=fields | {"compile": False})
    losses = [
        [float(row["loss"]) for row in RunFolder(tmp_path / run).rows() if row["loss"]]
        for run in ("plain", "whole")
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)
    assert evaluate(tmp_path / "run", machine=CPU).sizes[0].images == 7
