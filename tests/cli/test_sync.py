"""Copying bundles and tasks between places: only changes, always checked, and never partially."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import MakeTask
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import example, given, settings
from hypothesis import strategies as st
from killing import killed_at

from edgetune.cli import cli
from edgetune.sync import Report, offer, open_place, places, staging, sync
from edgetune.sync.index import Entry, Index, fingerprint
from edgetune.sync.places import Folder
from edgetune.sync.store import Store
from edgetune_runtime import Bundle, Engine, files
from edgetune_runtime.errors import BundleError, EdgetuneError, TaskError
from edgetune_runtime.verify import findings

Names = dict[str, str]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offer, "PAUSES_S", (0.0, 0.0, 0.0))


@pytest.fixture(autouse=True)
def _empty_memory() -> Iterator[None]:
    yield
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


class Site:
    """A folder on an HTTP server that counts what it serves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.served: list[tuple[str, int]] = []
        self.before: Callable[[str], None] = lambda path: None
        self.status: int | None = None
        self.redirect: str | None = None
        self.headers: list[dict[str, str]] = []
        site = self

        class Handler(SimpleHTTPRequestHandler):
            def do_HEAD(self) -> None:
                site.served.append((self.path.lstrip("/"), 0))
                super().do_HEAD()

            def do_GET(self) -> None:
                site.headers.append(dict(self.headers))
                site.before(self.path.lstrip("/"))
                if site.redirect is not None:
                    self.send_response(302)
                    self.send_header("Location", site.redirect + self.path)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                if site.status is not None:
                    self.send_error(site.status)
                    return
                super().do_GET()

            def copyfile(self, source: Any, outputfile: Any) -> None:
                data = source.read()
                site.served.append((self.path.lstrip("/"), len(data)))
                outputfile.write(data)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """An empty folder that is served."""
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site")
    yield site
    site.close()


@pytest.fixture
def published(site: Site, here: Path) -> Site:
    """The bundle, published and served."""
    go(here, site.folder)
    return site


def go(source: object, destination: object, **options: Any) -> Report:
    return sync(open_place(str(source)), open_place(str(destination)), **options)


def contents(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def in_memory(name: str) -> dict[str, bytes]:
    stored = MemoryFileSystem.store.items()
    return {path.removeprefix(f"/{name}/"): file.getvalue() for path, file in stored if path.startswith(f"/{name}/")}


def without_index(held: dict[str, bytes]) -> dict[str, bytes]:
    return {path: data for path, data in held.items() if path != files.INDEX}


def index_at(folder: Path) -> Index:
    return Index.from_json((folder / files.INDEX).read_bytes(), "index")


def true_index(folder: Path) -> Index:
    bundle = Bundle(folder)
    tasks = {name: Entry.of((folder / files.task_file(name)).read_bytes()) for name in bundle.task_names()}
    return Index(fingerprint(bundle.manifest), tasks)


def rewrite_index(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    record = json.loads((folder / files.INDEX).read_bytes())
    change(record)
    (folder / files.INDEX).write_text(json.dumps(record))


def flip_last(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


# A bundle where there is none


def test_a_folder_gets_all_of_it(here: Path, there: Path) -> None:
    report = go(here, there)
    assert without_index(contents(there)) == contents(here)
    assert index_at(there) == true_index(here)
    assert report.copied == ["README.md", "config.json", "tokenizer.json", *GRAPHS, "edgetune.json"]
    assert (report.added, report.unchanged, report.failed) == (["colour", "size"], 0, {})
    assert report.bytes == sum(map(len, contents(there).values()))
    with Engine(there) as engine, Engine(here) as original:
        assert engine.classify(["good"], task="colour") == original.classify(["good"], task="colour")
    assert [path.name for path in there.parent.iterdir() if "partial" in path.name] == []


FP32, INT8 = (
    [f"onnx/{name}.onnx", f"onnx/{name}_full.onnx", f"onnx/{name}_light.onnx"] for name in ("model", "model_int8")
)
GRAPHS = [*FP32, *INT8]


@pytest.mark.parametrize("chunk_bytes", [1000, 1 << 20])
def test_through_a_store_it_comes_back_equal(
    here: Path, there: Path, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int
) -> None:
    monkeypatch.setattr(places, "CHUNK_BYTES", chunk_bytes)
    go(here, "memory://fleet/support")
    assert without_index(in_memory("fleet/support")) == contents(here)
    go("memory://fleet/support", there)
    assert without_index(contents(there)) == contents(here)
    assert {finding.status for finding in findings(there)} == {"sound"}


def test_a_filesystem_with_a_rename_gets_it_whole(here: Path, tmp_path: Path) -> None:
    store = Store("local://store", LocalFileSystem(), str(tmp_path / "store"))
    sync(open_place(str(here)), store)
    assert without_index(contents(tmp_path / "store")) == contents(here)
    (tmp_path / "store/tasks/.size.safetensors.12.partial").write_bytes(b"half")
    report = sync(open_place(str(here)), store)
    assert (report.unchanged, report.bytes) == (2, 0)
    assert without_index(contents(tmp_path / "store")) == contents(here)


@pytest.mark.parametrize("scheme", ["plain", "file"])
def test_file_urls_and_paths_are_folders(here: Path, there: Path, scheme: str) -> None:
    go(here if scheme == "plain" else here.as_uri(), there if scheme == "plain" else there.as_uri())
    assert without_index(contents(there)) == contents(here)


def test_the_manifest_comes_last_to_a_store(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    write = Store.write
    monkeypatch.setattr(Store, "write", lambda self, path, chunks: (written.append(path), write(self, path, chunks)))
    go(here, "memory://fleet/support")
    tasks = ["tasks/colour.safetensors", "tasks/size.safetensors", "tasks/index.json"]
    assert written == ["README.md", "config.json", "tokenizer.json", *GRAPHS, *tasks, "edgetune.json"]


def test_an_empty_folder_is_taken_and_another_is_not(here: Path, there: Path) -> None:
    there.mkdir()
    go(here, there)
    other = there.parent / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    for place in (other, other / "mine.txt"):
        with pytest.raises(BundleError):
            go(here, place)
    with pytest.raises(BundleError, match="exists and is not a bundle"):
        go(here, other)
    assert contents(other) == {"mine.txt": b"mine"}


def test_weights_beside_a_graph_come_along(here: Path, there: Path) -> None:
    manifest = json.loads((here / files.MANIFEST).read_bytes())
    (here / "onnx/model.onnx.data").write_bytes(b"weights")
    manifest["graphs"]["fp32"]["data"] = "onnx/model.onnx.data"
    manifest["files"]["onnx/model.onnx.data"] = files.sha256(b"weights")
    (here / files.MANIFEST).write_text(json.dumps(manifest))
    go(here, there)
    assert (there / "onnx/model.onnx.data").read_bytes() == b"weights"


# Precisions


def test_only_some_precisions_are_copied_and_others_later(published: Site, there: Path) -> None:
    report = go(published.url, there, precisions=["int8"])
    assert report.left_out == ["fp32"]
    assert not (there / "onnx/model.onnx").exists()
    with Engine(there) as engine:
        assert engine.classify(["good"], task="size")
    assert go(published.url, there).copied == []
    published.served.clear()
    assert go(published.url, there, precisions=["int8"]).copied == []
    assert [path for path, _ in published.served] == [files.INDEX, files.CARD]
    assert go(published.url, there, precisions=["int8", "fp32"]).copied == FP32
    assert Bundle(there).has_graph("fp32")


def test_what_the_source_leaves_out_is_left_out(published: Site, there: Path) -> None:
    (published.folder / "onnx/model.onnx").unlink()
    assert go(published.url, there).left_out == ["fp32"]
    with pytest.raises(BundleError, match="has left out the precision 'fp32'"):
        go(published.url, there, precisions=["fp32"])
    with pytest.raises(BundleError, match="no precision 'q4': expected some of fp32, int8"):
        go(published.url, there, precisions=["q4"])
    (published.folder / "onnx/model_int8.onnx").unlink()
    with pytest.raises(BundleError, match="no graph of any precision"):
        go(published.url, there.parent / "another")


# Tasks


def test_only_the_index_the_card_and_what_changed_is_fetched(
    here: Path, there: Path, site: Site, make_task: MakeTask
) -> None:
    bundle = Bundle(here)
    for number in range(30):
        bundle.add_task(make_task(f"task{number}", seed=number))
    go(here, site.folder)
    go(site.url, there)
    site.served.clear()

    report = go(site.url, there)
    index_bytes = (site.folder / files.INDEX).stat().st_size
    card_bytes = (site.folder / files.CARD).stat().st_size
    assert site.served == [(files.INDEX, index_bytes), (files.CARD, card_bytes)]
    assert (report.unchanged, report.bytes) == (32, index_bytes + card_bytes)

    bundle.add_task(make_task("task7", seed=99))
    assert go(here, site.folder).replaced == ["task7"]
    site.served.clear()
    report = go(site.url, there)
    assert [path for path, _ in site.served] == [files.INDEX, files.CARD, "tasks/task7.safetensors"]
    assert report.bytes == sum(size for _, size in site.served)
    assert index_bytes + card_bytes < 6000
    assert (report.replaced, report.added, report.unchanged) == (["task7"], [], 31)
    assert without_index(contents(there)) == contents(here)


@pytest.mark.parametrize("store", [False, True], ids=["folder", "store"])
def test_tasks_come_change_and_go(here: Path, there: Path, make_task: MakeTask, store: bool) -> None:
    destination = "memory://fleet" if store else str(there)
    go(here, destination)
    bundle = Bundle(here)
    bundle.add_task(make_task("mood"))
    bundle.add_task(make_task("size", seed=9))
    bundle.remove_task("colour")
    report = go(here, destination)
    assert (report.added, report.replaced, report.removed, report.unchanged) == (["mood"], ["size"], [], 0)
    report = go(here, destination)
    assert (report.added, report.replaced, report.removed, report.unchanged) == ([], [], [], 2)
    assert go(here, destination, delete=True).removed == ["colour"]
    held = in_memory("fleet") if store else contents(there)
    assert without_index(held) == contents(here)
    assert Index.from_json(held[files.INDEX], "index") == true_index(here)


def test_only_named_tasks_are_touched(here: Path, there: Path, make_task: MakeTask) -> None:
    assert go(here, there, tasks=["size"]).added == ["size"]
    for name in ("size", "mood", "colour"):
        Bundle(here).add_task(make_task(name, seed=5))
    report = go(here, there, tasks=["mood", "size"])
    assert (report.added, report.replaced) == (["mood"], ["size"])
    Bundle(here).remove_task("mood")
    Bundle(here).remove_task("size")
    with pytest.raises(TaskError, match=r"no task 'mood' in .*: it has colour"):
        go(here, there, tasks=["mood"])
    assert go(here, there, tasks=["mood"], delete=True).removed == ["mood"]
    assert Bundle(there).task_names() == ["size"]
    for name in ("colours", "../size"):
        with pytest.raises(TaskError):
            go(here, there, tasks=[name], delete=True)


@pytest.mark.parametrize("new", [True, False], ids=["new", "there"])
def test_a_dry_run_says_it_and_changes_nothing(here: Path, there: Path, make_task: MakeTask, new: bool) -> None:
    if not new:
        go(here, there)
        Bundle(here).add_task(make_task("mood"))
        Bundle(here).add_task(make_task("size", seed=9))
        Bundle(here).remove_task("colour")
        (there / "tasks/.old.partial").write_bytes(b"half")
        os.utime(there / "tasks/.old.partial", (0, 0))
    before = contents(there)
    said = go(here, there, delete=True, dry_run=True)
    assert contents(there) == before
    assert list(there.parent.iterdir()) == ([here] if new else [*there.parent.iterdir()])
    done = go(here, there, delete=True)
    assert dataclasses.replace(said, bytes=0) == dataclasses.replace(done, bytes=0)
    assert 0 < said.bytes < done.bytes  # which has the index too


def test_an_index_in_a_folder_counts_for_nothing(here: Path, there: Path, make_task: MakeTask) -> None:
    go(here, here)
    go(here, there)
    shutil.copy(here / files.INDEX, here.parent / "old")
    Bundle(here).add_task(make_task("size", seed=9))
    (there / "tasks/colour.safetensors").write_bytes(b"damaged")
    assert go(here, there).replaced == ["colour", "size"]
    assert index_at(there) == true_index(here) != index_at(here)
    go(here, here)
    assert index_at(here) == true_index(here)


def test_the_index_disturbs_nobody(here: Path, tmp_path: Path) -> None:
    go(here, here)
    assert Bundle(here).task_names() == ["colour", "size"]
    assert {finding.status for finding in findings(here)} == {"sound"}
    (here / files.INDEX).unlink()
    (tmp_path / "elsewhere").write_text("{}")
    (here / files.INDEX).symlink_to(tmp_path / "elsewhere")
    assert [finding.subject for finding in findings(here) if finding.status == "fault"] == [files.INDEX]


# What does not belong together


@pytest.mark.parametrize("remote", [False, True], ids=["folder", "site"])
def test_another_bundle_is_refused_by_name(here: Path, there: Path, site: Site, remote: bool, bundle: Bundle) -> None:
    go(here, there)
    manifest = json.loads((here / files.MANIFEST).read_bytes())
    (here / files.MANIFEST).write_text(json.dumps({**manifest, "base_model": "other", "backbone_sha256": "ab" * 32}))
    shutil.rmtree(here / files.TASKS)
    source: object = here
    if remote:
        go(here, site.folder)
        source = site.url
    before = contents(there)
    with pytest.raises(BundleError) as caught:
        go(source, there)
    for part in ("other (abababababab…)", f"({bundle.manifest.facts.sha256[:12]}…)", "into a new folder"):
        assert part in str(caught.value)
    assert contents(there) == before


def test_other_figures_and_another_card_are_the_same_bundle(here: Path, there: Path) -> None:
    go(here, there)
    manifest = json.loads((here / files.MANIFEST).read_bytes())
    manifest["files"][files.CARD] = files.sha256(b"other")
    manifest["graphs"]["int8"]["parity"] = {}
    (here / files.MANIFEST).write_text(json.dumps(manifest))
    assert go(here, there).unchanged == 2
    manifest["files"][files.TOKENIZER] = files.sha256(b"other")
    (here / files.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"differ in tokenizer\.json: sync"):
        go(here, there)


def test_a_task_of_another_backbone_is_left_out_and_the_others_come(
    here: Path, there: Path, make_task: MakeTask
) -> None:
    go(here, there)
    dataclasses.replace(make_task("alien"), backbone_sha256="ab" * 32).save(here / "tasks/alien.safetensors")
    Bundle(here).add_task(make_task("mood"))
    report = go(here, there)
    assert report.added == ["mood"]
    assert "'alien' was trained on the backbone" in report.failed["alien"]
    assert Bundle(there).task_names() == ["colour", "mood", "size"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "nowhere is not a bundle"),
        ("memory://nowhere", "has no tasks/index.json: publish"),
        ("nothing://nowhere", "nothing://nowhere cannot be opened"),
        ("http://127.0.0.1:9/bundle", "cannot be read .Connection refused"),
        ("http://[::1/bundle", "is not a place"),
        ("http://127.0.0.1:port/bundle", "cannot be read"),
    ],
)
def test_a_source_that_is_none_is_one_line(there: Path, source: str, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        go(source, there)
    assert not there.exists()


@pytest.mark.parametrize("status", [403, 500, 503])
def test_a_server_that_fails_is_one_line(published: Site, there: Path, status: int) -> None:
    published.status = status
    with pytest.raises(BundleError, match=rf"tasks/index.json cannot be read \(HTTP status {status}"):
        go(published.url, there)


def test_http_is_only_read_and_passwords_are_not_told(published: Site, here: Path, there: Path) -> None:
    with pytest.raises(BundleError, match="can only be read from"):
        go(here, published.url)
    url = published.url.replace("://", "://user:secret@") + "?token=hidden"
    assert go(url, there).added == ["colour", "size"]
    assert {headers["Authorization"] for headers in published.headers} == {"Basic dXNlcjpzZWNyZXQ="}
    published.status = 500
    with pytest.raises(BundleError) as caught:
        go(url, there)
    assert "secret" not in str(caught.value)
    assert "hidden" not in str(caught.value)


# What comes damaged or hostile


def test_a_file_that_is_not_the_indexs_is_named_and_the_others_come(
    published: Site, there: Path, here: Path, make_task: MakeTask
) -> None:
    go(published.url, there)
    old = (there / "tasks/colour.safetensors").read_bytes()
    for name in ("colour", "size"):
        Bundle(here).add_task(make_task(name, seed=7))
    go(here, published.folder)
    said = index_at(published.folder).tasks["colour"]
    flip_last(published.folder / "tasks/colour.safetensors")
    found = files.sha256((published.folder / "tasks/colour.safetensors").read_bytes())
    published.served.clear()
    report = go(published.url, there)
    for part in ("task 'colour'", said.sha256[:12], found[:12]):
        assert part in report.failed["colour"]
    assert [path for path, _ in published.served].count("tasks/colour.safetensors") == 4
    assert report.replaced == ["size"]
    assert (there / "tasks/colour.safetensors").read_bytes() == old
    assert index_at(there) == true_index(there)


@pytest.mark.parametrize("absent", [False, True])
def test_a_file_that_is_being_replaced_is_tried_again(
    published: Site, there: Path, here: Path, make_task: MakeTask, absent: bool
) -> None:
    go(published.url, there)
    new = make_task("size", seed=7)
    fetched: list[str] = []

    def publish_meanwhile(path: str) -> None:
        fetched.append(path)
        if path == "tasks/size.safetensors" and fetched.count(path) == 1:
            if absent:
                (published.folder / path).unlink()
            else:
                new.save(published.folder / path)
        elif path == files.INDEX and fetched.count(path) == 3:
            Bundle(here).add_task(new)
            go(here, published.folder)

    rewrite_index(published.folder, lambda record: record["tasks"]["size"].update(sha256="ab" * 32))
    published.before = publish_meanwhile
    assert go(published.url, there).replaced == ["size"]
    assert (there / "tasks/size.safetensors").read_bytes() == new.to_bytes()


@pytest.mark.parametrize("folder", [False, True], ids=["store", "served folder"])
def test_while_a_publisher_is_at_work_the_old_and_the_new_are_taken(
    here: Path, there: Path, site: Site, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch, folder: bool
) -> None:
    published = str(site.folder) if folder else "memory://fleet"
    go(here, published)
    before = contents(here)
    for name in ("colour", "mood", "size"):
        Bundle(here).add_task(make_task(name, seed=7))
    monkeypatch.setattr(offer, "PAUSES_S", ())
    source = open_place(site.url if folder else published)
    seen = []
    writer = Folder if folder else Store
    write = writer.write

    def look_before(place: Any, path: str, chunks: Any) -> None:
        monkeypatch.setattr(writer, "write", write)
        shutil.rmtree(there, ignore_errors=True)
        report = sync(source, open_place(str(there)))
        assert report.failed == {}
        seen.append([contents(there)[f"tasks/{name}.safetensors"] for name in report.added])
        monkeypatch.setattr(writer, "write", look_before)
        write(place, path, chunks)

    monkeypatch.setattr(writer, "write", look_before)
    go(here, published)
    old, new = ([held[f"tasks/{name}.safetensors"] for name in ("colour", "size")] for held in (before, contents(here)))
    assert seen == [old, old, [new[0], old[1]], [new[0], old[1]], new]


def test_a_task_that_goes_meanwhile_is_passed_over(published: Site, there: Path, here: Path) -> None:
    def publish_meanwhile(path: str) -> None:
        if path == "tasks/size.safetensors":
            Bundle(here).remove_task("size")
            go(here, published.folder, delete=True)
            published.before = lambda path: None

    published.before = publish_meanwhile
    assert go(published.url, there).added == ["colour"]
    assert Bundle(there).task_names() == ["colour"]


SOUND = '{"format_version":1,"bundle":"%s","replacing":{},"tasks":{%s}}'


def one_task(name: str = '"x"', sha256: str = f'"{"ab" * 32}"', size: str = "1") -> str:
    return SOUND % ("cd" * 32, f'{name}:{{"sha256":{sha256},"bytes":{size}}}')


HOSTILE = {
    "nothing": "",
    "not JSON": "{",
    "a list": "[]",
    "a number": "1",
    "deep": "[" * 100_000,
    "NaN": one_task(size="NaN"),
    "infinite": one_task(size="1e999"),
    "path": one_task(name='"../../etc/x"'),
    "absolute path": one_task(name='"/etc/x"'),
    "backslashes": one_task(name='"..\\\\x"'),
    "hidden": one_task(name='".x"'),
    "zero byte": one_task(name='"x\\u0000"'),
    "no name": one_task(name='""'),
    "long name": one_task(name=f'"{"x" * 65}"'),
    "huge": one_task(size=str(files.TASK_LIMIT_BYTES + 1)),
    "huger": one_task(size="9" * 4000),
    "negative": one_task(size="-1"),
    "empty": one_task(size="0"),
    "true": one_task(size="true"),
    "text": one_task(size='"1"'),
    "short digest": one_task(sha256='"ab"'),
    "upper digest": one_task(sha256=f'"{"AB" * 32}"'),
    "no digest": one_task(sha256="null"),
    "digest and more": one_task(sha256=f'"{"ab" * 32}\\n"'),
    "twice": SOUND % ("cd" * 32, ",".join([f'"x":{{"sha256":"{"ab" * 32}","bytes":1}}'] * 2)),
    "more fields": SOUND % ("cd" * 32, f'"x":{{"sha256":"{"ab" * 32}","bytes":1,"url":"http://x"}}'),
    "a list of tasks": (SOUND % ("cd" * 32, "")).replace('"tasks":{}', '"tasks":[]'),
    "replacing a path": (SOUND % ("cd" * 32, "")).replace("{}", '{"../x":{"sha256":"%s","bytes":1}}' % ("ab" * 32), 1),
    "replacing text": (SOUND % ("cd" * 32, "")).replace("{}", '["x"]', 1),
    "no bundle": (SOUND % ("cd" * 32, "")).replace("bundle", "bundles"),
    "other field": (SOUND % ("cd" * 32, "")).replace('"bundle"', '"more":1,"bundle"'),
    "half a pair": one_task(name='"\\ud800"'),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_index_is_refused(published: Site, there: Path, text: str) -> None:
    (published.folder / files.INDEX).write_text(text)
    before = set(there.parent.iterdir())
    with pytest.raises(BundleError, match="is not a sound index of tasks"):
        go(published.url, there)
    assert set(there.parent.iterdir()) == before


@pytest.mark.parametrize("version", ["0", "2", "1.0", '"1"', "null", "true"])
def test_another_version_of_the_index_is_refused(version: str) -> None:
    text = one_task().replace('"format_version":1', f'"format_version":{version}')
    with pytest.raises(BundleError, match=r"has index format version .*, expected 1"):
        Index.from_json(text.encode(), "odd")


def test_an_index_without_end_is_not_read_to_its_end(published: Site, there: Path) -> None:
    with (published.folder / files.INDEX).open("wb") as file:
        file.truncate(26_000_000)
    with pytest.raises(BundleError, match="more than 25,000,000 bytes"):
        go(published.url, there)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
digests = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
task_entries = st.builds(Entry, digests, st.integers(1, files.TASK_LIMIT_BYTES))
indexes = st.builds(Index, digests, *[st.dictionaries(names, task_entries, max_size=5)] * 2)


@settings(deadline=None, max_examples=50)
@given(indexes)
def test_an_index_comes_back_equal(index: Index) -> None:
    assert Index.from_json(index.to_json(), "index") == index


@settings(deadline=None, max_examples=200)
@given(
    st.binary(max_size=40)
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.fixed_dictionaries(
        {"format_version": st.just(1), "bundle": digests | json_values, "replacing": json_values, "tasks": json_values}
    ).map(lambda value: json.dumps(value).encode())
)
@example(b"\xff\xfe")
def test_any_bytes_are_an_index_or_refused(data: bytes) -> None:
    try:
        index = Index.from_json(data, "junk")
    except BundleError as error:
        assert str(error).startswith("junk ")
    else:
        assert all(map(files.is_task_name, [*index.tasks, *index.replacing]))


@pytest.mark.parametrize("longer", [1, 100_000])
def test_no_more_of_a_task_is_read_than_the_index_says(published: Site, there: Path, longer: int) -> None:
    with (published.folder / "tasks/size.safetensors").open("ab") as file:
        file.write(b"x" * longer)
    report = go(published.url, there)
    assert "has more than" in report.failed["size"]
    assert Bundle(there).task_names() == ["colour"]


@pytest.mark.parametrize("name", ["more.py", "tasks/size.safetensors", "onnx/model_q4.onnx"])
def test_a_manifest_that_names_other_files_is_refused(here: Path, there: Path, name: str) -> None:
    manifest = json.loads((here / files.MANIFEST).read_bytes())
    (here / name).parent.mkdir(exist_ok=True)
    (here / name).write_bytes(b"more")
    manifest["files"][name] = files.sha256(b"more")
    (here / files.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(EdgetuneError, match=f"names '{name}'"):
        go(here, there)
    assert not there.exists()


def test_a_manifest_of_another_bundle_than_the_index_is_refused(published: Site, there: Path) -> None:
    rewrite_index(published.folder, lambda record: record.update(bundle="ab" * 32))
    with pytest.raises(BundleError, match="has the index of another bundle's tasks"):
        go(published.url, there)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", *GRAPHS])
@pytest.mark.parametrize("change", [flip_last, Path.unlink])
def test_a_damaged_file_is_named_and_nothing_appears(
    published: Site, there: Path, name: str, change: Callable[[Path], None]
) -> None:
    change(published.folder / name)
    if change is Path.unlink and name in GRAPHS:
        return  # omitted, not damaged
    with pytest.raises(BundleError, match=f"{name} is damaged|incomplete .{name} is not there"):
        go(published.url, there)
    assert not there.exists()


KINDS = ["folder", "site", "store"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("edit", ["longer", "as long", "removed"])
def test_an_edited_card_is_copied_and_no_damage(
    here: Path, there: Path, site: Site, kind: str, edit: str, tmp_path: Path
) -> None:
    source = {"folder": here, "site": site.url, "store": f"local://{tmp_path}/store"}[kind]
    published = {"folder": here, "site": site.folder, "store": tmp_path / "store"}[kind]

    def publish() -> None:
        if kind != "folder":
            go(here, published)

    publish()
    assert files.CARD in go(source, there).copied
    before = (here / files.CARD).read_bytes()
    after = {"longer": before + b"A line.\n", "as long": before[:-1] + b"!", "removed": before}[edit]
    if edit == "removed":
        (here / files.CARD).unlink()
    else:
        (here / files.CARD).write_bytes(after)
    publish()
    copied = [] if edit == "removed" else [files.CARD]
    assert go(source, there, dry_run=True).copied == copied
    assert go(source, there).copied == copied
    assert go(source, there).copied == []
    assert (there / files.CARD).read_bytes() == after
    go(source, tmp_path / "new")  # a bundle that is copied with its edited card
    assert Engine(tmp_path / "new").classify(["good"], task="size")
    assert {finding.status for finding in findings(there) if finding.subject != files.CARD} == {"sound"}


def test_extra_files_disturb_no_sync(here: Path, there: Path) -> None:
    for name in (".DS_Store", "LICENSE", ".gitattributes", ".git/HEAD", "tasks/.DS_Store", "tasks/notes.txt"):
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text("x")
    assert go(here, there).added == ["colour", "size"]
    assert not {".DS_Store", "LICENSE", ".gitattributes", ".git/HEAD"} & contents(there).keys()
    assert go(here, there).copied == []


def test_links_inside_a_source_are_followed_and_others_told(here: Path, there: Path, tmp_path: Path) -> None:
    (here / "tasks/..data").mkdir()
    (here / "tasks/size.safetensors").rename(here / "tasks/..data/size.safetensors")
    (here / "tasks/size.safetensors").symlink_to("..data/size.safetensors")
    (tmp_path / "outside.safetensors").write_bytes((here / "tasks/colour.safetensors").read_bytes())
    (here / "tasks/out.safetensors").symlink_to(tmp_path / "outside.safetensors")
    (here / "tasks/nowhere.safetensors").symlink_to("nothing")
    report = go(here, there)
    assert report.added == ["colour", "size"]
    assert set(report.failed) == {"out", "nowhere"}
    assert "leads out of the bundle" in report.failed["out"]
    assert not (there / "tasks/size.safetensors").is_symlink()
    assert set(go(here, there, tasks=["out"]).failed) == {"out"}
    shutil.copy(tmp_path / "outside.safetensors", there / "tasks/out.safetensors")
    assert go(here, there, delete=True).removed == []  # the source has it, although it cannot be read
    (here / "tasks/notes.bin").write_text("x")
    done = CliRunner().invoke(cli, ["tasks", "sync", str(here), str(there)])
    assert "failed    out" in done.output
    assert "notes.bin: its name does not end in .safetensors" in done.output


def test_links_are_not_written_through(here: Path, there: Path, tmp_path: Path, make_task: MakeTask) -> None:
    go(here, there)
    (tmp_path / "elsewhere").mkdir()
    shutil.rmtree(there / files.TASKS)
    (there / files.TASKS).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="is a link"):
        go(here, there)
    assert contents(tmp_path / "elsewhere") == {}


# What is interrupted


def test_a_copy_goes_on_where_it_was_interrupted(published: Site, there: Path) -> None:
    def break_off(path: str) -> None:
        if path == "onnx/model_int8.onnx":
            published.status = 500

    published.before = break_off
    with pytest.raises(BundleError, match="HTTP status 500"):
        go(published.url, there)
    assert not there.exists()
    left = there.with_name(".there.sync.partial")
    assert (left / "onnx/model.onnx").exists()
    flip_last(left / "config.json")
    (left / "tasks").mkdir(exist_ok=True)
    (left / "tasks/stray.safetensors").write_bytes(b"stray")
    (left / "stray").symlink_to("/")
    published.before, published.status = (lambda path: None), None
    published.served.clear()
    go(published.url, there)
    fetched = [path for path, size in published.served if size]
    assert "onnx/model.onnx" not in fetched
    assert "config.json" in fetched
    assert not left.exists()
    assert contents(there) == contents(published.folder)


@pytest.mark.skipif(sys.platform == "win32", reason="has no such lock")
def test_two_do_not_write_one_new_bundle(here: Path, there: Path) -> None:
    with staging.staged(there, {}) as folder:
        with pytest.raises(BundleError, match="another sync writes"):
            go(here, there)
        go(here, folder.path / "inside")
        shutil.rmtree(folder.path / "inside")
    assert there.is_dir()


def test_what_killed_writers_left_goes_and_what_others_write_stays(here: Path, there: Path) -> None:
    go(here, there)
    old, young = there / "tasks/.size.safetensors.old.partial", there / "tasks/.size.safetensors.new.partial"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    go(here, there)
    assert (old.exists(), young.exists()) == (False, True)
    assert Bundle(there).task_names() == ["colour", "size"]


class Stopped(BaseException):
    """Simulates a kill."""


@pytest.mark.parametrize("moment", range(10))
def test_a_publisher_that_is_stopped_is_mended_by_the_next(
    here: Path, there: Path, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """Whatever is in the store after an interruption, the next publisher's index is correct, whatever tasks it has."""
    go(here, "memory://fleet")
    old = shutil.copytree(here, here.parent / "old")
    for name in ("colour", "size", "mood"):
        Bundle(here).add_task(make_task(name, seed=3))
    left = moment
    write = Store.write

    def stopping(store: Store, path: str, chunks: Any) -> None:
        nonlocal left
        for after in (False, True):
            if left == 0:
                raise Stopped
            left -= 1
            if not after:
                write(store, path, chunks)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", stopping)
        with pytest.raises(Stopped):
            go(here, "memory://fleet")
    for publisher in (old, here):
        go(publisher, "memory://fleet", delete=True)
        held = in_memory("fleet")
        assert without_index(held) == contents(publisher)
        assert Index.from_json(held[files.INDEX], "index") == true_index(publisher)
    go("memory://fleet", there)
    assert without_index(contents(there)) == contents(here)


def test_an_index_of_a_store_that_is_damaged_is_written_anew(here: Path) -> None:
    go(here, "memory://fleet")
    MemoryFileSystem().pipe_file("/fleet/tasks/index.json", b"junk")
    assert go(here, "memory://fleet").unchanged == 2
    assert Index.from_json(in_memory("fleet")[files.INDEX], "index") == true_index(here)


def test_syncs_at_the_same_time_leave_whole_tasks_and_a_true_index(
    here: Path, there: Path, make_task: MakeTask
) -> None:
    go(here, there)
    sources = []
    for number in range(3):
        source = shutil.copytree(here, here.parent / f"source{number}")
        for name in ("colour", "size", "mood", f"own{number}"):
            Bundle(source).add_task(make_task(name, seed=number))
        sources.append(source)
    failed: list[BaseException] = []

    def again_and_again(source: Path) -> None:
        try:
            for _ in range(5):
                go(source, there)
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=again_and_again, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert index_at(there) == true_index(there)
    bundle = Bundle(there)
    assert bundle.task_names() == ["colour", "mood", "own0", "own1", "own2", "size"]
    for name in bundle.task_names():
        path = files.task_file(name)
        assert (there / path).read_bytes() in [contents(source).get(path) for source in sources]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("new", [False, True], ids=["tasks", "bundle"])
def test_a_kill_at_any_call_leaves_old_or_new(here: Path, there: Path, make_task: MakeTask, new: bool) -> None:
    """SIGKILL between all writing system calls of a sync; for a whole bundle, at every third call."""
    old = shutil.copytree(here, here.parent / "old")
    bundle = Bundle(here)
    bundle.add_task(make_task("mood", prefix=1))
    bundle.add_task(make_task("size", prefix=1, seed=9))
    bundle.remove_task("colour")
    before, after = contents(old), contents(here)
    moments, ended = 0, False
    while not ended:
        shutil.rmtree(there, ignore_errors=True)
        shutil.rmtree(there.with_name(".there.sync.partial"), ignore_errors=True)
        if not new:
            shutil.copytree(old, there)
        ended = killed_at(moments, lambda: go(here, there, delete=True))
        if there.exists():
            found = contents(there)
            for path in before.keys() | after.keys():
                assert found.get(path) in (before.get(path), after.get(path)), (moments, path)
            assert set(Bundle(there).task_names()) <= {"colour", "mood", "size"}
            assert all(Bundle(there).load_task(name) for name in Bundle(there).task_names())
        for left in there.parent.rglob("*.partial"):
            os.utime(left, (0, 0))
        go(here, there, delete=True)
        assert without_index(contents(there)) == after, moments
        assert index_at(there) == true_index(here)
        assert list(there.parent.rglob("*.partial")) == []
        moments += 3 if new else 1
    assert moments > 20


# The command


def command(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["tasks", "sync", *map(str, arguments)])
    return done.exit_code, done.stdout


def test_the_command_says_what_it_did(here: Path, there: Path, make_task: MakeTask) -> None:
    command(here, there)
    Bundle(here).add_task(make_task("mood"))
    Bundle(here).add_task(make_task("size", seed=9))
    Bundle(here).remove_task("colour")
    size = len(contents(here)["tasks/mood.safetensors"]) + len(contents(here)["tasks/size.safetensors"])
    assert command(here, there, "--delete", "--dry-run") == (0, SAID.format(size, "would be "))
    code, said = command(here, there, "--delete")
    assert (code, said.partition(";")[0]) == (0, SAID.partition(";")[0])


SAID = """\
added     mood
replaced  size
removed   colour
1 added, 1 replaced, 1 removed, 0 unchanged; {:,} bytes {}transferred
"""


def test_the_command_gives_json(here: Path, there: Path) -> None:
    code, said = command(here, there, "--precision", "int8", "--json")
    assert code == 0
    assert json.loads(said) == {
        "source": str(here),
        "destination": str(there),
        "dry_run": False,
        "copied": ["README.md", "config.json", "tokenizer.json", *INT8, "edgetune.json"],
        "left_out": ["fp32"],
        "added": ["colour", "size"],
        "replaced": [],
        "removed": [],
        "unchanged": 0,
        "failed": {},
        "bytes": sum(map(len, contents(there).values())),
    }


def run(*arguments: object, without: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run `edgetune` in a separate process in which the modules in `without` cannot be imported."""
    program = f"import sys\nfor name in {without!r}: sys.modules[name] = None\nfrom edgetune.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, "tasks", "sync", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_folders_and_http_need_no_other_package(published: Site, there: Path) -> None:
    done = run(published.url, there, without=("fsspec", "aiohttp", "requests", "torch", "transformers", "onnxruntime"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("transferred\n")


def test_a_store_needs_one_and_it_is_named(here: Path) -> None:
    done = run(here, "memory://fleet", without=("fsspec",))
    assert done.returncode == 1
    assert done.stderr == (
        "edgetune: the package 'fsspec' is needed for this and is not installed: pip install 'edgetune[sync]'\n"
    )


def test_tasks_that_failed_are_told_and_end_with_1(published: Site, there: Path) -> None:
    rewrite_index(published.folder, lambda record: record["tasks"]["size"].update(sha256="ab" * 32))
    rewrite_index(published.folder, lambda record: record["tasks"]["colour"].update(bytes=5))
    done = CliRunner().invoke(cli, ["tasks", "sync", published.url, str(there)])
    assert isinstance(done.exception, TaskError)
    assert "the file of task 'colour'" in str(done.exception)
    assert str(done.exception).endswith("(and 1 more failed: size)")
    assert done.stdout.splitlines()[-3:-1] == ["failed    colour", "failed    size"]
    assert Bundle(there).task_names() == []


def test_long_copies_are_told_of(here: Path, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgetune.cli.sync._EVERY_S", 0.0)
    done = CliRunner().invoke(cli, ["tasks", "sync", str(here), str(there)])
    size_mb = (here / "onnx/model.onnx").stat().st_size / 1e6
    assert f"onnx/model.onnx: {size_mb:.1f} of {size_mb:.1f} MB\n" in done.stderr
    assert "MB" not in done.stdout


@pytest.mark.parametrize("target", ["{folder}/edgetune.json", "ftp://127.0.0.1/edgetune.json"])
def test_a_redirect_leads_to_no_file_of_this_machine(published: Site, there: Path, target: str) -> None:
    published.redirect = target.format(folder=published.folder.as_uri())
    with pytest.raises(BundleError, match=r"tasks/index\.json cannot be read"):
        go(published.url, there)


def test_a_redirect_to_another_server_is_followed_without_the_password(published: Site, there: Path) -> None:
    first = Site(published.folder)
    first.redirect = published.url
    try:
        assert go(first.url.replace("://", "://user:secret@"), there).added == ["colour", "size"]
    finally:
        first.close()
    assert "Authorization" in first.headers[0]
    assert not any("Authorization" in headers for headers in published.headers)


@pytest.mark.parametrize("arguments", [[], ["one"], ["one", "two", "three"], ["one", "two", "--tasks", "x"]])
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    assert command(*arguments)[0] == 2
