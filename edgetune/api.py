"""Training and export as functions of Python: what the commands do with files, for lists and columns."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.data.labelled import LabelledText, say
from edgetune.data.sources import Note
from edgetune.evaluation import rows_for
from edgetune.given import training_options
from edgetune.training.options import TrainingOptions
from edgetune_runtime import contract, files
from edgetune_runtime.bundle import Bundle
from edgetune_runtime.errors import BackboneError, DataError, needs
from edgetune_runtime.fitting.rows import LabelledRows, labelled_rows
from edgetune_runtime.kinds import Kind
from edgetune_runtime.task import Task

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from edgetune_export.backbone import Backbone
    from edgetune_export.parity import CheckTexts


def train(
    model: Backbone | str | Path,
    texts: Iterable[Any],
    labels: Iterable[Any],
    name: str,
    *,
    eval_texts: Iterable[Any] | None = None,
    eval_labels: Iterable[Any] | None = None,
    kind: Kind | str | None = None,
    out: str | Path | None = None,
    options: TrainingOptions | None = None,
    resume: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
    report_to: str | Sequence[str] = "none",
    note: Note = say,
    **fields: Any,
) -> Task:
    """Train a task: a prompt and a head on a frozen model. Needs PyTorch.

    It is what `edgetune train` does: the same rows and options give the same task.
    `edgetune.training.train` also trains several tasks with one prompt, and returns the history of the epochs.

    Args:
        model: a folder, a `.gguf` file, a hub id, or a backbone that `edgetune_export.load_backbone` loaded.
        texts: a list, array or column of texts, or of (text, text_pair) pairs.
        labels: for each text a label, a list of labels, or a number.
        name: name of the task.
        eval_texts, eval_labels: development data, which chooses the best epoch; by default rows of `texts` that are
            held out.
        kind: what an answer is; what the labels look like by default.
        out: the task file to write; none by default.
        options: how to train; the defaults of `TrainingOptions` if it is left out.
        resume: go on with a training to `out` that was broken off.
        callbacks: more of `transformers.Trainer`'s callbacks.
        report_to: trackers that get the losses and figures of the epochs, as `transformers.TrainingArguments` names
            them: "tensorboard", "wandb", "mlflow", …; "all" for those that are installed.
        note: receives messages for the user; they go to stderr by default.
        fields: fields of `TrainingOptions` that take precedence over `options`: `epochs=5`, `class_weight="balanced"`.
            A number of epochs, or a patience, trains in epochs however few rows there are.

    Raises:
        BackboneError: the model cannot be loaded, or has no vocabulary for label words.
        DataError: a text, a label or an option cannot be used, or rows are too few.
        EdgetuneError: the file cannot be written, or the training cannot be resumed, or it diverged.
        MissingPackageError: PyTorch and the like are not installed.
        TaskError: the name or the template cannot be used, or `init_from` does not fit.
        TypeError: there is no such option.
    """
    chosen = training_options(options, fields)
    if resume and out is None:
        raise DataError("`resume` came without `out`: expected the task file that the broken-off training would write")
    files.check_task_name(name)
    rows = labelled_rows(texts, labels, kind)
    dev = _development(eval_texts, eval_labels, rows)
    with needs("train"):
        import accelerate  # noqa: F401 - Trainer asks for it late

        from edgetune.trackers import reporters
        from edgetune.training.run import train as run_training
        from edgetune.training.setup import TaskData
    more = [*callbacks, *reporters(report_to)]
    backbone = _backbone(model, chosen.load_in)
    with tempfile.TemporaryDirectory(prefix="edgetune-") as temporary:
        file = Path(temporary) / "task.safetensors" if out is None else Path(out)
        data = TaskData(name, file, _as_read(rows), [] if dev is None else _as_read(dev), rows.kind, rows.pairs)
        (report,) = run_training(backbone, [data], chosen, resume, note, more)
    return report.task


def export(
    model: Backbone | str | Path,
    out: str | Path,
    *,
    tasks: Iterable[Task | str | Path] = (),
    precisions: Sequence[str] = ("fp32", "int8"),
    check_data: Mapping[str, tuple[Iterable[Any], Iterable[Any]]] | None = None,
    max_drop: float = 0.01,
    overwrite: bool = False,
    note: Note = say,
) -> Bundle:
    """Export a frozen model once, to a bundle, and compare each precision with PyTorch. Needs PyTorch.

    Args:
        model: a folder, a `.gguf` file, a hub id, or a backbone that `edgetune_export.load_backbone` loaded.
        out: folder of the bundle; it appears when all is done and checked.
        tasks: tasks, or their files, to put into the bundle and to compare with.
        precisions: some of "fp32", "int8", "q4".
        check_data: task name → (texts, labels) to compare on; the other tasks are compared on sentences that come
            along, which have no labels.
        max_drop: most that a precision may lose of a task's accuracy, or of what stands for it, on `check_data`.
        overwrite: whether a bundle that is there may be replaced.
        note: receives a message per step; they go to stderr by default.

    Raises:
        AccuracyDropError: a precision lost more than `max_drop`.
        BackboneError: the model cannot be loaded or exported.
        BundleError: `out` exists, or cannot be written, or two tasks have the same name.
        DataError: a precision is not known, or `check_data` does not fit its task.
        MissingPackageError: PyTorch and the like are not installed.
        TaskError: a task was made for another model, or its file is damaged.
    """
    if isinstance(tasks, Task | str | Path):
        raise DataError("one task came instead of a list of tasks: write tasks=[task]")
    if isinstance(precisions, str):
        raise DataError(f"one string came instead of a list of precisions: write precisions=[{precisions!r}]")
    loaded = [task if isinstance(task, Task) else Task.load(task) for task in tasks]
    with needs("export"):
        from edgetune_export.export import export_bundle
        from edgetune_export.loading import STORED
        from edgetune_export.quantize import PRECISIONS
    unknown = [name for name in precisions if name not in PRECISIONS]
    if unknown or not precisions:
        came = ", ".join(map(repr, unknown)) or "none"
        raise DataError(f"the precisions came as {came}: expected one or more of {', '.join(PRECISIONS)}")
    checks = _checks(loaded, check_data or {})

    def tell(step: str) -> None:
        note(f"{step} …")

    export_bundle(
        _backbone(model, STORED),
        Path(out),
        precisions=list(dict.fromkeys(precisions)),
        tasks=loaded,
        checks=checks,
        max_drop=max_drop,
        overwrite=overwrite,
        progress=tell,
    )
    return Bundle(out)


def task_from_head(
    model: str | Path,
    name: str,
    *,
    template: str = contract.TEXT_SLOT,
    max_length: int | None = None,
    pairs: bool = False,
) -> Task:
    """The task that a sequence classifier of transformers was fine-tuned for, with its own head. Needs PyTorch.

    Its labels and its kind are those of the classifier's config.json, and its logits were compared with those that
    transformers computes. Export the same model with it.

    Args:
        model: the classifier: a folder or a hub id.
        name: name of the task.
        template: what surrounds a text.
        max_length: tokens of a text that are read; by default as many as the model can.
        pairs: whether the task takes pairs of texts, as a cross-encoder does.

    Raises:
        BackboneError: the model cannot be loaded, or has no such head, or one that edgetune does not compute.
        MissingPackageError: PyTorch and the like are not installed.
        TaskError: the name cannot be used, or the template lacks a slot or leaves no room for text.
    """
    with needs("export"):
        from edgetune.training.zero_shot import head_task
    return head_task(str(model), name, template, max_length, pairs)


def _development(texts: Iterable[Any] | None, labels: Iterable[Any] | None, rows: LabelledRows) -> LabelledRows | None:
    """Development rows that go with the rows of a training."""
    if texts is None and labels is None:
        return None
    if texts is None or labels is None:
        came, missing = ("eval_labels", "eval_texts") if texts is None else ("eval_texts", "eval_labels")
        raise DataError(f"{came} came without {missing}: expected both or neither")
    found = labelled_rows(texts, labels, rows.kind)
    if found.pairs != rows.pairs:
        raise DataError("texts and eval_texts differ: one has pairs of texts, the other does not; expected both alike")
    return found


def _as_read(rows: LabelledRows) -> list[LabelledText]:
    """Rows as they are when they come from a file."""
    return [
        LabelledText(text, target, place=f"text {place}")
        if isinstance(text, str)
        else LabelledText(text[0], target, text[1], place=f"text {place}")
        for place, (text, target) in enumerate(zip(rows.texts, rows.targets, strict=True))
    ]


def _checks(
    tasks: Sequence[Task], check_data: Mapping[str, tuple[Iterable[Any], Iterable[Any]]]
) -> dict[str, CheckTexts]:
    from edgetune_export.parity import CheckTexts

    by_name, found = {task.name: task for task in tasks}, {}
    for name, given in check_data.items():
        if name not in by_name:
            raise DataError(
                f"`check_data` has '{name}', which is not a task here: expected some of {', '.join(by_name) or 'none'}"
            )
        if not isinstance(given, tuple) or len(given) != 2:
            raise DataError(f"`check_data` of '{name}' is a {type(given).__name__}: expected a pair (texts, labels)")
        rows = rows_for(by_name[name], *given)
        found[name] = CheckTexts(rows.texts, rows.targets)
    return found


def _backbone(model: Backbone | str | Path, load_in: str) -> Backbone:
    with needs("export"):
        from edgetune_export.backbone import Backbone
        from edgetune_export.loading import load_backbone
    if isinstance(model, Backbone):
        return model
    if not isinstance(model, str | Path):
        raise BackboneError(
            f"the model is a {type(model).__name__}: expected a folder, a .gguf file, a hub id, or what "
            f"edgetune_export.load_backbone gives"
        )
    return load_backbone(str(model), load_in=load_in)
