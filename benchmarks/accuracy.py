"""Accuracy of a frozen backbone with a linear head, a prompt or a prefix, beside full fine-tuning.

    python benchmarks/accuracy.py run MODEL DATA_FOLDER --data sst2 --method prefix --out results.jsonl
    python benchmarks/accuracy.py table results.jsonl > benchmarks/results/accuracy.md

DATA_FOLDER/NAME holds train.jsonl, test.jsonl and, where there is one, dev.jsonl (else a tenth of the training
rows is held out). The epoch is chosen on development data; the test rows are looked at once, at the end. A run
appends one line to the results; every run counts, with its seed.
"""

from __future__ import annotations

import json
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from transformers import Trainer, set_seed

from edgetune.data import label_set, read_data, split_dev
from edgetune.prompts import Prefix
from edgetune.training import (
    HEAD_LEARNING_RATE,
    PromptTuner,
    TaskData,
    TrainingOptions,
    accuracy,
    collate,
    encode_rows,
    train,
    training_arguments,
)
from edgetune_export import Backbone, CheckTexts, export_bundle, load_backbone
from edgetune_export.parity import torch_logits
from edgetune_runtime.rows import LabelledText
from edgetune_runtime.session import cpu_name, has_int8_dot_product
from edgetune_runtime.task import Task

METHODS = ("linear", "prompt", "prefix", "full")
FULL_LEARNING_RATE = 5e-5


class FullTuner(PromptTuner):
    """Full fine-tuning: the backbone learns too, with its dropout."""

    def train(self, mode: bool = True) -> FullTuner:
        torch.nn.Module.train(self, mode)
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        return torch.nn.Module.state_dict(self, *args, **kwargs)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        return torch.nn.Module.load_state_dict(self, state_dict, strict=strict, assign=assign)


@click.group()
def cli() -> None:
    """Measure accuracy by method."""


@cli.command()
@click.argument("model")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--data", required=True, help="Folder inside FOLDER.")
@click.option("--method", type=click.Choice(METHODS), required=True)
@click.option("--prompt-length", default=20, show_default=True)
@click.option("--epochs", default=5, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Results, one JSON object a line.")
@click.option("--keep", type=click.Path(path_type=Path), help="Where to keep the task file.")
def run(
    model: str,
    folder: Path,
    data: str,
    method: str,
    prompt_length: int,
    epochs: int,
    seed: int,
    out: Path,
    keep: Path | None,
) -> None:
    """Train one method on one data set and measure it on the test rows."""
    rows = {split: read_data(str(folder / data / f"{split}.jsonl")) for split in ("train", "test")}
    dev_file = folder / data / "dev.jsonl"
    if dev_file.exists():
        rows["dev"] = read_data(str(dev_file))
    else:
        rows["train"], rows["dev"] = split_dev(rows["train"], seed)
    backbone = load_backbone(model)
    options = TrainingOptions(
        method="prompt" if method == "prompt" else "prefix",
        prompt_length=prompt_length if method in ("prompt", "prefix") else 0,
        epochs=epochs,
        seed=seed,
    )
    result: dict[str, Any] = {"data": data, "method": method, "seed": seed, "epochs": epochs}
    result["prompt_length"] = options.prompt_length
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        if method == "linear":
            result |= logistic_regression(backbone, rows)
        elif method == "full":
            result |= full_fine_tuning(backbone, rows, options, Path(scratch) / "checkpoints")
        else:
            one = TaskData(data, Path(scratch) / "task.safetensors", rows["train"], rows["dev"])
            (report,) = train(backbone, [one], options)
            result |= {"dev": report.dev_accuracy, "trained": report.trained_parameters}
            result["seconds"] = round(time.monotonic() - began)
            result |= exported_accuracy(backbone, report.task, rows["test"], Path(scratch))
            if keep is not None:
                report.task.save(keep)
    result.setdefault("seconds", round(time.monotonic() - began))
    result |= {"cpu": cpu_name(), "int8_dot_product": has_int8_dot_product(), "date": time.strftime("%Y-%m-%d")}
    result["versions"] = {name: version(name) for name in ("edgetune", "torch", "transformers", "onnxruntime")}
    with out.open("a") as file:
        file.write(json.dumps(result) + "\n")
    click.echo(json.dumps(result))


def logistic_regression(backbone: Backbone, rows: dict[str, list[LabelledText]]) -> dict[str, Any]:
    """A linear head on the frozen features, fitted to the end; its regularization chosen on development data."""
    arrays = {split: features(backbone, [row.text for row in some]) for split, some in rows.items()}
    labels = {split: [row.label for row in some] for split, some in rows.items()}
    fitted = {}
    for strength in (0.1, 1.0, 10.0, 100.0, 1000.0):
        model = LogisticRegression(C=strength, max_iter=5000).fit(arrays["train"], labels["train"])
        fitted[model.score(arrays["dev"], labels["dev"])] = model
    best = fitted[max(fitted)]
    return {
        "dev": [max(fitted)],
        "test": best.score(arrays["test"], labels["test"]),
        "trained": int(best.coef_.size + best.intercept_.size),
    }


def features(backbone: Backbone, texts: list[str]) -> np.ndarray:
    """Pooled features of texts without a prompt.

    Shape:
        output: [texts, hidden]
    """
    width = backbone.sizes.hidden
    identity = Task(
        name="features",
        labels=tuple(map(str, range(width))),
        backbone_sha256=backbone.fingerprint(),
        tensors={"head_weight": np.eye(width, dtype=np.float32), "head_bias": np.zeros(width, np.float32)},
        method="none",
        base_model=backbone.name,
        pooling=backbone.poolings[0],
    )
    return torch_logits(backbone, identity, texts)


def full_fine_tuning(
    backbone: Backbone, rows: dict[str, list[LabelledText]], options: TrainingOptions, checkpoints: Path
) -> dict[str, Any]:
    """Train all weights with the same trainer, epochs, batches and choice of epoch."""
    labels = label_set(rows["train"], rows["dev"])
    set_seed(options.seed)
    encoded = {split: encode_rows(backbone, some, labels, options) for split, some in rows.items()}
    prompt = Prefix(backbone, 0, [row["input_ids"] for row in encoded["train"]])
    tuner = FullTuner(backbone, prompt, len(labels), 0, backbone.poolings[0])
    backbone.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        [
            {"params": list(backbone.parameters()), "lr": FULL_LEARNING_RATE},
            {"params": list(tuner.head.parameters()), "lr": HEAD_LEARNING_RATE},
        ],
        weight_decay=0.01,
    )
    trainer = Trainer(
        model=tuner,
        args=training_arguments(checkpoints, options),
        train_dataset=encoded["train"],
        eval_dataset=encoded["dev"],
        data_collator=collate,
        compute_metrics=accuracy,
        optimizers=(optimizer, None),
    )
    trainer.train()
    test = trainer.evaluate(encoded["test"])
    history = [entry["eval_accuracy"] for entry in trainer.state.log_history if "eval_accuracy" in entry]
    trained = sum(parameter.numel() for parameter in tuner.parameters() if parameter.requires_grad)
    return {"test": test["eval_accuracy"], "dev": history[:-1], "trained": trained}


def exported_accuracy(backbone: Backbone, task: Task, test: list[LabelledText], scratch: Path) -> dict[str, Any]:
    """Test accuracy in PyTorch, and in each precision of an exported bundle."""
    check = CheckTexts([row.text for row in test], [row.label for row in test])
    manifest = export_bundle(backbone, scratch / "bundle", tasks=[task], checks={task.name: check}, max_drop=1.0)
    parity = {name: graph.parity[task.name] for name, graph in manifest.graphs.items()}
    answers = torch_logits(backbone, task, check.texts).argmax(axis=1)
    right = np.mean([task.labels[place] == row.label for place, row in zip(answers, test, strict=True)])
    return {
        "test": float(right),
        "test_fp32": parity["fp32"].accuracy,
        "test_int8": parity["int8"].accuracy,
        "int8_agreement": parity["int8"].label_agreement,
        "fp32_logit_difference": parity["fp32"].max_logit_difference,
    }


@cli.command()
@click.argument("results", type=click.Path(path_type=Path))
def table(results: Path) -> None:
    """Print the results as a Markdown table."""
    runs = [json.loads(line) for line in results.read_text().splitlines()]
    runs.sort(key=lambda run: (run["data"], METHODS.index(run["method"]), run["seed"]))
    click.echo(
        "| data | method | length | numbers trained | epochs | dev | test, PyTorch | test, int8 | int8 agrees | s |"
    )
    click.echo("|---|---|---|---|---|---|---|---|---|---|")
    for one in runs:
        int8 = f"{one['test_int8']:.4f}" if "test_int8" in one else ""
        agreement = f"{one['int8_agreement']:.1%}" if "int8_agreement" in one else ""
        click.echo(
            f"| {one['data']} | {one['method']} | {one['prompt_length'] or ''} | {one['trained']:,} | "
            f"{one['epochs']} | {max(one['dev']):.4f} | {one['test']:.4f} | {int8} | {agreement} | {one['seconds']} |"
        )
    last = runs[-1]
    click.echo(f"\n{last['cpu']}, seed {last['seed']}, {last['date']}, {json.dumps(last['versions'])}")


if __name__ == "__main__":
    cli()
