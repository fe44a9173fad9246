"""`hierarch export` and `hierarch.export`: files that their real runtimes run, and what a mistake
leaves behind."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import math
import os
import sys
import zipfile
from pathlib import Path

import httpx
import onnx
import onnx_ir
import onnxruntime
import openvino
import pytest
import torch
import train_data
from helpers import newer_compiler, noise, perturb, tiny
from torch import nn

import hierarch
from hierarch.cli.export import _images
from hierarch.errors import ExportError
from hierarch.exporting import targets
from hierarch.exporting.checking import agree, cases
from hierarch.exporting.onnx_graph import tidy
from hierarch.exporting.registry import get_target, target_names
from hierarch.train.networks import open_network

pytestmark = pytest.mark.usefixtures("one_thread")

STAGES = [{"dim": 8, "depth": 2}, {"dim": 16, "depth": 1}]
TINY = tiny(stages=STAGES, input_size=32, head={"num_classes": 3})
POOLING = tiny(stages=STAGES, input_size=32) | {"mixer": "pooling"}
"""Without windows, and so exported in a moment."""
HEAD = {"head": {"num_classes": 3}}


def pooling(**fields):
    return perturb(hierarch.build(POOLING | fields))


def suffix(to):
    return get_target(to).suffix


def exported(tmp_path, model, to="onnx", **options):
    path = tmp_path / f"network{suffix(to)}"
    return hierarch.export(model, path, to=to, rounds=1, **options), path


def in_onnxruntime(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images.numpy()})


# every family


FAMILIES = {
    "swin_tiny": 1,
    "swin_mixer_tiny_d24": 1,
    "swin_v2/swin_v2_tiny_window8_256": 1,
    "video/swin3d_tiny": 1,
    "metaformer/poolformer_s12": 2,
    "metaformer/poolformer_v2_s12": 1,
    "metaformer/identityformer_s12": 1,
    "metaformer/convformer_s18": 1,
    "metaformer/caformer_s18": 3,
    "convnext/convnext_tiny": 2,
    "convnext/convnext_v2_atto": 1,
    "inception_next/inception_next_atto": 1,
    "pvt_v2/pvt_v2_b0": 1,
    "twins/twins_pcpvt_small": 1,
    "twins/twins_svt_small": 1,
    "focalnet/focalnet_tiny_srf": 1,
    "davit/davit_tiny": 1,
    "maxvit/maxvit_tiny": 1,
    "van/van_b0": 1,
    "cswin/cswin_tiny": 1,
    "nat/nat_mini": 1,
    "nat/dinat_mini": 1,
    "vit/vit_tiny_patch16": 1,
    "vit/deit_tiny_distilled_patch16": 1,
    "vit/dinov2_small_patch14_registers": 1,
    "vit/dinov3_small_patch16": 1,
    "vit/parallel_vit_wee_patch16": 1,
    "mlp/mlp_mixer_base_patch16": 1,
    "mlp/resmlp_s12": 1,
}
"""The stages that are exported of a preset, one block each, since a block takes seconds. CAFormer's
third one is its first of attention; those before are ConvFormer's."""


def shortened(name):
    """The first stages of a preset, with the last mixer of its cycle, such as that of the shifted
    windows."""
    spec = hierarch.load(name)
    stages = [stage.to_data() | {"depth": 1} for stage in spec.stages[: FAMILIES[name]]]
    mixer = [entry.to_data() for entry in spec.mixer[-1:]] if spec.mixer else spec.mixer
    return perturb(hierarch.build(spec.to_data() | {"stages": stages, "mixer": mixer}))


@newer_compiler
@pytest.mark.no_cover  # it is torch's exporter that takes long
@pytest.mark.parametrize("name", FAMILIES)
def test_one_file_of_each_family_serves_any_batch_and_size(tmp_path, name):
    model = shortened(name)
    size, other = ((64, 80), (97, 71)) if model.axes == 2 else ((8, 32, 40), (9, 37, 29))
    report, path = exported(tmp_path, model, size=size, dynamic="all")
    sizes = {check.size for check in report.sizes}
    assert len(sizes) == 5
    assert any(all(side % 2 for side in sides) for sides in sizes)
    assert max(check.agreement.difference for check in report.sizes) < 1e-4
    images = noise(2, 3, *other)
    with torch.no_grad():
        wanted = model(images)
    for to in ("onnx", "openvino"):  # whose own files are made of this one
        [found] = get_target(to).load(path, 1, "float32")(images)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
    file = onnx.load(path)
    onnx.checker.check_model(file, full_check=True)
    [opset] = file.opset_import
    assert opset.domain == ""
    assert opset.version >= 18
    assert {node.domain for node in file.graph.node} == {""}
    assert path.stat().st_size <= 1.01 * report.weight_bytes + 2e6


@newer_compiler
@pytest.mark.parametrize("mixer", ["window_attention", "cosine_window_attention"])
def test_what_follows_from_the_weights_is_not_stored_beside_them(tmp_path, mixer):
    spec = tiny(mixer, stages=[{"dim": 64, "depth": 2}], input_size=64)
    windows = [entry | {"window_size": 8, "head_dim": 4} for entry in spec["mixer"]]
    model = perturb(hierarch.build(spec | {"mixer": windows}))
    _, path = exported(tmp_path, model, size=64)
    weights = {parameter.numel() for parameter in model.parameters()}
    floats = [t for t in onnx.load(path).graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    large = {math.prod(tensor.dims) for tensor in floats if math.prod(tensor.dims) > 4096}
    assert large
    assert large <= weights


# each target, as it is typed


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run on a folder of images."""
    from hierarch.train.running import train
    from hierarch.train.settings import Machine

    path = tmp_path_factory.mktemp("trained")
    folder = train_data.folder(path / "images", held_out=12)
    plain = {"mix": {}, "ema_decay": None, "epochs": 10, "augment": {"crop": "center"}}
    recipe = train_data.RECIPE | plain | {"optimizer": {"lr": 0.01}}
    machine = Machine(accelerator="cpu", devices="1")
    train(train_data.network(), str(folder), recipe=recipe, run=path / "run", machine=machine)
    return path


def read_onnx(path):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.get_modelmeta().custom_metadata_map


def read_openvino(path):
    model = openvino.Core().read_model(path)
    keys = ("version", "spec", "size", "classes", "mean", "std")
    return {f"hierarch.{key}": model.get_rt_info(["hierarch", key]).value for key in keys}


def read_torch(path):
    with zipfile.ZipFile(path) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("hierarch.json")]
        return json.loads(archive.read(name))


def assert_told(about, trained):
    """A file says what a server needs."""
    assert about["hierarch.version"] == hierarch.__version__
    assert json.loads(about["hierarch.classes"]) == ["ant", "bee", "cat"]
    assert json.loads(about["hierarch.size"]) == [32, 32]
    recipe = hierarch.load_recipe(trained / "run" / "recipe.yaml")
    assert json.loads(about["hierarch.mean"]) == [*recipe.mean]
    assert json.loads(about["hierarch.std"]) == [*recipe.std]
    assert hierarch.loads(about["hierarch.spec"]) == hierarch.load(trained / "run" / "spec.yaml")


READ = {"openvino": read_openvino, "torch-export": read_torch}
PARTS = {"openvino": ["network.bin", "network.xml"], "torch-export": ["network.pt2"]}


@newer_compiler
@pytest.mark.parametrize("to", READ)
def test_a_trained_network_is_exported(run, trained, tmp_path, to):
    path = tmp_path / f"network{suffix(to)}"
    options = ("--dynamic", "batch", "--images", trained / "images", "--format", "json")
    status, out, err = run("export", trained / "run", "--to", to, "-o", path, *options)
    assert status == 0, err
    report = json.loads(out)
    assert report["holds"]
    assert report["error"] < 1e-5
    assert [check["batch"] for check in report["sizes"]] == [1, 2, 5]
    assert all(check["torch_ms"] > 0 < check["runtime_ms"] for check in report["sizes"])
    images = report["images"]
    assert images["same_class"] == images["images"] == 12
    assert images["right_torch"] == images["right_runtime"] > 8
    assert sorted(os.listdir(tmp_path)) == PARTS[to]
    assert report["bytes"] == sum((tmp_path / part).stat().st_size for part in PARTS[to])
    assert_told(READ[to](path), trained)


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_int8_is_calibrated_and_compared_on_images(run, trained, tmp_path, to):
    path = tmp_path / f"network{suffix(to)}"
    options = ("--to", to, "--dtype", "int8", "--images", trained / "images")
    status, out, err = run("export", trained / "run", "-o", path, *options)
    assert status == 0, err
    lines = {line.split(",")[0]: line.split() for line in out.splitlines()}
    runtime = get_target(to).runtime
    [int8] = [
        cells for line, cells in lines.items() if line.startswith(runtime) and "%" in cells[3]
    ]
    assert lines["torch"][2].endswith("%")
    assert int8[2] == "int8"
    assert int(int8[-1].split("/")[0]) >= 11
    assert 0 < float(int8[-2]) < 0.2, "int8 is not float32"
    assert "other classes" in out
    if to == "onnx":
        kinds = {node.op_type for node in onnx.load(path).graph.node}
        assert {"QuantizeLinear", "DequantizeLinear"} <= kinds


# from Python


@newer_compiler
@pytest.mark.parametrize(
    ("to", "dtype"),
    [("onnx", "float16"), ("openvino", "bfloat16"), ("torch-export", "bfloat16")],
)
def test_a_file_in_fewer_bits_takes_and_returns_float32(tmp_path, to, dtype):
    model = pooling(**HEAD)
    report, path = exported(tmp_path, model, to, dtype=dtype)
    assert 1e-6 < report.error < report.tolerance
    [found] = get_target(to).load(path, 1, dtype)(noise(1, 3, 32, 32))
    assert found.dtype is torch.float32
    assert {p.dtype for p in model.parameters()} == {torch.float32}, "the network is left alone"


def test_features_are_the_maps_of_all_stages(tmp_path):
    model, images = pooling(**HEAD), noise(1, 3, 32, 48)
    _, path = exported(tmp_path, model, size=(32, 48), features=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["stage0", "stage1"]
    found = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        wanted = model.forward_intermediates(images, intermediates_only=True)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(torch.from_numpy(one), other, rtol=0, atol=1e-4)


def test_a_network_without_a_head_returns_its_maps(tmp_path):
    report, path = exported(tmp_path, pooling(out_indices=[1]).train(), "torch-export", size=40)
    [found] = get_target("torch-export").load(path, 1, "float32")(noise(1, 3, 40, 40))
    assert found.shape == (1, 16, 5, 5)
    assert report.sizes[0].agreement.same_class is None


def test_packed_weights_are_exported_and_stay_packed(tmp_path):
    model = pooling(**HEAD).pack_weights()
    exported(tmp_path, model, "torch-export")
    assert "weight" not in dict(model.head.fc.named_parameters())


def test_windows_that_fill_the_map_are_copied_once(tmp_path):
    """And four axes are transposed at most, but for merging; ONNX has no paths of this machine."""
    model = perturb(hierarch.build(TINY))
    _, path = exported(tmp_path, model)
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert "ScatterND" not in kinds
    blocks = sum(stage["depth"] for stage in STAGES)
    # in and out of windows; where one window holds the map, neither
    assert kinds.count("Gather") == 2 * 2
    # of queries, of keys twice, of values, and of the heads' outputs; stem, and merging
    assert kinds.count("Transpose") <= 5 * blocks + 4
    orders = [
        node.attribute[0].ints for node in onnx.load(path).graph.node if node.op_type == "Transpose"
    ]
    assert sum(len(order) > 4 for order in orders) == 1
    assert str(Path.cwd()).encode() not in path.read_bytes()


def test_a_transposition_that_leaves_the_graph_stays():
    text = '<ir_version: 10, opset_import: ["": 20]> g (float[2, 3] x) => (float[3, 2] y) {'
    model = onnx.parser.parse_model(text + " y = Transpose <perm = [1, 0]> (x) }")
    inner = onnx_ir.serde.deserialize_model(model)
    tidy(inner, onnxruntime=True)
    assert [node.op_type for node in inner.graph] == ["Transpose"]


@pytest.mark.skipif(
    importlib.util.find_spec("executorch") is None, reason="executorch is not installed"
)
@pytest.mark.filterwarnings("ignore::Warning:executorch", "ignore:.*Use files\\(\\) instead")
def test_executorch_runs_a_network(tmp_path):
    report, _ = exported(tmp_path, perturb(hierarch.build(TINY)), "executorch")
    assert report.error < 1e-5


def test_every_target_is_one_file():
    files = {path.stem for path in Path(targets.__path__[0]).glob("[!_]*.py")}
    assert {name.replace("-", "_") for name in target_names()} == files
    assert all(get_target(name).name == name for name in target_names())


def test_another_package_adds_a_target(tmp_path, monkeypatch):
    code = (
        "from dataclasses import replace\n"
        "from hierarch.exporting.targets.torch_export import TARGET\n"
        "MINE = replace(TARGET, name='mine', suffix='.mine')\n"
    )
    (tmp_path / "my_targets.py").write_text(code)
    info = tmp_path / "my_targets-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-targets\nVersion: 1\n")
    lines = ["[hierarch.targets]", "mine = my_targets:MINE", "bad = my_targets:code"]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "mine" in target_names()
    report, _ = exported(tmp_path, pooling(), "mine")
    assert report.target == "mine"
    with pytest.raises(ExportError, match="target 'bad', entry point 'my_targets:code': cannot be"):
        get_target("bad")


# what does not hold


def test_a_difference_over_the_tolerance_leaves_nothing(run, tmp_path):
    (tmp_path / "spec.yaml").write_text(json.dumps(POOLING | HEAD))
    path = tmp_path / "out" / "network.pt2"
    path.parent.mkdir()
    options = ("--to", "torch-export", "--dtype", "bfloat16", "--tolerance", "1e-9")
    status, out, err = run(
        "export", tmp_path / "spec.yaml", "-o", path, *options, "--format", "json"
    )
    report = json.loads(out)
    assert (status, report["holds"], report["path"]) == (1, False, None)
    assert report["error"] > report["tolerance"] == 1e-9
    assert "does not hold; nothing is written" in err
    assert os.listdir(path.parent) == []


def test_a_file_that_was_there_stays_where_the_new_one_does_not_hold(tmp_path):
    path = tmp_path / "network.pt2"
    path.write_text("old")
    with pytest.raises(ExportError, match=r"bfloat16: relative difference .* nothing is w") as told:
        exported(tmp_path, pooling(**HEAD), "torch-export", dtype="bfloat16", tolerance=1e-9)
    assert told.value.report.sizes[0].size == (32, 32)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["network.pt2"]


def test_what_is_no_number_does_not_hold(tmp_path):
    model = pooling(**HEAD)
    with torch.no_grad():
        model.head.fc.bias[1] = float("nan")
    with pytest.raises(ExportError, match="relative difference nan") as told:
        exported(tmp_path, model, "torch-export")
    assert json.loads(json.dumps(told.value.report.to_data(), allow_nan=False))["error"] is None
    assert os.listdir(tmp_path) == []


class Branches(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_a_network_that_cannot_be_exported_is_one_message(tmp_path):
    model = pooling()
    model.stages[0].blocks[0].mixer = Branches()
    with pytest.raises(ExportError, match=r"tiny cannot be exported \(onnx, float32\): \w+: "):
        exported(tmp_path, model)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "tflite"}, "unknown target 'tflite'; known: executorch, onnx, openvino, torch-exp"),
        ({"to": "openvino"}, "network.onnx: should be a file that ends in .xml"),
        ({"dtype": "bfloat16"}, "onnx files compute in float32, float16, int8; got 'bfloat16'"),
        ({"dynamic": "width"}, "dynamic 'width': should be one of none, batch, size, all"),
        ({"batch": 0}, "batch 0: should be an integer from 1"),
        ({"size": 0}, "size 0: a side should be an integer from 1"),
        ({"dtype": "int8"}, "int8 is calibrated with images; give some"),
        (
            {"images": noise(2, 3, 32, 33)},
            "should be (N, 3, 32, 32) in float32, got (2, 3, 32, 33)",
        ),
        ({"images": noise(2, 3, 32, 32).double()}, "(2, 3, 32, 32) in float64"),
        ({"images": noise(2, 3, 32, 32), "batch": 3}, "2 images are no batch of 3"),
    ],
)
def test_a_mistake_is_one_message(tmp_path, options, message):
    with pytest.raises(hierarch.HierarchError) as told:
        hierarch.export(pooling(), tmp_path / "network.onnx", **options)
    assert message in str(told.value)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there_is_one_message(tmp_path):
    with pytest.raises(ExportError, match="cannot be written: No such file or directory"):
        hierarch.export(pooling(), tmp_path / "none" / "network.onnx")


@pytest.mark.parametrize(
    ("to", "package", "extra"),
    [
        ("onnx", "onnxscript", "onnx"),
        ("openvino", "openvino", "openvino"),
        ("executorch", "executorch", "executorch"),
    ],
)
def test_a_missing_package_is_one_line(run, tmp_path, monkeypatch, to, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    path = tmp_path / f"network{suffix(to)}"
    status, out, err = run("export", "swin_tiny", "--to", to, "-o", path)
    assert (status, out) == (2, "")
    install = f"pip install 'hierarch-vision[{extra}]'"
    assert err.splitlines()[-1] == f"error: this needs the package {package}: {install}"


def test_a_mistake_on_the_command_line_is_one_message(run, trained, tmp_path):
    path = tmp_path / "network.onnx"
    for arguments, message in [
        (("--size", "32,64"), "--size '32,64': give one; --dynamic size serves any"),
        (("--set", "mlp_ratio=2"), "--set changes a spec; a run has its own"),
        (("--images", tmp_path / "none"), "no such folder, file or dataset"),
        (("--weights", tmp_path / "none.pth"), "cannot be read"),
    ]:
        status, out, err = run("export", trained / "run", "-o", path, *arguments)
        assert (status, out) == (2, "")
        assert message in err


def test_images_may_have_no_classes_or_other_ones(trained, tmp_path, capsys):
    network = open_network(trained / "run")
    arguments = (network.recipe, network.model, network.size, 5, network.classes)
    alone = _images(str(trained / "images" / "val" / "ant"), *arguments)
    assert (len(alone["images"]), alone["labels"]) == (4, None)
    train_data.folder(tmp_path / "other", classes=("dog", "eel", "fox"))
    other = _images(str(tmp_path / "other"), *arguments)
    assert (len(other["images"]), other["labels"]) == (5, None)
    assert "other classes than the network: no accuracy" in capsys.readouterr().err
    same = _images(str(trained / "images"), *arguments)
    assert {*same["labels"].tolist()} == {0, 1, 2}, "spread over the set"


# how it is compared


def test_a_wrong_output_is_seen():
    wanted = (torch.tensor([[4.0, 1.0], [1.0, 3.0]]), torch.ones(2, 1))
    found = (torch.tensor([[4.0, 1.0], [3.5, 3.0]]), torch.ones(2, 1))
    agreement = agree([wanted], [found], classes=True)
    assert (agreement.difference, agreement.relative, agreement.same_class) == (2.5, 2.5 / 4, 1)
    assert agreement.error("relative difference") == 2.5 / 4
    assert agreement.error("other classes") == 0.5
    same = agree([wanted], [wanted], classes=True)
    assert (same.error("relative difference"), same.error("other classes")) == (0, 0)
    worse = (wanted[0] + 1, wanted[1] + 0.5)
    assert agree([wanted], [worse], classes=False).relative == 0.5
    none = (wanted[0], torch.full((2, 1), torch.nan))
    assert math.isnan(agree([wanted], [none], classes=False).relative)


def test_a_file_for_any_size_is_compared_at_five_sizes_odd_ones_among_them():
    for side in (32, 224):
        found = cases((side, side), 1, ["height", "width"])
        assert len({size for _, *sides in found for size in [tuple(sides)]}) == 5
        assert sum(height % 2 and width % 2 for _, height, width in found) >= 2


# examples/serve.py


@pytest.fixture(scope="module")
def serve():
    path = Path(__file__).parents[1] / "examples" / "serve.py"
    spec = importlib.util.spec_from_file_location("serve", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@newer_compiler
def test_the_server_answers_many_at_once_as_it_answers_one(serve, trained, tmp_path):
    network = open_network(trained / "run")
    mean, std = network.recipe.norm(3)
    about = {"classes": network.classes, "mean": mean, "std": std}
    _, path = exported(tmp_path, network.model, dynamic="batch", **about)
    assert_told(read_onnx(path), trained)
    files = sorted((trained / "images" / "val").rglob("*.png"))
    app = serve.make_app(str(path))

    async def ask():
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here")
        async with app.router.lifespan_context(app), client:
            posts = [client.post("/classify", content=file.read_bytes()) for file in files]
            broken = client.post("/classify", content=b"no image")
            *together, refused = await asyncio.gather(*posts, broken)
            calls = app.state.batcher.calls
            alone = [await client.post("/classify", content=file.read_bytes()) for file in files]
            return together, alone, refused, calls

    together, alone, refused, calls = asyncio.run(ask())
    assert calls < len(files)
    assert refused.status_code == 415
    for one, other in zip(together, alone, strict=True):
        assert list(one.json()) == list(other.json())
        assert list(one.json().values()) == pytest.approx(list(other.json().values()), abs=1e-6)
    right = sum(next(iter(r.json())) == f.parent.name for r, f in zip(together, files, strict=True))
    assert right > len(files) // 2


def test_the_server_tells_those_who_asked_and_goes_on(serve):
    def run(items):
        if 0 in items:
            raise ValueError("zero")
        return items

    async def ask():
        batcher = serve.Batcher(run, most=2)
        worker = asyncio.create_task(batcher.work())
        gone = asyncio.create_task(batcher.ask(5))
        found = asyncio.gather(*map(batcher.ask, [1, 0, 3]), return_exceptions=True)
        await asyncio.sleep(0)
        gone.cancel()
        first, *rest = await found
        worker.cancel()
        return first, [type(answer) if answer != 3 else answer for answer in rest], batcher.calls

    assert asyncio.run(ask()) == (1, [ValueError, ValueError], 2)
