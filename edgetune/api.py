"""Training and export as Python functions: they do for lists and columns what the commands do for files."""

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
    """Train a task, that is a prompt and a head on a frozen model. Needs PyTorch.

    This does what `edgetune train` does: the same rows and options give the same task.
    `edgetune.training.train` also trains several tasks with one prompt, and returns the history of the epochs.

    Args:
        model: a folder, a `.gguf` file, a hub id, or a backbone that `edgetune_export.load_backbone` loaded.
        texts: a list, array or column of texts, or of (text, text_pair) pairs.
        labels: for each text a label, a list of labels, or a number.
        name: name of the task.
        eval_texts, eval_labels: development data, which chooses the best epoch; by default some rows of `texts` are
            held out.
        kind: the kind of answer; by default derived from the labels.
        out: the task file to write; by default no file is written.
        options: how to train; by default `TrainingOptions()`.
        resume: continue an interrupted training run for `out`.
        callbacks: additional callbacks for `transformers.Trainer`.
        report_to: trackers that get the losses and figures of the epochs, with the names of
            `transformers.TrainingArguments`: "tensorboard", "wandb", "mlflow", …; "all" for all that are installed.
        note: receives messages for the user; by default they go to stderr.
        fields: fields of `TrainingOptions` that take precedence over `options`: `epochs=5`, `class_weight="balanced"`.
            If `epochs` or `patience` is given, training runs in epochs even with few rows.

    Raises:
        BackboneError: the model cannot be loaded, or has no vocabulary for label words.
        DataError: a text, a label or an option is not valid, or there are too few rows.
        EdgetuneError: the file cannot be written, the training run cannot be resumed, or it diverged.
        MissingPackageError: PyTorch or another package of the extra is not installed.
        TaskError: the name or the template is not valid, or `init_from` does not fit.
        TypeError: an option does not exist.
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
    """Export a frozen model once to a bundle, and compare each precision with PyTorch. Needs PyTorch.

    Args:
        model: a folder, a `.gguf` file, a hub id, or a backbone that `edgetune_export.load_backbone` loaded.
        out: folder of the bundle; it appears only when the export is complete and checked.
        tasks: tasks, or task files, to add to the bundle and to use for the comparison.
        precisions: any of "fp32", "int8", "q4".
        check_data: task name → (texts, labels) for the comparison. Other tasks are compared on unlabelled sample
            sentences from the package.
        max_drop: how much of a task's accuracy (or other main figure) a precision may lose on `check_data`.
        overwrite: whether an existing bundle may be replaced.
        note: receives one message per step; by default they go to stderr.

    Raises:
        AccuracyDropError: a precision loses more than `max_drop`.
        BackboneError: the model cannot be loaded or exported.
        BundleError: `out` exists, or cannot be written, or two tasks have the same name.
        DataError: a precision is unknown, or `check_data` does not fit its task.
        MissingPackageError: PyTorch or another package of the extra is not installed.
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
    """Convert a fine-tuned sequence classifier of transformers to a task, with its own head. Needs PyTorch.

    Labels and kind come from the classifier's config.json, and the task's logits are compared with those of
    transformers. Export the same model with the task.

    Args:
        model: the classifier: a folder or a hub id.
        name: name of the task.
        template: the text around each text.
        max_length: maximum number of tokens per text; by default the model's maximum.
        pairs: whether the task takes pairs of texts, as a cross-encoder does.

    Raises:
        BackboneError: the model cannot be loaded, or has no such head or one that edgetune does not support.
        MissingPackageError: PyTorch or another package of the extra is not installed.
        TaskError: the name is not valid, or the template lacks a slot or leaves no room for text.
    """
    with needs("export"):
        from edgetune.training.zero_shot import head_task
    return head_task(str(model), name, template, max_length, pairs)


def _development(texts: Iterable[Any] | None, labels: Iterable[Any] | None, rows: LabelledRows) -> LabelledRows | None:
    """Check that development rows fit the training rows."""
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
    """Convert rows to the form that they have when read from a file."""
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
