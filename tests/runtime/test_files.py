"""Writing files atomically, and the names inside a bundle."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from edgetune_runtime import files
from edgetune_runtime.errors import EdgetuneError

OLD, NEW = b"old bytes, quite a few of them", b"new"


def break_replace(patch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    patch.setattr(os, "replace", fail)
    patch.setattr(os, "rename", fail)
    patch.setattr(Path, "replace", fail)
    patch.setattr(Path, "rename", fail)


def break_fsync(patch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(_: int) -> NoReturn:
        raise error

    patch.setattr(os, "fsync", fail)


@pytest.mark.parametrize("data", [b"", NEW, OLD + OLD, bytes(range(256)) * 999])
def test_a_file_is_replaced_whole(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    files.write_atomic(path, data)
    assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]


def test_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    files.write_atomic(path, NEW)
    assert path.read_bytes() == NEW
    assert [found for found in tmp_path.rglob("*") if found.is_file()] == [path]


def test_who_has_the_old_file_open_reads_the_old_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    with path.open("rb") as reader:
        files.write_atomic(path, NEW)
        assert reader.read() == OLD
    assert path.read_bytes() == NEW


def test_others_may_read_the_file(tmp_path: Path) -> None:
    files.write_atomic(tmp_path / "file", NEW)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) & 0o444 == 0o444


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(28, "No space left on device"), EdgetuneError),
        (PermissionError(13, "Permission denied"), EdgetuneError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
@pytest.mark.parametrize("step", [break_replace, break_fsync])
def test_a_failure_leaves_the_old_bytes_and_nothing_else(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: Callable[[pytest.MonkeyPatch, BaseException], None],
    error: BaseException,
    raised: type[BaseException],
) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    with monkeypatch.context() as patch:
        step(patch, error)
        with pytest.raises(raised) as caught:
            files.write_atomic(path, NEW)
    if raised is EdgetuneError:
        assert str(path) in str(caught.value)
        assert str(error.args[1]) in str(caught.value)
    assert path.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_where_no_file_was_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        break_replace(patch, OSError(5, "Input/output error"))
        with pytest.raises(EdgetuneError, match=r"file cannot be written: Input/output error"):
            files.write_atomic(tmp_path / "file", NEW)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_can_be_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    with monkeypatch.context() as patch:
        break_replace(patch, OSError(5, "Input/output error"))
        with pytest.raises(EdgetuneError):
            files.write_atomic(path, OLD)
    files.write_atomic(path, NEW)
    assert path.read_bytes() == NEW


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").write_bytes(OLD)
    with pytest.raises(EdgetuneError, match=r"folder/file cannot be written"):
        files.write_atomic(tmp_path / "folder" / "file", NEW)
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]
    assert (tmp_path / "folder").read_bytes() == OLD


@pytest.mark.parametrize(
    ("precision", "path"),
    [("fp32", "onnx/model.onnx"), ("int8", "onnx/model_int8.onnx"), ("q4", "onnx/model_q4.onnx")],
)
def test_graphs_have_the_names_that_others_know(precision: str, path: str) -> None:
    assert files.graph_file(precision) == path
    assert files.data_file(path) == f"{path}.data"


def test_sha256_is_hexadecimal() -> None:
    assert files.sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256(OLD) == hashlib.sha256(OLD).hexdigest()


# Reading


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a bundle's files, reached through a link."""
    (tmp_path / "real/onnx").mkdir(parents=True)
    for name in ("config.json", "onnx/model.onnx", "onnx/model.onnx.data"):
        (tmp_path / "real" / name).write_bytes(OLD)
    (tmp_path / "folder").symlink_to(tmp_path / "real")
    return tmp_path / "folder"


@pytest.mark.parametrize("name", ["config.json", "onnx/model.onnx", "onnx/model.onnx.data"])
def test_files_of_a_folder_are_read_although_a_link_leads_to_it(folder: Path, name: str) -> None:
    with files.open_inside(folder, name) as file:
        assert file.read() == OLD


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../real/config.json", "/etc/hostname", "./config.json", "onnx/../config.json", "onnx//x", "a\0"],
)
def test_a_path_that_is_not_plain_is_not_opened(folder: Path, name: str) -> None:
    with pytest.raises(OSError, match="not a plain path"):
        files.open_inside(folder, name)


@pytest.mark.parametrize("target", ["config.json", "./onnx/../config.json", "second", "absolute"])
def test_links_are_followed_inside(folder: Path, target: str) -> None:
    (folder / "second").symlink_to("config.json")
    (folder / "link").symlink_to((folder / "config.json").resolve() if target == "absolute" else target)
    (folder / "linked").symlink_to("onnx")
    for name in ("link", "linked/model.onnx", "linked/model.onnx.data"):
        with files.open_inside(folder, name) as file:
            assert file.read() == OLD


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("../outside", "leads out of the bundle"),
        ("/etc/hostname", "leads out of the bundle"),
        ("/dev/zero", "leads out of the bundle"),
        ("..", "leads out of the bundle"),
        ("../real2/x", "leads out of the bundle"),
        ("onnx/out", "leads out of the bundle"),
        ("nothing", "leads nowhere"),
        ("link", "leads nowhere"),
    ],
)
def test_links_that_lead_elsewhere_are_refused(folder: Path, target: str, why: str) -> None:
    (folder.parent / "outside").write_bytes(OLD)
    (folder.parent / "real2").mkdir()  # its name begins like that of the bundle's folder
    (folder.parent / "real2/x").write_bytes(OLD)
    (folder / "onnx/out").symlink_to("../../outside")
    (folder / "link").symlink_to(target)
    for name in ("link", *(["link/outside"] if target == ".." else [])):
        with pytest.raises(OSError, match=f"'link' is a link that {why}"):
            files.open_inside(folder, name)


def snapshot(folder: Path, repository: str) -> Path:
    """A folder as the hub's client makes it, with one file."""
    (folder / repository / "blobs").mkdir(parents=True)
    (folder / repository / "blobs/digest").write_bytes(OLD)
    found = folder / repository / "snapshots/revision"
    found.mkdir(parents=True)
    (found / "config.json").symlink_to("../../blobs/digest")
    return found


def test_links_of_the_hubs_cache_are_followed(tmp_path: Path) -> None:
    found = snapshot(tmp_path, "models--me--mine")
    (found / "sub/onnx").mkdir(parents=True)
    (found / "sub/onnx/model.onnx").symlink_to("../../../../blobs/digest")
    for root, name in ((found, "config.json"), (found / "sub", "onnx/model.onnx")):
        with files.open_inside(root, name) as file:
            assert file.read() == OLD


def test_no_other_link_out_of_a_snapshot_is_followed(tmp_path: Path) -> None:
    found = snapshot(tmp_path, "models--me--mine")
    other = snapshot(tmp_path, "models--me--other")
    like = snapshot(tmp_path, "mine")  # not the hub's
    (found / "link").symlink_to(other / "config.json")
    (found / "refs").symlink_to("../../refs")
    (tmp_path / "models--me--mine/refs").write_bytes(OLD)
    for root, name in ((found, "link"), (found, "refs"), (like, "config.json")):
        with pytest.raises(OSError, match="leads out of the bundle"):
            files.open_inside(root, name)
    (tmp_path / "models--me--mine/blobs").rename(tmp_path / "moved")
    (tmp_path / "models--me--mine/blobs").symlink_to(tmp_path / "moved")
    with pytest.raises(OSError, match="leads out of the bundle"):
        files.open_inside(found, "config.json")


def test_weights_may_have_no_other_name_and_other_files_may(folder: Path) -> None:
    for name in ("onnx/model.onnx", "onnx/model.onnx.data"):
        os.link(folder / name, folder / f"{name}.copy")
    files.open_inside(folder, "onnx/model.onnx").close()
    with pytest.raises(OSError, match="it is a hard link"):
        files.open_inside(folder, "onnx/model.onnx.data")


def test_a_pipe_is_refused_and_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    began = time.monotonic()
    with pytest.raises(OSError, match="not a regular file"):
        files.open_inside(folder, "pipe")
    assert time.monotonic() - began < 1


def test_a_file_that_became_a_pipe_is_refused_and_not_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(folder / "pipe")
    before = (folder / "config.json").stat()
    monkeypatch.setattr(Path, "lstat", lambda path: before)
    with pytest.raises(OSError, match="not a regular file"):
        files.open_regular(folder / "pipe")


@pytest.mark.parametrize(("size_bytes", "sound"), [(1_000_000, True), (1_000_001, False), (1 << 40, False)])
def test_sizes_are_bounded_by_what_a_file_is(folder: Path, size_bytes: int, sound: bool) -> None:
    os.truncate(folder / "config.json", size_bytes)
    if sound:
        files.open_inside(folder, "config.json").close()
        return
    with pytest.raises(OSError, match=f"{size_bytes:,} bytes: expected at most 1,000,000"):
        files.open_inside(folder, "config.json")


@pytest.mark.parametrize("name", ["tasks/colour.safetensors", "tasks/a..b.safetensors"])
def test_paths_of_tasks_are_known(name: str) -> None:
    assert files.is_task_path(name)


@pytest.mark.parametrize(
    "name", ["colour.safetensors", "tasks/.x.safetensors", "tasks/x", "tasks/a/b.safetensors", "tasks"]
)
def test_paths_of_other_files_are_no_tasks(name: str) -> None:
    assert not files.is_task_path(name)
