"""edgetune beside PyTorch with PEFT, torch.compile, plain onnxruntime, OpenVINO and CTranslate2, in one run.

    python benchmarks/peers.py MINILM --work FOLDER

MiniLM has its real weights; BERT-base and GPT-2 small have random ones, which are as fast. FOLDER keeps what is
exported, for the next run. All run the same token ids on the same number of threads, each in a process of its own,
taking turns. Those that know no prompts run n more tokens a row for a prompt of n. The share of the ceiling counts
the operations of the backbone's products and attention, without the prompt's, against the best that onnxruntime gives
for a product alone (`ceiling.py`), measured in the same run.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import ceiling
import click
import torch
from peer_setups import CTranslate2, OpenVino, Peft, PlainOnnx, TorchCompile, TorchInt8, export_plain
from transformers import AutoModel, BertConfig, GPT2Config

from edgetune.benchmark import Cell, Timing, machine, random_rows, random_task, take_turns
from edgetune.contenders import Contender, EngineSetup, Setup
from edgetune_export import export_bundle, load_backbone
from edgetune_export.quiet import quiet
from edgetune_runtime import Bundle
from edgetune_runtime.session import available_threads

TURNS = 3
SIZES = ((1, 12), (1, 32), (1, 128), (16, 32), (32, 128))
LENGTHS = (0, 20, 100)
QUICK_SIZES, QUICK_LENGTHS = ((1, 32), (16, 32)), (0, 20)

RANDOM: Mapping[str, Callable[[], Any]] = {"BERT-base": BertConfig, "GPT-2 small": lambda: GPT2Config(pad_token_id=0)}
"""Models of random weights and their configurations; they borrow MiniLM's tokenizer, of which nothing is timed."""
MODELS = ("MiniLM", *RANDOM)
PYTORCH, OURS = "PEFT prompt", "edgetune int8 prefix"


@dataclass(frozen=True)
class Column:
    """A contender, and the kind of prompt that it is given."""

    method: str
    setup: Setup


def columns(model: Path, folder: Path, threads: int) -> dict[str, Column]:
    """All contenders, the baseline first."""
    plain, bundle = str(model), str(folder / "bundle")
    found = {
        PYTORCH: Column("prompt", Peft(plain, threads, "prompt")),
        "PEFT prefix": Column("prefix", Peft(plain, threads, "prefix")),
        "torch.compile": Column("prompt", TorchCompile(plain, threads)),
        "torch int8": Column("prompt", TorchInt8(plain, threads)),
        "onnx int8": Column("prompt", PlainOnnx(str(folder / "plain_int8.onnx"), threads)),
        "OpenVINO": Column("prompt", OpenVino(str(folder / "openvino.xml"), threads)),
        "OpenVINO int8": Column("prompt", OpenVino(str(folder / "openvino_int8.xml"), threads)),
    }
    if (folder / "ctranslate2").exists():
        found["CTranslate2 int8"] = Column("prompt", CTranslate2(str(folder / "ctranslate2"), threads))
    for precision, method in (("fp32", "prefix"), ("int8", "prefix"), ("int8", "prompt")):
        setup = EngineSetup(bundle, precision, "cpu", threads)
        found[f"edgetune {precision} {method}"] = Column(method, setup)
    return found


def prepare(name: str, minilm: Path, work: Path) -> tuple[Path, Path]:
    """The folder of a model and the one of what is exported from it, made where they are not there yet."""
    folder = work / name.replace(" ", "-")
    model = minilm if name not in RANDOM else folder / "model"
    if name in RANDOM and not model.exists():
        torch.manual_seed(0)
        AutoModel.from_config(RANDOM[name]()).save_pretrained(model)
        for file in minilm.glob("*token*"):
            shutil.copy(file, model)
    finished = folder / "finished"
    if not finished.exists():
        click.echo(f"{name}: exporting", err=True)
        folder.mkdir(parents=True, exist_ok=True)
        export_bundle(load_backbone(str(model)), folder / "bundle", overwrite=True)
        with quiet():
            export_plain(str(model), folder, ctranslate2=name != "GPT-2 small")
        finished.touch()
    return model, folder


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
    """Two tables of Markdown: milliseconds, and what they say of the aims."""
    names = list(cells[0]["contenders"])
    lines = [f"### {name}, ms", "", "| batch × tokens | prompt | " + " | ".join(names) + " |"]
    lines.append("|---" * (len(names) + 2) + "|")
    for cell in cells:
        timings: Mapping[str, Timing] = cell["contenders"]
        size = f"{cell['batch_size']} × {cell['sequence_length']}"
        times = " | ".join(f"{timings[column].median_ms:.2f}" for column in names)
        lines.append(f"| {size} | {cell['prompt_length']} | {times} |")
    peers = [column for column in names if column.startswith(("OpenVINO int8", "CTranslate2"))]
    lines += ["", f"### {name}, {OURS} beside", ""]
    lines += [
        f"| batch × tokens | prompt | {PYTORCH} | {' | '.join(peers)} | edgetune fp32 prefix | share of ceiling |"
    ]
    lines.append("|---" * (len(peers) + 5) + "|")
    for cell in cells:
        ours = cell["contenders"][OURS].median_ms
        times = [cell["contenders"][column].median_ms for column in (PYTORCH, *peers, "edgetune fp32 prefix")]
        share = cell["operations"] / ours / 1e6 / peak["int8"]
        size = f"{cell['batch_size']} × {cell['sequence_length']}"
        ratios = " | ".join(f"{time / ours:.2f}×" for time in times)
        lines.append(f"| {size} | {cell['prompt_length']} | {ratios} | {share:.0%} |")
    return "\n".join(lines)


@click.command()
@click.argument("minilm", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Where exported models are kept.")
@click.option("--model", "names", type=click.Choice(MODELS), multiple=True, help="[default: all]")
@click.option("--threads", type=click.IntRange(1), help="Threads of each contender. [default: all]")
@click.option("--seconds", default=1.0, show_default=True, help="Time for each contender in each cell.")
@click.option("--quick", is_flag=True, help="MiniLM alone, two sizes, two prompt lengths.")
def main(minilm: Path, work: Path, names: tuple[str, ...], threads: int | None, seconds: float, quick: bool) -> None:
    """Compare latencies."""
    threads = threads or available_threads()
    figures = ceiling.gops(threads)
    peak = {precision: max(both[precision] for both in figures.values()) for precision in ("fp32", "int8")}
    cells = list(product(QUICK_SIZES, QUICK_LENGTHS) if quick else product(SIZES, LENGTHS))
    found = {}
    for name in names or (MODELS[:1] if quick else MODELS):
        found[name] = measure(name, minilm, work, cells, threads, seconds)
        click.echo(report(name, found[name], peak) + "\n")
    packages = ("torch", "transformers", "peft", "openvino", "nncf", "ctranslate2")
    click.echo(f"Ceiling: {peak['fp32']:.0f} GOP/s in fp32, {peak['int8']:.0f} in int8.")
    record = {
        model: [{**cell, "contenders": {key: asdict(t) for key, t in cell["contenders"].items()}} for cell in some]
        for model, some in found.items()
    }
    click.echo(json.dumps({"environment": machine(threads, *packages), "gops": figures, "models": record}))


if __name__ == "__main__":
    main()
