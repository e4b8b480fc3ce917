"""edgetune compared with PyTorch with PEFT, torch.compile, plain onnxruntime, OpenVINO and CTranslate2, in one run.

    python benchmarks/peers.py MINILM --work FOLDER

MiniLM has its real weights; BERT-base and GPT-2 small have random ones, which run at the same speed. FOLDER caches the
exports for the next run.

All contenders run the same token ids on the same number of threads, each in its own process, in turns. Contenders
without prompts run n more tokens per row for a prompt of n, which costs the same as a soft prompt; none of them has
prefixes. Prompts of GPT-2 are stored as prefixes, so the soft prompt as input is only for comparison. PyTorch has no
int8 for GPT-2, and CTranslate2 no encoder. The share of the ceiling compares the operations of the backbone's products
and attention, without the prompt, with the best speed of onnxruntime for a single product in the same run.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, redirect_stdout
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import ceiling
import click
import torch
from peer_setups import CTranslate2, OpenVino, Peft, PlainOnnx, TorchCompile, TorchInt8, export_plain
from transformers import AutoModel, BertConfig, GPT2Config

import edgetune_export
from edgetune.bench.contenders import Contender, EngineSetup, Setup
from edgetune.bench.latency import Cell, Timing, machine, random_rows, random_task, take_turns
from edgetune_export import export_bundle, load_backbone
from edgetune_export.quiet import quiet
from edgetune_runtime import Bundle
from edgetune_runtime.cpus import available_threads

TURNS = 3
SMALL, LARGE = ((1, 12), (1, 32), (1, 128), (16, 32)), (32, 128)
SIZES = {"MiniLM": (*SMALL, LARGE), "BERT-base": SMALL, "GPT-2 small": SMALL}
"""Batch and tokens. The large size takes minutes per cell for the larger models: `--large` runs it."""
LENGTHS = (0, 20, 100)
QUICK_SIZES, QUICK_LENGTHS = ((1, 32), (16, 32)), (0, 20)

RANDOM: Mapping[str, Callable[[], Any]] = {
    "BERT-base": lambda: BertConfig(position_embedding_type="absolute"),  # CTranslate2 needs it
    "GPT-2 small": lambda: GPT2Config(pad_token_id=0),
}
"""Models of random weights and their configurations; they use MiniLM's tokenizer, which is not timed."""
PACKAGES = ("torch", "transformers", "peft", "openvino", "nncf", "ctranslate2")
MODELS = ("MiniLM", *RANDOM)
PREFIX, PROMPT = "edgetune int8 prefix", "edgetune int8 prompt"
BESIDE = {
    PREFIX: ("PEFT prefix", "edgetune fp32 prefix"),
    PROMPT: ("PEFT prompt", "OpenVINO int8", "CTranslate2 int8"),
}
"""Ours → contenders that do the same work."""


@dataclass(frozen=True)
class Column:
    """A contender, and the type of prompt that it gets."""

    method: str
    setup: Setup


def columns(model: Path, folder: Path, threads: int) -> dict[str, Column]:
    """All contenders, the baseline first."""
    plain, bundle = str(model), str(folder / "bundle")
    found = {
        "PEFT prompt": Column("prompt", Peft(plain, threads, "prompt")),
        "PEFT prefix": Column("prefix", Peft(plain, threads, "prefix")),
        "torch.compile": Column("prompt", TorchCompile(plain, threads)),
        "onnx int8": Column("prompt", PlainOnnx(str(folder / "plain_int8.onnx"), threads)),
        "OpenVINO": Column("prompt", OpenVino(str(folder / "openvino.xml"), threads)),
        "OpenVINO int8": Column("prompt", OpenVino(str(folder / "openvino_int8.xml"), threads)),
    }
    if (folder / "ctranslate2").exists():  # a BERT
        found["torch int8"] = Column("prompt", TorchInt8(plain, threads))
        found["CTranslate2 int8"] = Column("prompt", CTranslate2(str(folder / "ctranslate2"), threads))
    for precision, method in (("fp32", "prefix"), ("int8", "prefix"), ("int8", "prompt")):
        setup = EngineSetup(bundle, precision, "cpu", threads)
        found[f"edgetune {precision} {method}"] = Column(method, setup)
    return found


def prepare(name: str, minilm: Path, work: Path) -> tuple[Path, Path]:
    """The folders of a model and of its exports, created if they are missing or outdated."""
    folder = work / name.replace(" ", "-")
    model = minilm if name not in RANDOM else folder / "model"
    finished, state = folder / "finished", exporter()
    if not finished.exists() or finished.read_text() != state:
        click.echo(f"{name}: exporting", err=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if name in RANDOM:
            torch.manual_seed(0)
            AutoModel.from_config(RANDOM[name]()).save_pretrained(model)
            for file in minilm.glob("*token*"):
                shutil.copy(file, model)
        export_bundle(load_backbone(str(model)), folder / "bundle")
        with quiet(), redirect_stdout(sys.stderr):  # nncf draws progress bars there
            export_plain(str(model), folder, ctranslate2=name != "GPT-2 small")
        finished.write_text(state)
    return model, folder


def exporter() -> str:
    """The inputs of exports: the sources of the export and of this benchmark, and the package versions."""
    sources = sorted([*Path(edgetune_export.__file__).parent.glob("*.py"), *Path(__file__).parent.glob("peer*.py")])
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    return json.dumps([digest, machine(0, *PACKAGES)["versions"]])


@functools.cache
def operations(model: Path, batch: int, tokens: int) -> int:
    """Operations of a run: two for each weight of each product and token, and attention's two products."""
    backbone = load_backbone(str(model)).model
    tables = {id(module.weight) for module in backbone.modules() if isinstance(module, torch.nn.Embedding)}
    weights = sum(
        parameter.numel()
        for name, parameter in backbone.named_parameters()
        if parameter.ndim == 2 and id(parameter) not in tables and "pooler" not in name
    )
    config: Any = backbone.config
    return 2 * batch * tokens * (weights + 2 * config.num_hidden_layers * tokens * config.hidden_size)


def measure(
    name: str, minilm: Path, work: Path, cells: Iterable[tuple[tuple[int, int], int]], threads: int, seconds: float
) -> list[dict[str, Any]]:
    """Time all contenders in all cells of one model."""
    model, folder = prepare(name, minilm, work)
    bundle = Bundle(folder / "bundle")
    found = []
    with ExitStack() as stack:
        chosen = columns(model, folder, threads)
        started = {column: Contender(chosen[column].setup) for column in chosen}
        contenders = {column: stack.enter_context(process) for column, process in started.items()}
        for (batch, tokens), length in cells:
            click.echo(f"{name}: {batch} × {tokens}, prompt {length}", err=True)
            for column, contender in contenders.items():
                cell = Cell(chosen[column].method, length, tokens, batch)
                contender.prepare(random_task(bundle.manifest, cell), random_rows(bundle, cell))
            timings = take_turns(contenders, seconds * len(contenders), TURNS)
            found.append(
                {
                    "batch_size": batch,
                    "sequence_length": tokens,
                    "prompt_length": length,
                    "operations": operations(model, batch, tokens),
                    "contenders": timings,
                }
            )
    return found


def report(name: str, cells: list[dict[str, Any]], peak: Mapping[str, float]) -> str:
    """Two Markdown tables: milliseconds, and the results for our goals."""
    names = list(cells[0]["contenders"])
    lines = [f"### {name}, ms", "", "| batch × tokens | prompt | " + " | ".join(names) + " |"]
    lines.append("|---" * (len(names) + 2) + "|")
    for cell in cells:
        timings: Mapping[str, Timing] = cell["contenders"]
        size = f"{cell['batch_size']} × {cell['sequence_length']}"
        times = " | ".join(f"{timings[column].median_ms:.2f}" for column in names)
        lines.append(f"| {size} | {cell['prompt_length']} | {times} |")
    beside = {ours: [theirs for theirs in some if theirs in names] for ours, some in BESIDE.items()}
    titles = [f"{ours.removeprefix('edgetune ')} vs {theirs}" for ours, some in beside.items() for theirs in some]
    lines += ["", f"### {name}, times as fast", ""]
    lines += [f"| batch × tokens | prompt | {' | '.join(titles)} | share of ceiling, int8 | fp32 |"]
    lines.append("|---" * (len(titles) + 4) + "|")
    for cell in cells:
        times = {column: timing.median_ms for column, timing in cell["contenders"].items()}
        ratios = [f"{times[theirs] / times[ours]:.2f}×" for ours, some in beside.items() for theirs in some]
        gops = {precision: cell["operations"] / times[f"edgetune {precision} prefix"] / 1e6 for precision in peak}
        shares = [f"{gops[precision] / peak[precision]:.0%}" for precision in ("int8", "fp32")]
        size = f"{cell['batch_size']} × {cell['sequence_length']}"
        lines.append(f"| {size} | {cell['prompt_length']} | {' | '.join([*ratios, *shares])} |")
    return "\n".join(lines)


@click.command()
@click.argument("minilm", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Where exported models are kept.")
@click.option("--model", "names", type=click.Choice(MODELS), multiple=True, help="[default: all]")
@click.option("--threads", type=click.IntRange(1), help="Threads of each contender. [default: all]")
@click.option("--seconds", default=1.0, show_default=True, help="Time for each contender in each cell.")
@click.option("--large", is_flag=True, help="32 × 128 alone: minutes a cell for all but MiniLM.")
@click.option("--quick", is_flag=True, help="MiniLM alone, two sizes, two prompt lengths.")
def main(
    minilm: Path, work: Path, names: tuple[str, ...], threads: int | None, seconds: float, large: bool, quick: bool
) -> None:
    """Compare latencies."""
    threads = threads or available_threads()
    figures = ceiling.gops(threads)
    peak = {precision: max(both[precision] for both in figures.values()) for precision in ("fp32", "int8")}
    found = {}
    for name in names or (MODELS[:1] if quick else MODELS):
        sizes = (LARGE,) if large else SIZES[name]
        cells = product(QUICK_SIZES, QUICK_LENGTHS) if quick else product(sizes, LENGTHS)
        found[name] = measure(name, minilm, work, cells, threads, seconds)
        click.echo(report(name, found[name], peak) + "\n")
    click.echo(f"Ceiling: {peak['fp32']:.0f} GOP/s in fp32, {peak['int8']:.0f} in int8.")
    record = {
        model: [{**cell, "contenders": {key: asdict(t) for key, t in cell["contenders"].items()}} for cell in some]
        for model, some in found.items()
    }
    click.echo(json.dumps({"environment": machine(threads, *PACKAGES), "gops": figures, "models": record}))


if __name__ == "__main__":
    main()
