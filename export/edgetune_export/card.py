"""The bundle's model card: what it is, how to run it, what was measured."""

from __future__ import annotations

from edgetune_runtime.manifest import Graph, Manifest, TaskParity


def card(manifest: Manifest) -> str:
    """The card as Markdown."""
    rows = [
        f"| {precision} | {task} | {parity.rows} | {parity.max_logit_difference:.1e} | "
        f"{parity.label_agreement:.1%} | {_figure(parity)} |"
        for precision, graph in manifest.graphs.items()
        for task, parity in graph.parity.items()
    ]
    graphs = "\n".join(_files(precision, graph) for precision, graph in manifest.graphs.items())
    return f"""---
library_name: edgetune
base_model: {manifest.facts.name}
pipeline_tag: text-classification
tags: [onnx, soft-prompt, text-classification]
---

# {manifest.facts.name}: an edgetune bundle

The frozen backbone {manifest.facts.name} ({manifest.architecture}), exported once. Tasks are small files beside
it, given to the graph as inputs. Features are read by pooling `{manifest.facts.poolings[0]}` unless a task says
otherwise.

{graphs}

```
pip install edgetune
echo "some text" | edgetune classify . --task NAME
```

## Measured against PyTorch at export

| precision | task | texts | largest logit difference | same answer | figure | here (PyTorch) |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}

Backbone SHA-256 `{manifest.facts.sha256}`; written by edgetune {manifest.edgetune_version}.
"""


def _files(precision: str, graph: Graph) -> str:
    variants = ", ".join(f"`{path}`" for path in graph.variants.values())
    return f"- `{graph.file}`: {precision}" + (f"; for tasks with low rank or units {variants}" if variants else "")


def _figure(parity: TaskParity) -> str:
    if parity.value is None or parity.value_torch is None:
        return "- | no labels"
    return f"{parity.figure} | {parity.value:.3f} ({parity.value_torch:.3f})"
