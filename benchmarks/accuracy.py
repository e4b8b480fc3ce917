"""Accuracy of a frozen backbone compared with PEFT's LoRA and full fine-tuning.

    python benchmarks/accuracy.py run MODEL DATA_FOLDER --data sst2 --method prefix --out results.jsonl
    python benchmarks/accuracy.py table results.jsonl
    python benchmarks/accuracy.py kinds benchmarks/results/kinds.jsonl

DATA_FOLDER/NAME contains train.jsonl, test.jsonl and optionally dev.jsonl (otherwise a tenth of the training rows is
held out). The test rows of wnut17 have several tags for some words; benchmarks/first_tags.py keeps the first one. The
epoch is chosen on development data; the test rows are used once, at the end. A run appends one line to the results;
every run counts, with its seed.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import linear
import numpy as np
import torch
from peft import LoraConfig, inject_adapter_in_model
from sklearn.model_selection import train_test_split

from edgetune.data.labelled import LabelledText, read_labelled
from edgetune.data.splits import split_dev
from edgetune.training import TaskData, TrainingOptions, options, train
from edgetune.training.batches import encode_rows, examples_of, text_features, texts_of
from edgetune.training.epochs import epochs
from edgetune.training.products import in_bf16
from edgetune.training.setup import fit_first_heads, set_up
from edgetune.training.trainer import HEAD_LEARNING_RATE, new_trainer, training_arguments
from edgetune.training.tuner import PromptTuner
from edgetune_export import Backbone, CheckTexts, export_bundle, load_backbone
from edgetune_export.parity import logits_by_text
from edgetune_runtime.engine import Engine
from edgetune_runtime.fitting.by_kind import fitting_of
from edgetune_runtime.fitting.examples import answers
from edgetune_runtime.session import cpu_name, has_int8_dot_product
from edgetune_runtime.task import Task

OWN = tuple(options.METHODS)
METHODS = ("linear", "fit", *OWN, "parts", "peft-lora", "full")
FULL_EPOCHS = 5
FULL_LEARNING_RATE, LORA_LEARNING_RATE = 5e-5, 1e-3
LORA_RANK = 8


class FineTuner(PromptTuner):
    """A tuner that also trains the backbone, with its dropout; its state is the whole model."""

    def train(self, mode: bool = True) -> FineTuner:
        torch.nn.Module.train(self, mode)
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        return torch.nn.Module.state_dict(self, *args, **kwargs)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        return torch.nn.Module.load_state_dict(self, state_dict, strict=strict, assign=assign)


def order(method: str) -> tuple[int, str]:
    """Sort key of methods: in their listed order, with combinations of parts between edgetune's and other methods."""
    return METHODS.index(method if method in METHODS else "parts"), method


@click.group()
def cli() -> None:
    """Measure accuracy by method."""


@cli.command()
@click.argument("model")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--data", required=True, help="Folder inside FOLDER.")
@click.option("--method", type=click.Choice(METHODS), required=True)
@click.option("--prompt-length", default=20, show_default=True, help="Of the methods that train a prompt or a prefix.")
@click.option(
    "--parts",
    callback=lambda _, __, given: None if given is None else options.parse_parts(given),
    help="With the method 'parts': such as prefix:16,low-rank:8.",
)
@click.option("--epochs", type=int, help="[default: the method's own; 5 of fine-tuning]")
@click.option("--seed", default=0, show_default=True)
@click.option("--train-rows", type=int, help="Draw that many training rows by the seed. [default: all]")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Results, one JSON object a line.")
@click.option("--keep", type=click.Path(path_type=Path), help="Where to keep the task file.")
def run(
    model: str,
    folder: Path,
    data: str,
    method: str,
    prompt_length: int,
    parts: dict[str, int] | None,
    epochs: int | None,
    seed: int,
    train_rows: int | None,
    out: Path,
    keep: Path | None,
) -> None:
    """Train one method on one data set and measure it on the test rows."""
    read = {split: read_labelled(str(folder / data / f"{split}.jsonl")) for split in ("train", "test")}
    rows, kind = {split: some.rows for split, some in read.items()}, read["train"].kind
    dev_file = folder / data / "dev.jsonl"
    if dev_file.exists():
        rows["dev"] = read_labelled(str(dev_file)).rows
    else:
        rows["train"], rows["dev"] = split_dev(rows["train"], seed, kind)
    if method == "linear" and kind.reading is not None:
        raise click.UsageError(f"the kind '{kind.name}' has no rows of whole texts: use the method 'fit'")
    if train_rows is not None and train_rows < len(rows["train"]):
        rows["train"] = random.Random(seed).sample(rows["train"], train_rows)
    backbone = load_backbone(model)
    own = method in (*OWN, "parts")
    how = TrainingOptions(
        recipe="epochs",
        method=method if method in OWN else "prefix",
        parts=parts,
        prompt_length=prompt_length if own else 0,
        epochs=epochs or (None if own else FULL_EPOCHS),
        keep_prompt=True,
        seed=seed,
    )
    title = how.title if method == "parts" else method
    result: dict[str, Any] = {"data": data, "method": title, "seed": seed, "epochs": how.passes, "parts": how.lengths}
    result |= {"kind": kind.name, "figure": kind.headline, "train_rows": len(rows["train"])}
    result["test_rows"] = len(rows["test"])
    result["prompt_length"] = sum(how.lengths.get(name, 0) for name in options.PROMPTING)
    result["backbone"] = sum(parameter.numel() for parameter in backbone.parameters())
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        one = TaskData(data, Path(scratch) / "task.safetensors", rows["train"], rows["dev"], kind, read["train"].pairs)
        if method == "linear":
            result |= linear.measured(backbone, rows, kind)
        elif method == "fit":
            result |= fitted(backbone, one, rows["test"], seed, Path(scratch))
        elif not own:
            result |= fine_tuning(backbone, one, rows["test"], how, method, Path(scratch) / "checkpoints")
        else:
            (report,) = train(backbone, [one], how)
            result["bf16_products"] = in_bf16(how)
            result |= {"dev": [epoch.score for epoch in report.epochs], "trained": report.trained_parameters}
            result |= {"bytes": one.out.stat().st_size, "seconds": round(time.monotonic() - began)}
            result |= exported_accuracy(backbone, report.task, rows["test"], Path(scratch))
            if keep is not None:
                report.task.save(keep)
    result.setdefault("bytes", 4 * result["trained"])
    result.setdefault("seconds", round(time.monotonic() - began))
    result |= {"cpu": cpu_name(), "int8_dot_product": has_int8_dot_product(), "date": time.strftime("%Y-%m-%d")}
    result["versions"] = {name: version(name) for name in ("edgetune", "torch", "transformers", "onnxruntime")}
    with out.open("a") as file:
        file.write(json.dumps(result) + "\n")
    click.echo(json.dumps(result))


def fitted(
    backbone: Backbone, one: TaskData, test_rows: list[LabelledText], seed: int, scratch: Path
) -> dict[str, Any]:
    """The result of `edgetune fit` on the exported bundle's own features; development rows are not used."""
    export_bundle(backbone, scratch / "backbone")
    with Engine(scratch / "backbone") as engine:
        texts, targets = [row.given for row in one.train], [one.kind.written(row.target) for row in one.train]
        report = engine.fit(texts, targets, "fitted", kind=one.kind, seed=seed, store=False)
    found = exported_accuracy(backbone, report.task, test_rows, scratch)
    return found | {"dev": [], "trained": report.task.num_parameters}


def fine_tuner(backbone: Backbone, tuner: PromptTuner, method: str) -> FineTuner:
    """Make the tuner train the backbone's weights ("full"), or adapters in its attention ("peft-lora")."""
    if method == "peft-lora":
        config = LoraConfig(r=LORA_RANK, lora_alpha=2 * LORA_RANK, target_modules=["query", "value"])
        inject_adapter_in_model(config, backbone.model)
    else:
        backbone.model.requires_grad_(True)
    tuner.__class__ = FineTuner
    return tuner  # type: ignore[return-value]


def fine_tuning_optimizer(tuner: FineTuner, method: str) -> torch.optim.Optimizer:
    """AdamW for the backbone's weights, or the adapters in it, and the head."""
    learning = [parameter for parameter in tuner.backbone.parameters() if parameter.requires_grad]
    groups = [
        {"params": learning, "lr": LORA_LEARNING_RATE if method == "peft-lora" else FULL_LEARNING_RATE},
        {"params": list(tuner.heads.parameters()), "lr": HEAD_LEARNING_RATE},
    ]
    return torch.optim.AdamW(groups, weight_decay=0.01)


def fine_tuning(
    backbone: Backbone,
    one: TaskData,
    test_rows: list[LabelledText],
    how: TrainingOptions,
    method: str,
    checkpoints: Path,
) -> dict[str, Any]:
    """Train the backbone's weights with the same trainer, epochs, batches and choice of epoch."""
    setup = set_up(backbone, [one], how)
    fit_first_heads(setup, how)
    tuner = fine_tuner(backbone, setup.tuner, method)
    arguments = training_arguments(checkpoints, how)
    trainer = new_trainer(setup, arguments, fine_tuning_optimizer(tuner, method))
    trainer.train()
    history = [one.score for one in epochs(trainer.state.log_history)]
    (draft,), fitting = setup.drafts, fitting_of(one.kind)
    found = {}
    for split, some in (("dev", setup.rows["dev"]), ("test", encode_rows(backbone, test_rows, draft))):
        predicted = trainer.predict(some)
        _, targets, text = (np.asarray(ids) for ids in predicted.label_ids)
        there = text >= 0
        own = np.asarray(predicted.predictions)[there], targets[there]
        found[split] = texts_of(*own, text[there], one.kind.reading is not None)[0], examples_of(one.kind, some)
    logits, examples = found["dev"]
    fitted, _ = fitting.calibrate(logits, examples.numbers)
    logits, examples = found["test"]
    values = examples.figures(logits, replace(draft, **fitted)).values
    trained = sum(parameter.numel() for parameter in tuner.parameters() if parameter.requires_grad)
    return {"test": values[one.kind.headline], "figures": values, "dev": history, "trained": trained}


def fine_tuned(
    model: str, train_rows: Sequence[LabelledText], test_rows: Sequence[LabelledText], seed: int, scratch: Path
) -> tuple[list[str], dict[str, Any]]:
    """The answers of the backbone after training all its weights; a fifth of the rows chooses among ten epochs."""
    backbone = load_backbone(model)
    labels = [str(row.target) for row in train_rows]
    held_out = max(len(set(labels)), len(labels) // 5)
    rest, dev = train_test_split(list(train_rows), test_size=held_out, stratify=labels, random_state=seed)
    how = TrainingOptions(recipe="epochs", prompt_length=0, epochs=10, seed=seed)
    setup = set_up(backbone, [TaskData("full", scratch / "full.safetensors", rest, dev)], how)
    fit_first_heads(setup, how)
    tuner = fine_tuner(backbone, setup.tuner, "full")
    arguments = training_arguments(scratch / "checkpoints", how)
    trainer = new_trainer(setup, arguments, fine_tuning_optimizer(tuner, "full"))
    trainer.train()
    tuner.eval()
    (draft,) = setup.drafts
    features = text_features(tuner, encode_rows(backbone, test_rows, draft))
    weight, bias = (parameter.detach().cpu().numpy() for parameter in tuner.heads[0].parameters())
    answers = [draft.labels[place] for place in (features @ weight.T + bias).argmax(axis=1)]
    return answers, {"dev": [one.score for one in epochs(trainer.state.log_history)]}


def exported_accuracy(backbone: Backbone, task: Task, test: list[LabelledText], scratch: Path) -> dict[str, Any]:
    """Test figures in PyTorch, and in each precision of an exported bundle."""
    kind = task.kind
    check = CheckTexts([row.given for row in test], [row.target for row in test])
    manifest = export_bundle(backbone, scratch / "bundle", tasks=[task], checks={task.name: check}, max_drop=1.0)
    parity = {name: graph.parity[task.name] for name, graph in manifest.graphs.items()}
    expected, reads = logits_by_text(backbone, task, check.texts)
    values = kind.figures(check.targets or [], answers(task, expected, reads), task).values
    with Engine(scratch / "bundle") as engine:
        results = engine.classify(check.texts, task.name)
        tokens = engine.encode(check.texts, [task] * len(test))
        int8 = answers(task, engine.run([(row, task) for row in tokens]), reads, "int8")
    return {
        "test": values[kind.headline],
        "figures": values,
        "test_fp32": parity["fp32"].value,
        "test_int8": parity["int8"].value,
        "int8_figures": kind.figures(check.targets or [], int8, task).values,
        "int8_agreement": parity["int8"].label_agreement,
        "fp32_logit_difference": parity["fp32"].max_logit_difference,
        "default_figures": kind.figures(check.targets or [], results, task).values,
        "test_default": kind.figures(check.targets or [], results, task).values[kind.headline],
        "rechecked": float(np.mean([result.precision != "int8" for result in results])),
    }


@cli.command()
@click.argument("results", type=click.Path(path_type=Path))
def table(results: Path) -> None:
    """Print the results as Markdown tables: test accuracy by method and data, then every run."""
    runs = [json.loads(line) for line in results.read_text().splitlines()]
    runs.sort(key=lambda run: (run["data"], order(run["method"]), run["seed"]))
    _print_summary(runs)
    click.echo(
        "\n| data | method | length | numbers trained | share | bytes a task | epochs | best dev | test, PyTorch "
        "| test, int8 | int8 agrees | again in fp32 | s |"
    )
    click.echo("|---" * 13 + "|")
    for one in runs:
        size = one.get("bytes", 4 * one["trained"])
        int8 = f"{one['test_int8']:.4f}" if "test_int8" in one else ""
        shares = [f"{one[name]:.1%}" if name in one else "" for name in ("int8_agreement", "rechecked")]
        click.echo(
            f"| {one['data']} | {one['method']} | {one['prompt_length'] or ''} | {one['trained']:,} | "
            f"{one['trained'] / one['backbone']:.2%} | {size:,} | {one['epochs']} | {max(one['dev'], default=0):.4f} | "
            f"{one['test']:.4f} | {int8} | {' | '.join(shares)} | {one['seconds']} |"
        )
    for line in sorted({f"{one['cpu']}, {one['date']}, {json.dumps(one['versions'])}" for one in runs}):
        click.echo(f"\n{line}")


_WAYS = {
    "linear model on frozen features": ("linear", "figures"),
    "fit, int8": ("fit", "int8_figures"),
    "strong, PyTorch": ("strong", "figures"),
    "strong, int8": ("strong", "int8_figures"),
    "strong, int8 with close calls in fp32": ("strong", "default_figures"),
    "prefix, PyTorch": ("prefix", "figures"),
    "prefix, int8": ("prefix", "int8_figures"),
    "prefix, int8 with close calls in fp32": ("prefix", "default_figures"),
    "full fine-tuning": ("full", "figures"),
}


@cli.command()
@click.argument("results", type=click.Path(path_type=Path))
def kinds(results: Path) -> None:
    """Print all figures of a kind of answer as Markdown tables, one per data set: mean and spread over the seeds."""
    runs = [json.loads(line) for line in results.read_text().splitlines()]
    for data in sorted({one["data"] for one in runs}):
        own = [one for one in runs if one["data"] == data]
        names = list(own[0]["figures"])
        click.echo(f"\n**{data}** ({own[0]['kind']}, {own[0]['train_rows']:,} training rows)\n")
        click.echo(f"| way | seeds | {' | '.join(names)} | numbers trained |\n" + "|---" * (len(names) + 3) + "|")
        for way, (method, key) in _WAYS.items():
            found = [one for one in own if one["method"] == method]
            if not found:
                continue
            cells = [_mean_and_spread([one[key][name] for one in found]) for name in names]
            click.echo(f"| {way} | {len(found)} | {' | '.join(cells)} | {found[0]['trained']:,} |")
        rechecked = [one["rechecked"] for one in own if "rechecked" in one]
        click.echo(f"\nAnswered again in fp32: {np.mean(rechecked):.1%} of the texts.")
    for line in sorted({f"{one['cpu']}, {one['date']}, {json.dumps(one['versions'])}" for one in runs}):
        click.echo(f"\n{line}")


def _mean_and_spread(values: Sequence[float]) -> str:
    """The mean and, for several values, the standard deviation."""
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{spread}"


def _print_summary(runs: list[dict[str, Any]]) -> None:
    """Test accuracy in PyTorch by method and data (mean over seeds), and the differences to full fine-tuning and to
    int8."""
    data = sorted({one["data"] for one in runs})
    found: dict[tuple[str, str], list[float]] = {}
    for one in runs:
        found.setdefault((one["method"], one["data"]), []).append(one["test"])
    means = {key: float(np.mean(tests)) for key, tests in found.items()}
    click.echo(
        f"| method | {' | '.join(data)} | mean | vs full | int8 | most trained |\n" + "|---" * (len(data) + 5) + "|"
    )
    for method in sorted({one["method"] for one in runs}, key=order):
        own = [one for one in runs if one["method"] == method]
        there = [name for name in data if (method, name) in means]
        cells = [_mean_and_seeds(found.get((method, name), [])) for name in data]
        mean, beside = "", ""
        if there == data:
            mean = f"{np.mean([means[method, name] for name in data]):.4f}"
            if all(("full", name) in means for name in data):
                beside = f"{100 * np.mean([means[method, name] - means['full', name] for name in data]):+.1f}"
        losses = [one["test_int8"] - one["test"] for one in own if "test_int8" in one]
        int8 = f"{100 * np.mean(losses):+.2f}" if losses else ""
        share = max(one["trained"] / one["backbone"] for one in own)
        click.echo(f"| {method} | {' | '.join(cells)} | {mean} | {beside} | {int8} | {share:.2%} |")


def _mean_and_seeds(values: Sequence[float]) -> str:
    """The mean and, for several values, their deviation and number."""
    several = f" ± {np.std(values, ddof=1):.4f} ({len(values)})" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{several}" if len(values) else ""


if __name__ == "__main__":
    cli()
