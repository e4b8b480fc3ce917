"""Accuracy by number of labelled texts: from none to a hundred per label, on six data sets.

    python benchmarks/ladder.py run MODEL DATA_FOLDER --data sst2 --rows 8 --sample 0 --method train --out ladder.jsonl
    python benchmarks/ladder.py table benchmarks/results/ladder.jsonl

DATA_FOLDER/NAME contains train.jsonl and test.jsonl. A sample is drawn from the training rows by its number, and is the
same for all methods. Each method sees only the sample, and makes all choices on it. Test rows (at most 1,000, always
the same) are used once, at the end. A run appends one line to the results; every run counts.

The methods: `describe`, `fit` and `train` are edgetune's, with their defaults, answered by the exported bundle (int8,
close calls in fp32): labels' own names describe them if held-out rows show that it helps. "fit, rows alone" and "train,
rows alone" do not use the names; "fit, described" and "train, described" use the descriptions below instead. `linear`
is scikit-learn's LogisticRegressionCV on frozen fp32 features. `setfit` is the package setfit with its defaults, which
train on all pairs of texts; of more than 100 texts it takes 20 pairs per text and label as in the paper
(arXiv:2209.11055), since all pairs would take hours. `full` is fine-tuning of all weights, its epoch chosen on a fifth
of the rows.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edgetune.data.labelled import LabelledText, read_labelled
from edgetune_export.loading import load_backbone
from edgetune_runtime import Engine
from edgetune_runtime.kinds.single_label import SINGLE_LABEL
from edgetune_runtime.session import cpu_name, has_int8_dot_product

MOST_TEST_ROWS = 1000
SUBSETS = {"clinc150": 20}
"""Data → number of labels that are drawn from it, once."""

UNEVEN = {"sms_uneven": ("sms_spam", {"ham": 196, "spam": 4})}
"""Name → data, and the number of rows per label in a sample, instead of `--rows`."""

SETFIT_ALL_PAIRS_UP_TO = 100
"""Maximum number of texts for which SetFit trains on all pairs, whose number grows quadratically."""

SETFIT_ITERATIONS = 20

CHOSE_THE_RECIPE = ("sst2", "trec6")
"""Data whose training rows were used to choose the recipe for few rows; the other data sets judge it."""

DESCRIPTIONS: dict[str, dict[str, list[str]]] = {
    "sst2": {
        "negative": ["a terrible, boring and bad film"],
        "positive": ["a great, wonderful and enjoyable film"],
    },
    "trec6": {
        "ABBR": ["an abbreviation", "what an acronym stands for"],
        "DESC": ["a description or a definition", "how, why or what something is"],
        "ENTY": ["a thing", "an animal, a product, a colour or a food"],
        "HUM": ["a person", "who someone is"],
        "LOC": ["a place", "where a city or a country is"],
        "NUM": ["a number", "how many, how much, when, a date"],
    },
    "ag_news": {
        "World": ["world news", "international politics and conflicts"],
        "Sports": ["sports", "a game, a match or a team"],
        "Business": ["business", "companies, markets and the economy"],
        "Sci/Tech": ["science and technology", "computers, software and the internet"],
    },
    "tweeteval_emotion": {
        "anger": ["anger", "being furious and annoyed"],
        "joy": ["joy", "being happy and delighted"],
        "optimism": ["optimism", "hope and encouragement"],
        "sadness": ["sadness", "being sad and depressed"],
    },
    "sms_spam": {
        "ham": ["a personal message to a friend", "daily life and meeting someone"],
        "spam": ["spam", "advertising, prizes, offers and winning money"],
    },
}
"""Label descriptions, written once from the labels' names and the topic of the data. Other data sets use the names."""

Rows = Sequence[LabelledText]
Answers = list[str]


@click.group()
def cli() -> None:
    """Measure answers by the number of labelled texts."""


@cli.command()
@click.argument("model")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--bundle", type=click.Path(path_type=Path), required=True, help="MODEL, exported.")
@click.option("--data", required=True, help="Folder inside FOLDER, or one of the uneven samples.")
@click.option("--rows", default=8, show_default=True, help="Labelled texts per label.")
@click.option("--sample", default=0, show_default=True)
@click.option("--method", "methods", multiple=True, required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Results, one JSON object a line.")
def run(
    model: str, folder: Path, bundle: Path, data: str, rows: int, sample: int, methods: tuple[str, ...], out: Path
) -> None:
    """Measure methods on one sample of one data set."""
    train, test = drawn(folder, data, rows, sample)
    right = [str(row.target) for row in test]
    for method in methods:
        with tempfile.TemporaryDirectory() as scratch:
            began = time.monotonic()
            answers, more = METHODS[method](model, bundle, data, train, test, sample, Path(scratch))
        result: dict[str, Any] = {"data": data, "rows": rows, "sample": sample, "method": method, "train": len(train)}
        result |= {"accuracy": float(np.mean([one == other for one, other in zip(answers, right, strict=True)]))}
        result |= {"macro_f1": float(f1_score(right, answers, average="macro")), "test": len(test)}
        result |= {"seconds": round(time.monotonic() - began, 1), **more}
        result |= {"cpu": cpu_name(), "int8_dot_product": has_int8_dot_product(), "date": time.strftime("%Y-%m-%d")}
        result["versions"] = {name: version(name) for name in ("torch", "transformers", "onnxruntime", "scikit-learn")}
        with out.open("a") as file:
            file.write(json.dumps(result) + "\n")
        click.echo(json.dumps(result))


def drawn(folder: Path, data: str, rows: int, sample: int) -> tuple[Rows, Rows]:
    """A sample of the training rows, and the test rows."""
    name, counts = UNEVEN.get(data, (data, {}))
    files = {split: str(folder / name / f"{split}.jsonl") for split in ("train", "test")}
    read = {split: read_labelled(file, kind=SINGLE_LABEL).rows for split, file in files.items()}
    labels = sorted({str(row.target) for row in read["train"]})
    if name in SUBSETS:
        labels = sorted(random.Random(7).sample(labels, SUBSETS[name]))
    chance = random.Random(1000 * sample + rows)
    train = []
    for label in labels:
        own = [row for row in read["train"] if row.target == label]
        train += chance.sample(own, min(counts.get(label, rows), len(own)))
    chance.shuffle(train)
    test = [row for row in read["test"] if row.target in labels]
    return train, random.Random(0).sample(test, min(MOST_TEST_ROWS, len(test)))


def _describe(
    model: str, bundle: Path, data: str, train: Rows, test: Rows, sample: int, scratch: Path
) -> tuple[Answers, dict[str, Any]]:
    with Engine(bundle) as engine:
        engine.describe(_descriptions(data, train), "ladder", store=False)
        return _answered(engine, test), {}


def _descriptions(data: str, train: Rows) -> dict[str, list[str]]:
    labels = sorted({str(row.target) for row in train})
    return DESCRIPTIONS.get(data) or {label: [label.replace("_", " ")] for label in labels}


def _fit(
    model: str, bundle: Path, data: str, train: Rows, test: Rows, sample: int, scratch: Path, **options: Any
) -> tuple[Answers, dict[str, Any]]:
    texts, labels = [row.text for row in train], [row.target for row in train]
    with Engine(bundle) as engine:
        report = engine.fit(texts, labels, "ladder", seed=sample, store=False, **options)
        more = {"strength": report.strength, "description_share": report.description_share}
        return _answered(engine, test), more


def _fit_rows_alone(*given: Any) -> tuple[Answers, dict[str, Any]]:
    return _fit(*given, descriptions="none")


def _fit_described(*given: Any) -> tuple[Answers, dict[str, Any]]:
    _, _, data, train, *_ = given
    return _fit(*given, descriptions=_descriptions(data, train))


def _train(
    model: str, bundle: Path, data: str, train: Rows, test: Rows, sample: int, scratch: Path, **options: Any
) -> tuple[Answers, dict[str, Any]]:
    from edgetune.training import TaskData, TrainingOptions
    from edgetune.training import train as run_training
    from edgetune.training.products import in_bf16

    one, how = TaskData("ladder", scratch / "ladder.safetensors", train, []), TrainingOptions(seed=sample, **options)
    (report,) = run_training(load_backbone(model), [one], how)
    with Engine(bundle) as engine:
        engine.add_task(report.task)
        more = {"recipe": report.recipe, "kept": report.rung, "errors": report.errors, "bf16_products": in_bf16(how)}
        return _answered(engine, test), more


def _train_rows_alone(*given: Any) -> tuple[Answers, dict[str, Any]]:
    return _train(*given, descriptions="none")


def _epochs(*given: Any) -> tuple[Answers, dict[str, Any]]:
    return _train(*given, recipe="epochs")


def _contrastive(*given: Any) -> tuple[Answers, dict[str, Any]]:
    return _train(*given, recipe="contrastive")


def _train_described(*given: Any) -> tuple[Answers, dict[str, Any]]:
    _, _, data, train, *_ = given
    return _train(*given, descriptions=_descriptions(data, train))


def _linear(
    model: str, bundle: Path, data: str, train: Rows, test: Rows, sample: int, scratch: Path
) -> tuple[Answers, dict[str, Any]]:
    labels = sorted({str(row.target) for row in train})
    with Engine(bundle, "fp32") as engine:
        draft = engine.describe({label: [label] for label in labels}, "ladder", store=False)
        inputs, tested = (engine.features([row.text for row in rows], draft) for rows in (train, test))
    targets = [str(row.target) for row in train]
    fewest = min(targets.count(label) for label in labels)
    pipeline = make_pipeline(
        StandardScaler(),
        LogisticRegressionCV(
            Cs=np.logspace(-4, 2, 7), cv=StratifiedKFold(min(5, fewest), shuffle=True, random_state=sample),
            max_iter=1000, l1_ratios=(0.0,), use_legacy_attributes=False, scoring="neg_log_loss",
        ),
    )  # fmt: skip
    return list(pipeline.fit(inputs, targets).predict(tested)), {}


def _setfit(
    model: str, bundle: Path, data: str, train: Rows, test: Rows, sample: int, scratch: Path
) -> tuple[Answers, dict[str, Any]]:
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    made = SetFitModel.from_pretrained(model)
    iterations = SETFIT_ITERATIONS if len(train) > SETFIT_ALL_PAIRS_UP_TO else None
    arguments = TrainingArguments(
        output_dir=str(scratch), seed=sample, report_to="none", save_strategy="no", num_iterations=iterations
    )
    rows = Dataset.from_dict({"text": [row.text for row in train], "label": [str(row.target) for row in train]})
    trainer = Trainer(model=made, args=arguments, train_dataset=rows)
    trainer.train()
    return [str(one) for one in made.predict([row.text for row in test])], {
        "setfit": version("setfit"),
        "iterations": iterations,
    }


def _full(
    model: str, bundle: Path, data: str, train: Rows, test: Rows, sample: int, scratch: Path
) -> tuple[Answers, dict[str, Any]]:
    from accuracy import fine_tuned

    return fine_tuned(model, train, test, sample, scratch)


def _answered(engine: Engine, test: Rows) -> Answers:
    return [str(result.best) for result in engine.classify([row.text for row in test], "ladder")]


Method = Callable[[str, Path, str, Rows, Rows, int, Path], tuple[Answers, dict[str, Any]]]

METHODS: dict[str, Method] = {
    "describe": _describe,
    "linear": _linear,
    "fit": _fit,
    "fit, rows alone": _fit_rows_alone,
    "fit, described": _fit_described,
    "train": _train,
    "train, rows alone": _train_rows_alone,
    "train, described": _train_described,
    "train, epochs": _epochs,
    "train, contrastive": _contrastive,
    "setfit": _setfit,
    "full": _full,
}


@cli.command()
@click.argument("results", type=click.Path(path_type=Path))
def table(results: Path) -> None:
    """Print the results as Markdown: by rows per label a table of data by method, mean ± spread of the samples."""
    runs = [json.loads(line) for line in results.read_text().splitlines()]
    for rows in sorted({run["rows"] for run in runs}):
        own = [run for run in runs if run["rows"] == rows]
        data = list(dict.fromkeys(run["data"] for run in own))
        methods = [method for method in METHODS if any(run["method"] == method for run in own)]
        figure = "macro_f1" if data[0] in UNEVEN else "accuracy"
        title = f"{rows} rows per label: accuracy" if rows else "uneven rows: macro-F1"
        click.echo(f"\n### {title}\n\n| data | {' | '.join(methods)} |\n|---{'|---' * len(methods)}|")
        means: dict[str, list[float]] = defaultdict(list)
        for name in data:
            cells = []
            for method in methods:
                values = [run[figure] for run in own if (run["data"], run["method"]) == (name, method)]
                cells.append(_cell(values))
                means[method] += [statistics.mean(values)] if values else []
            mark = " (chose)" if name in CHOSE_THE_RECIPE else ""
            click.echo(f"| {name}{mark} | {' | '.join(cells)} |")
        whole = [f"{statistics.mean(means[name]):.3f}" if len(means[name]) == len(data) else "" for name in methods]
        click.echo(f"| mean | {' | '.join(whole)} |")
        seconds = [statistics.median(run["seconds"] for run in own if run["method"] == name) for name in methods]
        click.echo(f"| seconds, median | {' | '.join(f'{one:.0f}' for one in seconds)} |")


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread} ({len(values)})"


if __name__ == "__main__":
    cli()
