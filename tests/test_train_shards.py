"""Tar files as webdataset writes them, read in any order; and what is said of odd ones."""

import gzip
import io
import pickle
import tarfile

import numpy as np
import pytest
import train_data
from PIL import Image
from test_train_loop import CPU, assert_equal, weights

from hierarch.errors import DataError
from hierarch.train.images import Broken, Images
from hierarch.train.networks import evaluate
from hierarch.train.running import train
from hierarch.train.sources import open_data

pytestmark = pytest.mark.usefixtures("one_thread")


def png(image=None):
    held = io.BytesIO()
    image = np.zeros((4, 4, 3), np.uint8) if image is None else image
    Image.fromarray(image).save(held, "png")
    return held.getvalue()


def pack(path, members):
    """A tar file of (name, bytes, or a link's target)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def sample(name="a", label=b"0"):
    return [(f"{name}.png", png()), (f"{name}.cls", label)]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The same images in shards, written by webdataset, and in an npz file."""
    webdataset = pytest.importorskip("webdataset")
    path = tmp_path_factory.mktemp("written")
    (path / "shards").mkdir()
    train_data.npz(path / "d.npz")
    for split, (count, seed) in {"train": (28, 0), "val": (7, 1)}.items():
        pattern = str(path / "shards" / f"{split}-%06d.tar")
        with webdataset.ShardWriter(pattern, maxcount=10, verbose=0) as writer:
            for i, (image, label) in enumerate(
                zip(*train_data.arrays(count, seed=seed), strict=True)
            ):
                fields = {"__key__": f"{split}/{i:04}", "png": image, "cls": int(label)}
                # what else a sample may have is never opened
                writer.write(fields | {"json": {"place": i}, "pyd": print, "seg.png": image})
    return path


def test_shards_of_webdataset_hold_the_images_that_were_written(written):
    assert len(list((written / "shards").glob("train-*.tar"))) == 3
    found, wanted = (open_data(str(written / name)) for name in ("shards", "d.npz"))
    for split in ("train", "val"):
        ours, theirs = found.split(split), wanted.split(split)
        assert len(ours) == len(theirs)
        assert ours.classes == theirs.classes == ("0", "1", "2")
        for i in reversed(range(len(ours))):
            image, label = ours.read(i)
            assert label == theirs.read(i)[1]
            assert np.array_equal(np.asarray(image), theirs.read(i)[0])
    assert found.train.where(11).endswith("shards/train-000001.tar: train/0011.png")


def test_a_run_on_shards_is_that_on_the_same_images_elsewhere(written, tmp_path):
    """Order, augmentation and going on depend on numbers of images alone, whatever holds them."""

    def stop(progress):
        if progress.step == 4:
            raise KeyboardInterrupt

    recipe = train_data.RECIPE | {"checkpoint_steps": 3}
    options = {"recipe": recipe, "machine": CPU}
    shards, arrays = str(written / "shards"), str(written / "d.npz")
    train(train_data.network(), arrays, run=tmp_path / "arrays", **options)
    with pytest.raises(KeyboardInterrupt):
        train(train_data.network(), shards, run=tmp_path / "shards", advance=stop, **options)
    train(train_data.network(), shards, run=tmp_path / "shards", resume=True, **options)
    assert_equal(weights(tmp_path / "shards"), weights(tmp_path / "arrays"))
    assert evaluate(tmp_path / "shards", machine=CPU).sizes[0].images == 7


def test_names_of_shards_say_what_they_are_for(tmp_path):
    for name in (
        "imagenet1k-train-00",
        "imagenet1k-train-01",
        "imagenet1k-validation-00",
        "x_test",
    ):
        pack(tmp_path / f"{name}.tar", [*sample(), *sample("b", b"1")])
    data = open_data(str(tmp_path))
    assert (len(data.train), len(data.held_out)) == (4, 2)
    assert "validation-00" in data.held_out.where(0)
    for file in tmp_path.glob("*[nt]-0*"):
        file.rename(file.with_name(f"part-{file.name[-6:]}"))
    with pytest.raises(
        DataError, match=r"should have names such as train-0001\.tar .* one is part"
    ):
        open_data(str(tmp_path))


def test_shards_alone_are_all_for_training(tmp_path):
    pack(tmp_path / "train-0.tar", [*sample(), *sample("b", b"3")])
    data = open_data(str(tmp_path))
    assert (data.train.classes, data.held_out) == (("0", "1", "2", "3"), None)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "holds no samples, such as 0001.jpg with its class in 0001.cls"),
        ([("a.txt", b"")], "holds no samples"),
        ([*sample(), ("b.png", png())], "b has no class: add .cls with a whole number"),
        ([*sample(), ("dir/b.cls", b"1")], "dir/b has no image"),
        (sample(label=b"cat"), "a.cls should be a whole number from 0, as text"),
        (sample(label=b"-1"), "a.cls should be a whole number"),
        (sample(label=b""), "a.cls should be a whole number"),
        (sample(label=b"9" * 12), "a.cls should be a whole number"),
        (sample(label=pickle.dumps(1)), "a.cls should be a whole number"),
        ([*sample(), *sample()], "a.png is the second of its sample"),
        ([*sample(), ("a.jpg", png())], "a.jpg is the second of its sample"),
        ([*sample(), ("b.png", "a.png"), ("b.cls", b"1")], "b.png is no file"),
        (sample(), r"a single class \(0\)"),
    ],
)
def test_an_odd_shard(tmp_path, members, message):
    pack(tmp_path / "train-0.tar", members)
    with pytest.raises(DataError, match=message):
        open_data(str(tmp_path))


def test_what_is_no_member_of_a_sample_is_left_alone(tmp_path):
    members = [("._a.png", b"x"), ("README", b"x"), *sample(), *sample("b", b"1\n")]
    pack(tmp_path / "train-0.tar", [*members, ("b.pickle", b"x"), ("dir/.cls", b"x")])
    assert len(open_data(str(tmp_path)).train) == 2


@pytest.mark.parametrize("damage", ["cut", "header", "gzip", "empty"])
def test_a_damaged_shard(tmp_path, damage):
    file = pack(tmp_path / "train-0.tar", [*sample(), *sample("b", b"1"), *sample("c", b"1")])
    whole = file.read_bytes()
    with tarfile.open(file) as tar:
        third, last = (tar.getmembers()[i] for i in (2, 5))
    changed = {
        "cut": whole[: last.offset_data],
        "header": whole[: third.offset] + b"x" * 512 + whole[third.offset + 512 :],
        "gzip": gzip.compress(whole),
        "empty": b"",
    }
    file.write_bytes(changed[damage])
    with pytest.raises(DataError, match=r"train-0\.tar: cannot be read as a tar file, uncompresse"):
        open_data(str(tmp_path))


def test_an_image_that_is_no_image_is_named(tmp_path):
    pack(tmp_path / "train-0.tar", [*sample(), ("b.jpg", b"none"), ("b.cls", b"1")])
    source = open_data(str(tmp_path)).train
    broken = Images(source, lambda image: image, in_chans=3)[0, 1]
    assert isinstance(broken, Broken)
    assert str(broken).startswith(f"{tmp_path / 'train-0.tar'}: b.jpg: cannot be read: ")


def test_class_folders_go_before_tar_files(tmp_path):
    train_data.folder(tmp_path)
    pack(tmp_path / "ILSVRC2012_img_train.tar", sample())
    assert open_data(str(tmp_path)).train.where(0).endswith("train/ant/000.png")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("train-{000000..000146}.tar", "give the folder with train-\\*.tar and val-\\*.tar"),
        ("https://host/shards", "only local files are read; copy them to this machine"),
        ("s3://bucket/train-0.tar", "only local files are read"),
    ],
)
def test_shards_that_are_not_in_a_folder_here(name, message):
    with pytest.raises(DataError, match=message):
        open_data(name)
