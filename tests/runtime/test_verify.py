"""The findings about a bundle from elsewhere: all its problems, and none for a valid bundle."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import LanguageModelFolder
from layouts import config_map, config_map_of_paths, hub_cache

from edgetune_runtime import Bundle, files, probe
from edgetune_runtime.errors import BundleError
from edgetune_runtime.verify import findings


@pytest.fixture
def copied(bundle_folder: Path, tmp_path: Path) -> Path:
    """A bundle that may be changed."""
    return shutil.copytree(bundle_folder, tmp_path / "bundle")


def told(folder: Path, status: str) -> dict[str, str]:
    return {finding.subject: finding.message for finding in findings(folder) if finding.status == status}


def test_a_sound_bundle_is_sound_in_all_its_parts(bundle: Bundle) -> None:
    found = list(findings(bundle.path))
    assert {finding.status for finding in found} == {"sound"}
    subjects = [finding.subject for finding in found]
    expected = {files.MANIFEST, *bundle.manifest.files, "vocabulary", "tokenizer", "graph fp32", "graph int8"}
    assert set(subjects) == {*expected, "task colour", "task size"}
    assert len(subjects) == len(set(subjects))


def test_all_faults_are_found_and_not_only_the_first(copied: Path, tmp_path: Path) -> None:
    (copied / files.CONFIG).write_bytes(b"{}")
    (copied / files.TOKENIZER).unlink()
    (copied / "onnx/model_int8.onnx").write_bytes(b"graph")
    (copied / "tasks/colour.safetensors").write_bytes(b"task")
    (copied / "tasks/link.safetensors").symlink_to(tmp_path)
    (copied / "linked").symlink_to("/")
    os.mkfifo(copied / "pipe")
    faults = told(copied, "fault")
    damaged = {files.CONFIG, files.TOKENIZER, "onnx/model_int8.onnx"}
    tried = {"vocabulary", "tokenizer", "graph int8", "graph fp32", "task colour"}
    assert set(faults) == damaged | tried | {"task link", "linked", "pipe"}
    assert "is damaged" in faults[files.CONFIG]
    assert "is incomplete" in faults[files.TOKENIZER]
    assert "it is a link that leads out of the bundle" in faults["linked"]
    assert "is a link that leads out of the bundle" in faults["task link"]
    assert "not a regular file" in faults["pipe"]
    assert "task size" in told(copied, "sound")


def test_what_nothing_reads_is_noted(copied: Path) -> None:
    (copied / "tasks/notes.txt").write_text("notes")
    (copied / "more/of").mkdir(parents=True)
    (copied / "more/of/it\x1b").write_text("it")
    assert told(copied, "fault") == {}
    assert set(told(copied, "note")) == {"tasks/notes.txt", "more/"}
    assert "its 1 files" in told(copied, "note")["more/"]


def test_an_edited_card_is_noted(copied: Path) -> None:
    with (copied / files.CARD).open("a") as card:
        card.write("A line.\n")
    assert told(copied, "note") == {files.CARD: "it was edited since the export"}
    (copied / files.CARD).unlink()
    assert told(copied, "note") == {files.CARD: "it is not there"}
    assert told(copied, "fault") == {}


def test_a_repository_around_it_is_one_note(copied: Path) -> None:
    (copied / ".git/hooks").mkdir(parents=True)
    for name in (".git/HEAD", ".git/hooks/a", ".git/hooks/b", ".gitattributes", "LICENSE", ".DS_Store"):
        (copied / name).write_text("x")
    assert told(copied, "fault") == {}
    assert set(told(copied, "note")) == {".git/", ".gitattributes", "LICENSE", ".DS_Store"}
    assert "its 3 files" in told(copied, "note")[".git/"]


@pytest.mark.parametrize("layout", [config_map, config_map_of_paths, hub_cache])
def test_links_of_mounted_configuration_and_of_the_hubs_cache_are_sound(
    copied: Path, layout: Callable[[Path], Path]
) -> None:
    assert {finding.status for finding in findings(layout(copied))} == {"sound"}


def test_a_precision_may_be_left_out_but_not_all(copied: Path) -> None:
    (copied / "onnx/model.onnx").unlink()
    assert told(copied, "fault") == {}
    assert told(copied, "note") == {"onnx/model.onnx": "it is not there: fp32 cannot be run"}
    (copied / "onnx/model_int8.onnx").unlink()
    assert told(copied, "fault") == {"onnx": "there is no graph: copy or export the bundle again"}


def test_without_a_manifest_nothing_else_is_known(tmp_path: Path) -> None:
    (found,) = findings(tmp_path)
    assert (found.subject, found.status) == (files.MANIFEST, "fault")


@pytest.mark.parametrize("architecture", ["gpt2", "t5"])
def test_bundles_of_other_families_are_sound(
    language_model_folder: LanguageModelFolder, tmp_path: Path, architecture: str
) -> None:
    from edgetune_export import export_bundle, load_backbone

    export_bundle(load_backbone(str(language_model_folder(architecture))), tmp_path / "bundle", precisions=["fp32"])
    assert {finding.status for finding in findings(tmp_path / "bundle")} == {"sound"}


# The probe's process


def test_modules_in_the_folder_where_it_runs_are_not_imported(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copied / "numpy.py").write_text("import pathlib; pathlib.Path('imported').touch()")
    monkeypatch.chdir(copied)
    probe.probe_bundle(Bundle("."), ["fp32"])
    assert not (copied / "imported").exists()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL"),
        ("import os; os.abort()", "was ended by SIGABRT"),
        ("import time; time.sleep(60)", "it took longer than 1 s"),
        ("raise SystemExit(3)", "ended with status 3 and no answer"),
        ("print('[]')", "ended with status 0 and no answer"),
        ("print('x' * 10**6)", "ended with status 0 and no answer"),
        ("raise MemoryError", "ended with status 1 and no answer"),
        ('print(\'{"error": "a\\\\u001b[2Jb"}\')', r"a\\x1b\[2Jb"),
    ],
)
def test_whatever_becomes_of_the_process_is_one_error(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, message: str
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\n{program}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(probe, "_TIME_S", 1.0)
    began = time.monotonic()
    with pytest.raises(BundleError, match=message):
        probe.probe_tokenizer(bundle)
    assert time.monotonic() - began < 10


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell what a process takes")
def test_memory_is_limited_to_what_the_file_needs() -> None:
    program = (
        "from edgetune_runtime import probe; probe.limit_process(1000); print('limited', flush=True); "
        "bytearray(1 << 29); print('half', flush=True); bytearray(1 << 31); print('too much')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["limited", "half"]
    assert "MemoryError" in done.stderr


# What passed before


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts that a process is started for."""
    found: list[str] = []
    real = probe._probe
    monkeypatch.setattr(probe, "_probe", lambda bundle, part: (found.append(part), real(bundle, part)))
    return found


def test_what_passed_here_is_not_tried_again(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: list[str]
) -> None:
    monkeypatch.setenv(files.CACHE_VARIABLE, str(tmp_path / "cache"))
    probe.probe_once(Bundle(copied), ["int8"])
    probe.probe_once(Bundle(copied), ["int8"])
    assert trials == [files.TOKENIZER, "int8"]
    manifest = json.loads((copied / files.MANIFEST).read_bytes())
    (copied / files.MANIFEST).write_text(json.dumps(manifest | {"base_model": "another"}))
    probe.probe_once(Bundle(copied), ["int8"])
    assert trials == [files.TOKENIZER, "int8"] * 2
    trials.clear()
    list(findings(copied))  # which is asked to try
    assert trials == [files.TOKENIZER, "fp32", "int8"]


def test_what_does_not_pass_is_tried_each_time(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: list[str]
) -> None:
    monkeypatch.setenv(files.CACHE_VARIABLE, str(tmp_path / "cache"))
    (copied / files.graph_file("int8")).write_bytes(b"no graph")
    for _ in range(2):
        with pytest.raises(BundleError, match="int8 does not pass its probe"):
            probe.probe_once(Bundle(copied), ["fp32", "int8"])
    assert trials == [files.TOKENIZER, "fp32", "int8", "int8"]


@pytest.mark.parametrize("cache", ["", "a file/cache"])
def test_where_nothing_can_be_noted_all_is_tried(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: list[str], cache: str
) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(files.CACHE_VARIABLE, cache)
    for _ in range(2):
        probe.probe_once(Bundle(copied.absolute()), ["int8"])
    assert trials == [files.TOKENIZER, "int8"] * 2
