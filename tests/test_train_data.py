"""Sources of images, their order, and their augmentation as functions of the seed."""

import gzip
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import train_data
from PIL import Image
from torch.utils.data import DataLoader

from hierarch.errors import DataError, MissingPackageError, TrainError
from hierarch.train.images import (
    Broken,
    Images,
    Substituting,
    collate,
    evaluation,
    training,
)
from hierarch.train.order import Batches, Plan, Share, epoch_order, seed_of
from hierarch.train.reading import with_channels
from hierarch.train.recipe import load_recipe
from hierarch.train.sources import open_data

RECIPE = load_recipe(train_data.RECIPE)


def plan(**fields):
    return Plan(**({"seed": 0, "length": 20, "epochs": 3, "batch_size": 8} | fields))


def flat(batches):
    return [item for batch in batches for item in batch]


def test_every_epoch_has_another_order_and_every_seed_too():
    first = epoch_order(0, 0, 50)
    assert sorted(first) == list(range(50))
    assert first == epoch_order(0, 0, 50)
    assert len({tuple(epoch_order(s, e, 50)) for s in range(3) for e in range(3)}) == 9


def test_an_epoch_is_seen_once_without_what_fills_no_step():
    items = flat(plan().batches(0))
    assert plan().steps == 6
    assert [epoch for epoch, _ in items] == [0] * 16 + [1] * 16 + [2] * 16
    for epoch in range(3):
        assert [i for e, i in items if e == epoch] == epoch_order(0, epoch, 20)[:16]


@pytest.mark.parametrize("start", range(7))
def test_going_on_gives_the_rest_of_the_same_order(start):
    whole = list(plan(parts=2).batches(0))
    assert list(plan(parts=2).batches(0, start=start)) == whole[2 * start :]
    assert len(Batches(plan(parts=2), 0, start=start)) == len(whole[2 * start :])


@pytest.mark.parametrize(("parts", "processes"), [(1, 2), (2, 1), (2, 2), (4, 2)])
def test_a_step_has_the_same_images_however_it_is_dealt_out(parts, processes):
    shared = plan(parts=parts, processes=processes)
    shares = [list(shared.batches(p)) for p in range(processes)]
    for step, batch in enumerate(plan().batches(0)):
        at = slice(step * parts, (step + 1) * parts)
        assert sorted(flat(batch for share in shares for batch in share[at])) == sorted(batch)


def test_a_plan_that_does_not_go_up_is_refused():
    with pytest.raises(DataError, match="20 images, fewer than one batch of 32; set a smaller"):
        plan(batch_size=32)
    with pytest.raises(TrainError, match="batch_size=8 is not divisible by accumulate=1 times 3"):
        plan(processes=3)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_evaluation_sees_every_image_once_in_uneven_shares(processes):
    shares = [Share(7, 2, process=p, processes=processes) for p in range(processes)]
    assert sorted(i for share in shares for _, i in flat(share)) == list(range(7))
    assert [len(list(share)) for share in shares] == list(map(len, shares))


def test_a_seed_says_nothing_of_another():
    assert len({seed_of(0, "image", e, i) for e in range(9) for i in range(9)}) == 81
    assert 0 <= seed_of(2**32 - 1, "order", 5) < 2**63


def read(workers, source, *, start=0, seed=0, kind=Images):
    images = kind(source, training(RECIPE, (32, 32), 3), in_chans=3, seed=seed)
    order = Batches(plan(length=len(source)), 0, start=start)
    loader = DataLoader(images, batch_sampler=order, collate_fn=collate, num_workers=workers)
    return torch.cat([batch.images for batch in loader])


def test_augmentation_depends_on_seed_epoch_and_index_alone(tmp_path):
    source = open_data(str(train_data.npz(tmp_path / "d.npz"))).train
    whole = read(0, source)
    state = torch.get_rng_state()
    assert torch.equal(read(2, source), whole)
    torch.rand(7)
    assert torch.equal(read(1, source, start=4), whole[4 * 8 :])
    assert not torch.equal(read(0, source, seed=1), whole)
    images = Images(source, training(RECIPE, (32, 32), 3), in_chans=3)
    torch.set_rng_state(state)
    images[0, 0]
    assert torch.equal(torch.get_rng_state(), state)  # of everybody else
    assert not torch.equal(images[0, 0][0], images[1, 0][0])


@pytest.mark.parametrize(
    "augment",
    [
        {"crop": "random_resized", "color_jitter": 0.4},
        {"crop": "center", "flip": 0.0},
        {"crop": "padded", "randaugment_ops": 2, "randaugment_magnitude": 27, "erasing": 1.0},
    ],
)
@pytest.mark.parametrize("in_chans", [1, 3])
def test_every_way_to_augment_gives_an_image_of_the_size(augment, in_chans):
    recipe = load_recipe({"epochs": 1, "augment": augment})
    image = Image.fromarray(train_data.arrays(1, size=50)[0][0])
    for transform in (training, evaluation):
        made = transform(recipe, (32, 48), in_chans)(with_channels(image, in_chans, where="it"))
        assert made.shape == (in_chans, 32, 48)
        assert made.dtype == torch.float32


def test_evaluation_is_torchvisions_usual():
    from torchvision.transforms import v2

    image = Image.fromarray(train_data.arrays(1, size=50)[0][0])
    recipe = load_recipe({"epochs": 1})
    wanted = v2.Compose(
        [
            v2.Resize(37, interpolation=v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(32),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )(image)
    assert torch.equal(evaluation(recipe, (32, 32), 3)(image), wanted)


def test_a_folder(tmp_path):
    data = open_data(str(train_data.folder(tmp_path)))
    assert data.train.classes == ("ant", "bee", "cat")
    assert (len(data.train), len(data.held_out)) == (28, 7)
    image, label = data.train.read(27)
    assert (image.size, label) == ((20, 20), 2)
    assert data.train.where(27).endswith("train/cat/026.png")
    alone = open_data(str(tmp_path / "train"))
    assert (len(alone.train), alone.held_out) == (28, None)
    with pytest.raises(DataError, match="has no held-out images"):
        alone.split("val")


def test_idx_files_compressed_and_not(tmp_path):
    images = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4)
    texts = {
        "images-idx3": struct.pack(">BBBBIII", 0, 0, 8, 3, 2, 4, 4) + images.tobytes(),
        "labels-idx1": struct.pack(">BBBBI", 0, 0, 8, 1, 2) + bytes([1, 0]),
    }
    for name, text in texts.items():
        (tmp_path / f"train-{name}-ubyte").write_bytes(text)
        (tmp_path / f"t10k-{name}-ubyte.gz").write_bytes(gzip.compress(text))
    data = open_data(str(tmp_path))
    for source in (data.train, data.held_out):
        image, label = source.read(0)
        assert np.array_equal(image[..., 0], images[0])
        assert (label, source.classes) == (1, ("0", "1"))
    (tmp_path / "train-images-idx3-ubyte").write_bytes(texts["images-idx3"][:-1])
    with pytest.raises(DataError, match="is no idx file of bytes, or one that is cut short"):
        open_data(str(tmp_path))


def test_a_dataset_of_torchvision_is_not_downloaded_unasked(tmp_path):
    with pytest.raises(DataError, match=r"cifar10 is not in .*; --download fetches it there"):
        open_data("cifar10", root=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_of_torchvision(tmp_path):
    """CIFAR-10's own files, with two images each in place of 10,000."""
    import pickle

    from torchvision.datasets import CIFAR10

    base = tmp_path / CIFAR10.base_folder
    base.mkdir()
    made = {"data": np.zeros((2, 3072), np.uint8), "labels": [3, 5]}
    for name, _ in CIFAR10.train_list + CIFAR10.test_list:
        (base / name).write_bytes(pickle.dumps(made))
    (base / CIFAR10.meta["filename"]).write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CIFAR10, "_check_integrity", lambda _: True)  # sums of the real files
        patch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
        data = open_data("cifar10", root=tmp_path)
    assert (len(data.train), len(data.held_out)) == (10, 2)
    assert data.train.classes == tuple("abcdefghij")
    assert data.held_out.read(1)[1] == 5


def test_digits_come_with_scikit_learn():
    """The fixed split: each fifth image is held out, from the first on."""
    from sklearn.datasets import load_digits

    data, found = open_data("digits"), load_digits()
    assert (len(data.train), len(data.held_out)) == (1437, 360)
    assert data.train.classes == data.held_out.classes == tuple("0123456789")
    for source, numbers in ((data.held_out, (0, 5, 1795)), (data.train, (1, 2, 3, 4, 6))):
        for place, number in enumerate(numbers[:2]):
            image, label = source.read(place)
            assert label == found.target[number]
            assert image.dtype == np.uint8
            assert np.abs(image[..., 0] / 255 * 16 - found.images[number]).max() < 0.04
    assert data.held_out.read(359)[1] == found.target[1795]
    assert data.train.read(0)[0].max() == 255


def test_digits_without_scikit_learn_are_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingPackageError) as error:
        open_data("digits")
    install = "pip install 'hierarch-vision[digits]'"
    assert str(error.value) == f"this needs the package sklearn: {install}"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros(3)}, "should hold x_train and y_train or .*, holds x"),
        ({"images": np.zeros((2, 3, 3)), "labels": [0, 1]}, r"should be bytes .* got float64"),
        ({"images": np.zeros((2, 3, 3), np.uint8), "labels": [0]}, "should have 2 labels, whole"),
        ({"images": np.zeros((2, 3, 3), np.uint8), "labels": [0, -1]}, "whole numbers from 0"),
        ({"images": np.zeros((0, 3, 3), np.uint8), "labels": []}, "images should be bytes"),
        ({"images": np.array([{}, {}]), "labels": [0, 1]}, "cannot be read as npz: Object arrays"),
        ({"images": np.zeros((2, 3, 3), np.uint8), "labels": [0, 0]}, r"a single class \(0\)"),
    ],
)
def test_an_npz_file_of_something_else(tmp_path, arrays, message):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=message):
        open_data(str(tmp_path / "d.npz"))


def test_what_is_no_source(tmp_path):
    (tmp_path / "d.txt").write_text("")
    (tmp_path / "d.npz").write_text("no zip")
    (tmp_path / "empty").mkdir()
    (tmp_path / "hollow" / "cat").mkdir(parents=True)
    for name, message in [
        ("ciphar10", "no such folder, file or dataset: 'ciphar10', did you mean 'cifar10'?"),
        (tmp_path / "d.txt", "is neither a folder of images nor an .npz file"),
        (tmp_path / "d.npz", "cannot be read as npz"),
        (tmp_path / "empty", "an image folder holds a folder for each class, with images in it"),
        (tmp_path / "hollow", "an image folder holds a folder for each class, with images in it"),
    ]:
        with pytest.raises(DataError) as error:
            open_data(str(name))
        assert message in str(error.value)


def test_class_folders_that_differ(tmp_path):
    train_data.folder(tmp_path)
    (tmp_path / "val" / "cat").rename(tmp_path / "val" / "dog")
    with pytest.raises(DataError, match=r"differ; only in .*train: cat; only in .*val: dog"):
        open_data(str(tmp_path))


def test_one_class(tmp_path):
    with pytest.raises(DataError, match=r"has a single class \(ant\); a classifier needs two"):
        open_data(str(train_data.folder(tmp_path, classes=("ant",))))


def test_a_broken_image_is_named_or_replaced(tmp_path):
    source = open_data(str(train_data.folder(tmp_path))).train
    wrong = Path(source.where(3))
    for damage in (b"", b"no image", wrong.read_bytes()[:-300]):
        wrong.write_bytes(damage)
        transform = evaluation(RECIPE, (32, 32), 3)
        found = Images(source, transform, in_chans=3)[0, 3]
        assert isinstance(found, Broken)
        assert str(found).startswith(f"{wrong}: cannot be read: ")
        image, label, replaced = Substituting(source, transform, in_chans=3)[0, 3]
        following = Images(source, transform, in_chans=3)[0, 4]
        assert replaced == found
        assert label == following[1]
        assert torch.equal(image, following[0])


@pytest.mark.parametrize(
    ("image", "in_chans", "message"),
    [
        (np.zeros((4, 4, 5), np.uint8), 3, "it has 5 channels, and the network takes 3: set spec"),
        (np.zeros((4, 4, 3), np.uint8), 5, "it has 3 channels, and the network takes 5: set spec"),
    ],
)
def test_another_number_of_channels(image, in_chans, message):
    with pytest.raises(DataError, match=message):
        with_channels(image, in_chans, where="it")


def test_many_channels_go_through_where_the_network_takes_them():
    image = np.arange(80, dtype=np.uint8).reshape(4, 4, 5)
    assert torch.equal(
        with_channels(image, 5, where="it"), torch.from_numpy(image).permute(2, 0, 1)
    )
