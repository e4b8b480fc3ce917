"""A forked process answers, with an engine that was used before it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fork_cases
import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no forks")

_HANGS_S = 120


def run(bundle: Path, case: str, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"} | variables
    command = [sys.executable, fork_cases.__file__, str(bundle), case]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        try:
            told, errors = process.communicate(timeout=_HANGS_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            raise
    assert (process.returncode, told) == (0, "done\n"), errors
    return errors


@pytest.mark.parametrize("case", fork_cases.CASES)
def test_a_forked_process_answers_as_the_other(case: str, bundle_folder: Path) -> None:
    run(bundle_folder, case)


@pytest.mark.parametrize("parallelism", ["true", "false"])
def test_what_the_tokenizer_is_told_does_not_matter(parallelism: str, bundle_folder: Path) -> None:
    """If it uses threads, in a child it would wait for those of the parent."""
    run(bundle_folder, "default, two threads", TOKENIZERS_PARALLELISM=parallelism)
