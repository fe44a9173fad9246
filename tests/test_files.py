"""Atomic writes: a file is written whole or not at all."""

import os
import stat
import threading

import pytest

from hierarch.files import write_text, writing_with_others


@pytest.fixture
def umask():
    """Sets the mask of new files' modes, for one test."""
    before = os.umask(0)
    os.umask(before)
    yield os.umask
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_written_in_utf8_without_leftovers(tmp_path):
    write_text(tmp_path / "a.yaml", "name: ü 模型\n")
    assert (tmp_path / "a.yaml").read_bytes() == "name: ü 模型\n".encode()
    write_text(str(tmp_path / "a.yaml"), "shorter")
    assert (tmp_path / "a.yaml").read_text() == "shorter"
    assert os.listdir(tmp_path) == ["a.yaml"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    old = tmp_path / "old.yaml"
    old.write_text("what was here")

    def full(*_):
        raise OSError(28, "No space left on device")

    with pytest.raises(UnicodeEncodeError):
        write_text(old, "half of it \ud800")
    for step in ("chmod", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, full)
            with pytest.raises(OSError, match="No space left"):
                write_text(old, "new")
            with pytest.raises(OSError, match="No space left"):
                write_text(tmp_path / "new.yaml", "new")
    assert old.read_text() == "what was here"
    assert os.listdir(tmp_path) == ["old.yaml"]


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / "new.yaml", "new")
    assert os.listdir(tmp_path) == []


def test_no_reader_sees_half_of_a_file(tmp_path):
    path, texts = tmp_path / "a.yaml", {"a" * 1_000_000, "b" * 1_000_000}
    path.write_text("a" * 1_000_000)
    done = threading.Event()

    def write():
        for _ in range(10):
            for text in sorted(texts):
                write_text(path, text)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert path.read_text() in texts
    writer.join()


@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_mode_of_a_new_file_follows_the_umask(tmp_path, umask, mask, expected):
    umask(mask)
    write_text(tmp_path / "new.yaml", "")
    assert mode(tmp_path / "new.yaml") == expected
    assert umask(mask) == mask


def test_an_existing_file_keeps_its_mode(tmp_path):
    private = tmp_path / "private.yaml"
    private.write_text("")
    private.chmod(0o600)
    write_text(private, "new")
    assert mode(private) == 0o600


def test_a_link_stays_a_link_to_the_new_text(tmp_path):
    target, link = tmp_path / "target.yaml", tmp_path / "link.yaml"
    target.write_text("old")
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "through it")
    reader.join()
    assert read == ["through it"]
    assert pipe.is_fifo()


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path, "new")
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "missing" / "new.yaml", "new")
    assert os.listdir(tmp_path) == []


def written_with_others(path, text):
    with writing_with_others(path) as temporary:
        temporary.with_suffix(".bin").write_text(f"{text[:5]} too")
        temporary.write_text(text, encoding="utf-8")


def test_a_file_and_its_others_are_written_together(tmp_path):
    for text in ("old", "new"):
        written_with_others(tmp_path / "a.xml", text)
        assert (tmp_path / "a.xml").read_text() == text
        assert (tmp_path / "a.bin").read_text() == f"{text} too"
    assert sorted(os.listdir(tmp_path)) == ["a.bin", "a.xml"]
    assert mode(tmp_path / "a.bin") == mode(tmp_path / "a.xml")


def test_a_failed_write_of_several_leaves_what_was_there(tmp_path):
    written_with_others(tmp_path / "a.xml", "old")
    with pytest.raises(UnicodeEncodeError):
        written_with_others(tmp_path / "a.xml", "half of it \ud800")
    assert (tmp_path / "a.bin").read_text() == "old too"
    assert sorted(os.listdir(tmp_path)) == ["a.bin", "a.xml"]


def test_a_file_is_never_beside_others_than_its_own(tmp_path, monkeypatch):
    written_with_others(tmp_path / "a.xml", "old")
    moved = []

    def move(source, target):
        moved.append(target.name)
        if len(moved) > 1:
            raise OSError(28, "No space left on device")
        os.rename(source, target)

    monkeypatch.setattr(os, "replace", move)
    with pytest.raises(OSError, match="No space left"):
        written_with_others(tmp_path / "a.xml", "new")
    assert moved == ["a.bin", "a.xml"]
    assert os.listdir(tmp_path) == ["a.bin"]
