"""Bundles on a hub: pushed, pulled, synced and opened by name, through a small hub on this machine."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import TEXTS, MakeTask
from huggingface_hub import ModelCard, get_session
from killing import killed_at
from local_hub import TOKEN, LocalHub, Repository

import edgetune
from edgetune.cli import cli
from edgetune.sync import Report, open_place, places, pull, push, sync
from edgetune.sync import hub as hub_place
from edgetune_runtime import Bundle, Engine, files
from edgetune_runtime.card import card
from edgetune_runtime.errors import BundleError, TaskError
from edgetune_runtime.hub import HubName, local_folder
from edgetune_runtime.manifest import TaskParity

NAME = "ada/support"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHub]:
    """An empty hub that this process uses."""
    hub = LocalHub()
    with hub.used_by(monkeypatch, tmp_path / "home"):
        yield hub
    hub.close()


@pytest.fixture
def published(hub: LocalHub, here: Path) -> Repository:
    """The repository, with the bundle."""
    push(here, NAME)
    hub.served.clear()
    hub.sent.clear()
    return hub.repositories[NAME]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without_card(held: dict[str, bytes]) -> dict[str, bytes]:
    return {path: data for path, data in held.items() if path not in (files.CARD, files.INDEX)}


def sound(folder: Path) -> bool:
    """Check every file against the manifest; raises an error if one differs."""
    bundle = Bundle(folder)
    return all(bundle.digest(path) for path in bundle.manifest.files if path != files.CARD)


def bodies(pairs: list[tuple[str, str, int]]) -> int:
    return sum(size for _, _, size in pairs)


# Names.


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ada/support", HubName("ada/support")),
        ("hf://ada/support", HubName("ada/support")),
        ("hf://ada/support@v2", HubName("ada/support", "v2")),
        ("ada/support@refs/pr/3", HubName("ada/support", "refs/pr/3")),
        ("a.b-c/d_e.f", HubName("a.b-c/d_e.f")),
    ],
)
def test_a_name_is_read(text: str, name: HubName) -> None:
    assert HubName.parse(text) == name
    assert HubName.parse(str(name)) == name


@pytest.mark.parametrize(
    "text", ["support", "hf://ada", "ada/support/x", "ada/", "../x/y", "ada/..", "a b/c", "ada/s@"]
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(BundleError, match=r"expected user/name or user/name@revision"):
        HubName.parse(text)


def test_two_revisions_are_refused() -> None:
    assert HubName.parse("ada/support@v2", "v2").revision == "v2"
    with pytest.raises(BundleError, match="names another revision"):
        HubName.parse("ada/support@v2", "v3")


# There and back.


def test_what_is_pushed_comes_back_equal_and_answers_alike(hub: LocalHub, here: Path, there: Path) -> None:
    report = push(here, NAME, private=True)
    repository = hub.repositories[NAME]
    assert repository.private
    assert report.added == ["colour", "size"]
    assert repository.messages == ["initial commit", "Publish with edgetune"]  # visible completely, or not at all
    assert pull(NAME, there).added == ["colour", "size"]
    assert without_card(contents(there)) == without_card(contents(here))
    assert (there / files.CARD).read_bytes() == repository.files[files.CARD]
    assert sound(there)
    with Engine(here) as own, Engine(f"hf://{NAME}") as fetched:
        assert fetched.classify(TEXTS, task="colour") == own.classify(TEXTS, task="colour")


def test_only_what_changed_goes_and_comes(
    hub: LocalHub, published: Repository, here: Path, there: Path, make_task: MakeTask
) -> None:
    pull(NAME, there)
    task = Bundle(here).path / files.task_file("colour")
    Bundle(here).add_task(make_task("colour", prefix=6, seed=5))
    index, size = published.files[files.INDEX], task.stat().st_size
    hub.sent.clear()
    report = push(here, NAME)
    assert (report.replaced, report.unchanged, report.copied) == (["colour"], 1, [])
    assert size < report.bytes < size + 3 * len(index)  # the index during the change, and at the end
    large = [(path, sent) for method, path, sent in hub.sent if method == "PUT"]
    assert [sent for _, sent in large] == [size]
    others = bodies(hub.sent) - size
    assert others < 6 * len(index) + 6000, hub.sent  # samples, the index, the commit
    hub.served.clear()
    assert pull(NAME, there).replaced == ["colour"]
    loaded = {path.rpartition("/")[2]: sent for method, path, sent in hub.served if "/resolve/" in path}
    assert set(loaded) == {"index.json", "README.md", "colour.safetensors"}
    assert Bundle(there).load_task("colour").sha256 == Bundle(here).load_task("colour").sha256


def test_nothing_new_is_no_commit(hub: LocalHub, published: Repository, here: Path) -> None:
    assert push(here, NAME) == Report(unchanged=2)
    assert len(published.commits) == 2
    assert not [path for method, path, _ in hub.sent if method != "GET"]


def test_tasks_go_that_the_bundle_does_not_have(published: Repository, here: Path, there: Path) -> None:
    pull(NAME, there)
    Bundle(here).remove_task("size")
    assert push(here, NAME).removed == []
    assert push(here, NAME, delete=True).removed == ["size"]
    assert files.task_file("size") not in published.files
    assert pull(NAME, there).removed == []
    assert pull(NAME, there, delete=True).removed == ["size"]
    assert Bundle(there).task_names() == ["colour"]


def test_sync_goes_both_ways(hub: LocalHub, here: Path, there: Path, tmp_path: Path) -> None:
    sync(open_place(str(here)), open_place(f"hf://{NAME}"))
    sync(open_place(f"hf://{NAME}"), open_place(f"hf://{NAME}-copy"))
    sync(open_place(f"hf://{NAME}-copy"), open_place(str(there)))
    assert without_card(contents(there)) == without_card(contents(here))
    assert hub.repositories[f"{NAME}-copy"].files == hub.repositories[NAME].files


def test_a_new_branch_begins_as_the_main_one(
    published: Repository, here: Path, there: Path, make_task: MakeTask
) -> None:
    Bundle(here).add_task(make_task("new"))
    assert push(here, NAME, revision="next").added == ["new"]
    assert "tasks/new.safetensors" not in published.files
    assert "tasks/new.safetensors" in published.tree("next")
    pull(f"{NAME}@next", there, tasks=["new"])
    assert Bundle(there).task_names() == ["new"]
    old = next(oid for oid in published.commits if oid == published.branches["main"])
    assert pull(NAME, there.with_name("old"), revision=old).added == ["colour", "size"]


def test_a_dry_run_changes_nothing(hub: LocalHub, here: Path, there: Path) -> None:
    assert push(here, NAME, dry_run=True).added == ["colour", "size"]
    assert hub.repositories == {}
    push(here, NAME)
    assert pull(NAME, there, dry_run=True).bytes > 0
    assert not there.exists()


def test_only_one_precision_is_fetched(hub: LocalHub, published: Repository, there: Path) -> None:
    with Engine(f"hf://{NAME}", precision="int8") as engine:
        assert engine.classify(TEXTS, task="size")
        assert not engine.bundle.has_graph("fp32")
    assert not [path for method, path, _ in hub.served if path.endswith("onnx/model.onnx")]
    hub.served.clear()
    with Engine(f"hf://{NAME}") as engine:
        assert engine.precisions == ("int8", "fp32")
    assert not [path for method, path, _ in hub.served if path.endswith("int8.onnx")]  # that existed already
    assert pull(NAME, there, precisions=["int8"]).left_out == ["fp32"]


def test_a_graph_with_weights_beside_it_goes_and_comes(hub: LocalHub, here: Path, there: Path) -> None:
    """As for models above 2 GB; here the weights are only a few bytes."""
    manifest = json.loads((here / files.MANIFEST).read_bytes())
    data = b"weights"
    (here / "onnx/model.onnx.data").write_bytes(data)
    manifest["graphs"]["fp32"]["data"] = "onnx/model.onnx.data"
    manifest["files"]["onnx/model.onnx.data"] = files.sha256(data)
    (here / files.MANIFEST).write_text(json.dumps(manifest))
    push(here, NAME)
    pull(NAME, there)
    assert (there / "onnx/model.onnx.data").read_bytes() == data


def test_many_tasks_are_sent_some_at_a_time(
    hub: LocalHub, here: Path, monkeypatch: pytest.MonkeyPatch, make_task: MakeTask
) -> None:
    monkeypatch.setattr(hub_place, "_WAITING_BYTES", 5000)
    for number in range(7):
        Bundle(here).add_task(make_task(f"task{number}", seed=number))
    push(here, NAME)
    assert {path for path in hub.repositories[NAME].files if "task" in path.partition("/")[2]} >= {
        files.task_file(f"task{number}") for number in range(7)
    }
    asked = [path for _, path, _ in hub.sent if "preupload" in path]
    assert 3 < len(asked) < 20


# What goes wrong.


def test_a_missing_token_is_told(hub: LocalHub, here: Path, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push(here, NAME, private=True)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(BundleError, match=r"it is private.*set HF_TOKEN or run 'hf auth login'"):
        pull(NAME, there)
    assert not there.exists()
    with pytest.raises(BundleError, match="set HF_TOKEN"):
        Engine(f"hf://{NAME}")
    with pytest.raises(BundleError, match="HTTP status 401: the token may not do this"):
        push(here, "ada/another")
    assert "ada/another" not in hub.repositories
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    pull(NAME, there)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ada/nothing", "there is no such repository, or it is private"),
        (f"{NAME}@v9", "it has no such revision"),
        ("ada/gated", "its owner has to give access first"),
        ("ada/empty", "has no tasks/index.json|is not a bundle"),
    ],
)
def test_what_is_not_there_is_told(hub: LocalHub, published: Repository, there: Path, name: str, message: str) -> None:
    hub.repositories["ada/gated"] = Repository(gated=True)
    hub.repositories["ada/empty"] = Repository()
    hub.repositories["ada/empty"].commit("main", {"config.json": b"{}"})
    with pytest.raises(BundleError, match=message):
        pull(name, there)
    with pytest.raises(BundleError, match=message):
        local_folder(f"hf://{name}")
    assert not there.exists()


def test_another_owners_name_is_refused(hub: LocalHub, here: Path) -> None:
    with pytest.raises(BundleError, match="HTTP status 403"):
        push(here, "bob/support")
    assert hub.repositories == {}


def test_a_tag_cannot_be_pushed_to(published: Repository, here: Path, make_task: MakeTask) -> None:
    Bundle(here).add_task(make_task("new"))
    with pytest.raises(BundleError, match="it has no such revision"):
        push(here, NAME, revision=published.branches["main"])


def test_a_wrong_digest_is_refused(published: Repository, there: Path, here: Path, make_task: MakeTask) -> None:
    pull(NAME, there)
    old = contents(there)
    tree = dict(published.tree("main"))
    Bundle(here).add_task(make_task("colour", seed=7))
    push(here, NAME)
    for path in (files.task_file("colour"), "onnx/model_int8.onnx"):
        tree = dict(published.tree("main"))
        tree[path] = tree[path][:-1] + bytes([tree[path][-1] ^ 1])
        published.commit("main", tree)
    report = pull(NAME, there)
    assert "and the index says" in report.failed["colour"]
    assert without_card(contents(there)) == without_card(old)
    with pytest.raises(BundleError, match=r"model_int8.onnx is damaged"):
        pull(NAME, there.with_name("new"))
    assert not there.with_name("new").exists()
    with pytest.raises(BundleError, match="SHA-256"), Engine(f"hf://{NAME}") as engine:
        engine.classify(TEXTS, task="size")


def test_a_stream_that_breaks_is_gone_on_with(
    hub: LocalHub, published: Repository, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "CHUNK_BYTES", 10_000)  # a chunk is read again, but not the chunks before it
    hub.broken = {"onnx/model.onnx", files.task_file("size")}
    pull(NAME, there)
    half = len(published.files["onnx/model.onnx"]) // 2
    assert f"onnx/model.onnx bytes={half // 10_000 * 10_000}-" in hub.ranges
    assert contents(there)["onnx/model.onnx"] == published.files["onnx/model.onnx"]


def test_a_pull_goes_on_with_the_files_that_were_whole(hub: LocalHub, published: Repository, there: Path) -> None:
    tree = published.tree("main")
    good = tree["tokenizer.json"], tree["onnx/model_int8.onnx"]
    tree["onnx/model_int8.onnx"] = b"not this"
    with pytest.raises(BundleError, match="is damaged"):
        pull(NAME, there)
    tree["onnx/model_int8.onnx"] = good[1]
    hub.served.clear()
    pull(NAME, there)
    assert not [path for method, path, _ in hub.served if method == "GET" and path.endswith("onnx/model.onnx")]


def test_two_publishers_do_not_undo_each_other(
    hub: LocalHub, published: Repository, here: Path, make_task: MakeTask
) -> None:
    Bundle(here).add_task(make_task("mine"))

    def meanwhile(method: str, path: str) -> None:
        if "/commit/" in path:
            hub.before = lambda method, path: None
            published.commit("main", {**published.tree("main"), "note.txt": b"hello"})

    hub.before = meanwhile
    with pytest.raises(BundleError, match=r"HTTP status 412 .*run this again"):
        push(here, NAME)
    assert files.task_file("mine") not in published.files
    push(here, NAME)
    assert {files.task_file("mine"), "note.txt"} <= published.files.keys()


def test_a_file_that_gitignore_keeps_out_is_told(
    hub: LocalHub, published: Repository, here: Path, make_task: MakeTask
) -> None:
    hub.ignored = {files.task_file("new")}
    Bundle(here).add_task(make_task("new"))
    with pytest.raises(BundleError, match=r"has not taken tasks/new.safetensors: see whether its .gitignore"):
        push(here, NAME)


def test_what_was_fetched_is_used_if_the_hub_is_gone(
    hub: LocalHub, published: Repository, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = local_folder(f"hf://{NAME}")

    def down(method: str, path: str) -> None:
        raise ConnectionAbortedError

    hub.before = down  # the connection ends with no answer
    hub._server.handle_error = lambda *_: None  # type: ignore[method-assign]
    assert local_folder(f"hf://{NAME}") == folder
    assert "the hub cannot be reached" in caplog.text
    with pytest.raises(BundleError, match="it is not in the hub's cache as a whole"):
        local_folder("hf://ada/another")


# A kill at any moment.


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_push_that_is_killed_at_any_request_leaves_all_or_nothing(
    hub: LocalHub, published: Repository, here: Path, make_task: MakeTask
) -> None:
    bundle = Bundle(here)
    bundle.add_task(make_task("colour", prefix=6, seed=5))
    bundle.add_task(make_task("mood"))
    bundle.remove_task("size")
    old, commits, objects = published.files, dict(published.commits), dict(hub.objects)
    main = published.branches["main"]
    session = type(get_session())
    moments, ended = 0, False
    while not ended:
        published.commits, published.branches, hub.objects = dict(commits), {"main": main}, dict(objects)
        ended = killed_at(moments, lambda: push(here, NAME, delete=True), ((session, "send"),))
        if published.files != old:  # it was killed while the answer to its commit was on its way
            assert without_card(published.files) == without_card(contents(here))
        push(here, NAME, delete=True)
        assert without_card(published.files) == without_card(contents(here)), moments
        moments += 3
    assert moments > 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_pull_that_is_killed_at_any_call_leaves_old_or_new(
    hub: LocalHub, published: Repository, here: Path, there: Path, make_task: MakeTask
) -> None:
    pull(NAME, there)
    before = shutil.copytree(there, there.with_name("before"))
    bundle = Bundle(here)
    bundle.add_task(make_task("colour", prefix=6, seed=5))
    bundle.add_task(make_task("mood"))
    bundle.remove_task("size")
    push(here, NAME, delete=True)
    old, new = contents(before), contents(here)
    session = type(get_session())
    moments, ended = 0, False
    while not ended:
        shutil.rmtree(there)
        shutil.copytree(before, there)
        ended = killed_at(moments, lambda: pull(NAME, there, delete=True), ((session, "send"),))
        found = without_card(contents(there))
        for path in without_card(old).keys() | without_card(new).keys():
            assert found.get(path) in (old.get(path), new.get(path)), (moments, path)
        for left in there.rglob("*.partial"):
            os.utime(left, (0, 0))
        pull(NAME, there, delete=True)
        assert without_card(contents(there)) == without_card(new), moments
        moments += 7
    assert moments > 10


# The card.


def test_the_card_is_the_hubs_and_tells_of_the_tasks_of_now(
    hub: LocalHub, published: Repository, here: Path, make_task: MakeTask
) -> None:
    read = ModelCard(published.files[files.CARD].decode())
    assert read.data.library_name == "edgetune"
    assert f'edgetune.Engine("hf://{NAME}")' in read.text
    assert "| `colour` | single-label | label0, label1, label2 | prefix 6 |" in read.text
    Bundle(here).add_task(make_task("a-new-one"))
    assert push(here, NAME).copied == [files.CARD]
    assert "| `a-new-one` |" in published.files[files.CARD].decode()
    assert "a-new-one" not in (here / files.CARD).read_text()  # the folder stays as it is


def test_an_edited_card_is_published_as_it_is(hub: LocalHub, here: Path) -> None:
    with (here / files.CARD).open("a") as file:
        file.write("\nBy Ada.\n")
    push(here, NAME)
    assert hub.repositories[NAME].files[files.CARD] == (here / files.CARD).read_bytes()


def test_figures_are_in_the_hubs_form(bundle: Bundle, make_task: MakeTask) -> None:
    graphs = {
        name: dataclasses.replace(
            graph, parity={"colour": TaskParity(200, 1e-3, 0.995, "accuracy", value_torch=0.93, value=0.925)}
        )
        for name, graph in bundle.manifest.graphs.items()
    }
    manifest = dataclasses.replace(bundle.manifest, graphs=graphs)
    trained = dataclasses.replace(make_task("topic"), metrics={"dev_accuracy": 0.875, "dev_rows": 80.0})
    found = ModelCard(card(manifest, [trained])).data.eval_results
    assert found is not None
    told = {(one.task_name, one.dataset_name, one.metric_type, one.metric_value) for one in found}
    assert told == {
        ("colour", "colour: 200 labelled texts, in fp32", "accuracy", 0.925),
        ("colour", "colour: 200 labelled texts, in int8", "accuracy", 0.925),
        ("topic", "topic: development rows", "accuracy", 0.875),
    }


@pytest.mark.parametrize("label", ["a|b", 'quote "it"', "line\nbreak", "# hash: x", "ünï 😀"])
def test_odd_labels_break_no_card(bundle: Bundle, make_task: MakeTask, label: str) -> None:
    task = dataclasses.replace(make_task("odd"), labels=(label, "b", "c"))
    text = card(bundle.manifest, [task])
    assert ModelCard(text).data.library_name == "edgetune"
    (row,) = [line for line in text.splitlines() if line.startswith("| `odd`")]
    assert row.replace("\\|", "").count("|") == 6


def test_a_card_lists_some_of_many_tasks(bundle: Bundle, make_task: MakeTask) -> None:
    text = card(bundle.manifest, [make_task(f"task{number}") for number in range(60)])
    assert text.count("| `task") == 50
    assert "and 10 more: `edgetune tasks list` shows all." in text


# The command line.


def command(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(cli, list(map(str, arguments)))
    message = f"{done.exception}" if isinstance(done.exception, BundleError | TaskError) else ""
    return done.exit_code, done.output + message


def test_the_commands_say_what_they_did(
    hub: LocalHub, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = command("push", here, NAME, "--private", "--json")
    assert (code, json.loads(said)["destination"]) == (0, f"hf://{NAME}")
    code, said = command("pull", NAME)
    assert code == 0
    assert "2 added, 0 replaced, 0 removed, 0 unchanged" in said
    assert Bundle("support").task_names() == ["colour", "size"]
    code, said = command("tasks", "list", f"hf://{NAME}")
    assert (code, "colour" in said) == (0, True)
    code, said = command("pull", NAME, "--revision", "v9", "elsewhere")
    assert (code, f"hf://{NAME}@v9 cannot be read: it has no such revision" in said) == (1, True)
    for option in ("--watch", "--allow-task-changes"):
        code, said = command("serve", f"hf://{NAME}", option, "--task-key", "key")
        assert (code, "pull it to a folder, and serve that" in said) == (2, True)
    code, said = command("fit", f"hf://{NAME}", "--data", "x.csv", "--name", "x")
    assert (code, "pull it, change the folder, and push that" in said) == (2, True)


def test_classify_and_serve_take_names(hub: LocalHub, published: Repository, tmp_path: Path) -> None:
    env = {**os.environ, **hub.environment(tmp_path / "other-home")}
    done = subprocess.run(
        [sys.executable, "-m", "edgetune", "classify", f"hf://{NAME}@main", "--task", "size", "--precision", "int8"],
        input="good\n",
        capture_output=True,
        text=True,
        env=env,
    )
    assert json.loads(done.stdout)["status"] == "ok", done.stderr
    assert done.stderr == ""
    from serving import run_server

    with run_server(f"hf://{NAME}", env=hub.environment(tmp_path / "other-home")) as server, server.client() as client:  # type: ignore[arg-type]
        answer = client.post("/classify", json={"model": "size", "input": "good"})
        assert answer.status_code == 200


def test_without_the_package_the_extra_is_named(there: Path) -> None:
    code = "import sys; sys.modules['huggingface_hub'] = None; from edgetune.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "pull", NAME, str(there)], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "pip install 'edgetune[hub]'" in done.stderr


def test_from_python(hub: LocalHub, here: Path, there: Path) -> None:
    edgetune.push(here, NAME)
    assert edgetune.pull(NAME, there).unchanged == 0
    with edgetune.Engine(f"hf://{NAME}@main") as engine:
        assert engine.task_names == ["colour", "size"]
