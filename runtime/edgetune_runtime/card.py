"""A bundle's model card: its tasks, how to run them, and measured figures.

It begins with the metadata that the hub reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from edgetune_runtime import files
from edgetune_runtime.bundle import Bundle
from edgetune_runtime.errors import TaskError
from edgetune_runtime.hub import HubName
from edgetune_runtime.manifest import Graph, Manifest, TaskParity
from edgetune_runtime.task import Task

_PIPELINE = "text-classification"
_LABELS_SHOWN = 8
_TASKS_SHOWN = 50  # devices read the card on every sync
_MEASURED_ON = {"dev": "development rows", "cv": "rows held out in turn"}
"""Prefix of a task's own figures → what the figures were measured on."""


def card(manifest: Manifest, tasks: Sequence[Task] = (), name: HubName | None = None) -> str:
    """The card as Markdown.

    Args:
        manifest: the bundle's manifest.
        tasks: its tasks.
        name: its name on the hub; `None` if it is not published.
    """
    where = str(name) if name else "."
    graphs = "\n".join(_files(precision, graph) for precision, graph in manifest.graphs.items())
    example = tasks[0].name if tasks else "NAME"
    pulled = f" that `edgetune pull {name.repository} bundle` makes" if name else ""
    return f"""---
{_metadata(manifest, tasks)}
---

# {manifest.facts.name}: an edgetune bundle

The frozen backbone {manifest.facts.name} ({manifest.architecture}), exported once. Tasks are small files beside
it, given to the graph as inputs. Features are read by pooling `{manifest.facts.poolings[0]}` unless a task says
otherwise.

{graphs}

## Tasks

{_task_table(tasks)}

## Use it

On the command line (`pip install 'edgetune[hub]'`; no PyTorch is needed):

```
echo "some text" | edgetune classify {where} --task {example}
edgetune serve {where}
```

From Python:

```python
import edgetune

with edgetune.Engine({json.dumps(where)}) as engine:
    print(engine.classify(["some text"], task={json.dumps(example)})[0])
```

From JavaScript and C++, in a folder `bundle`{pulled}:

```js
import {{ Engine }} from "edgetune";

const engine = await Engine.open("bundle");
console.log(await engine.classify(["some text"], {{ task: {json.dumps(example)} }}));
```

```
edgetune tasks export-adapter bundle {example} --out {example}.onnx_adapter   # names the graph that it is for
```

```cpp
Ort::Session session(env, "bundle/onnx/model.onnx", options);
auto adapter = Ort::LoraAdapter::CreateLoraAdapter("{example}.onnx_adapter", nullptr);
run.AddActiveLoraAdapter(adapter);  // then feed token ids and read logits: examples/cpp of edgetune
```

## Measured against PyTorch at export

| precision | task | texts | largest logit difference | same answer | figure | here (PyTorch) |
|---|---|---|---|---|---|---|
{_parity_rows(manifest)}

Backbone SHA-256 `{manifest.facts.sha256}`; written by edgetune {manifest.edgetune_version}.
"""


def fresh_card(bundle: Bundle, name: HubName | None = None) -> bytes | None:
    """A bundle's card, updated to its current tasks, unless somebody has edited or removed the card.

    Args:
        bundle: the bundle.
        name: its name on the hub.

    Returns:
        The card; `None` if the existing card should stay as it is.
    """
    try:
        with files.open_inside(bundle.path, files.CARD) as file:
            edited = files.sha256(file.read()) != bundle.manifest.files.get(files.CARD)
    except OSError:
        return None
    return None if edited else card(bundle.manifest, list(_sound_tasks(bundle)), name).encode()


def _sound_tasks(bundle: Bundle) -> Iterator[Task]:
    for name in bundle.task_names():
        try:
            yield bundle.load_task(name)
        except TaskError:  # which is not published
            continue


def _metadata(manifest: Manifest, tasks: Sequence[Task]) -> str:
    """The card's metadata header, in YAML: https://huggingface.co/docs/hub/model-cards."""
    record: dict[str, Any] = {
        "library_name": "edgetune",
        "base_model": manifest.facts.name,
        "pipeline_tag": _PIPELINE,
        "tags": ["edgetune", "onnx", "soft-prompt", _PIPELINE],
    }
    if results := [*_measured_at_export(manifest), *_measured_in_training(manifest, tasks)]:
        record["model-index"] = [{"name": manifest.facts.name, "results": results}]
    # Each value is written as JSON, which is valid YAML.
    return "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in record.items())


def _measured_at_export(manifest: Manifest) -> Iterator[dict[str, Any]]:
    for precision, graph in manifest.graphs.items():
        for task, parity in graph.parity.items():
            if parity.value is not None:
                found = {parity.figure: parity.value}
                yield _result(task, f"{parity.rows:,} labelled texts, in {precision}", found)


def _measured_in_training(manifest: Manifest, tasks: Sequence[Task]) -> Iterator[dict[str, Any]]:
    """Figures stored in the tasks; used if the bundle has none from labelled texts."""
    labelled = {
        name for graph in manifest.graphs.values() for name, parity in graph.parity.items() if parity.value is not None
    }
    for task in tasks:
        for prefix, rows in _MEASURED_ON.items():
            figure = task.kind.headline
            value = task.metrics.get(f"{prefix}_{figure}")
            if value is not None and task.name not in labelled:
                yield _result(task.name, rows, {figure: value})


def _result(task: str, rows: str, figures: dict[str, float]) -> dict[str, Any]:
    return {
        "task": {"type": _PIPELINE, "name": task},
        "dataset": {"type": "own", "name": f"{task}: {rows}"},
        "metrics": [{"type": figure, "value": round(value, 4)} for figure, value in figures.items()],
    }


def _task_table(tasks: Sequence[Task]) -> str:
    if not tasks:
        return "None yet: `edgetune tasks add` puts one in."
    rows = [
        f"| `{task.name}` | {task.kind_name}{', pairs' if task.pairs else ''} | {_labels(task)} | "
        f"{', '.join(f'{part} {length}' for part, length in task.parts.items()) or 'head alone'} | "
        f"{len(task.to_bytes()) / 1000:,.0f} |"
        for task in tasks[:_TASKS_SHOWN]
    ]
    if len(tasks) > len(rows):
        rows += ["", f"and {len(tasks) - len(rows):,} more: `edgetune tasks list` shows all."]
    return "\n".join(["| task | kind | labels | parts | kB |", "|---|---|---|---|---|", *rows])


def _labels(task: Task) -> str:
    shown = [label.replace("|", "\\|").replace("\n", " ") for label in task.labels[:_LABELS_SHOWN]]
    more = len(task.labels) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")


def _parity_rows(manifest: Manifest) -> str:
    return "\n".join(
        f"| {precision} | {task} | {parity.rows} | {parity.max_logit_difference:.1e} | "
        f"{parity.label_agreement:.1%} | {_figure(parity)} |"
        for precision, graph in manifest.graphs.items()
        for task, parity in graph.parity.items()
    )


def _files(precision: str, graph: Graph) -> str:
    variants = ", ".join(f"`{path}`" for path in graph.variants.values())
    return f"- `{graph.file}`: {precision}" + (f"; for tasks with low rank or units {variants}" if variants else "")


def _figure(parity: TaskParity) -> str:
    if parity.value is None or parity.value_torch is None:
        return "- | no labels"
    return f"{parity.figure} | {parity.value:.3f} ({parity.value_torch:.3f})"
