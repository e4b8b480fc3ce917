"""The script that wrote `0.1/`: bundles, tasks and answers of edgetune 0.1 (format version 1). Do not run it again.

It needs the edgetune 0.1 of the commit that added it (and torch 2.13, transformers 5.23, onnxruntime 1.32), and was run
once, as `python tests/formats/write_0_1.py`. Later versions must read its files; a later version would write another
format.

Everything is as edgetune 0.1 writes it, with two exceptions that keep the files small and reproducible: PyTorch's notes
on the origin of each node (source lines, with local paths) are removed from the graphs, and one bundle has a separate
weight file, as bundles above 2 GB do.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import torch
from edgetune.handwritten import create_task
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, BertForPreTraining, PreTrainedTokenizerFast

from edgetune import prompts
from edgetune.data.labelled import LabelledText
from edgetune.training import TaskData, TrainingOptions, train
from edgetune_export import Backbone, export, export_bundle, external, load_backbone
from edgetune_export.graph import to_onnx
from edgetune_export.loading import language_model_class
from edgetune_export.weights import Weights
from edgetune_runtime import Bundle, Engine, Task, contract
from edgetune_runtime.adapter import save_adapter

HERE = Path(__file__).parent / "0.1"

CORPUS = [
    "the lamp is broken and the screen stays black",
    "thank you, this works very well",
    "where is my parcel?",
    "it was charged twice, please send the money back to my account today",
    "good",
    "I do not know why the camera sees nothing at night although the light is on",
    "the new speaker sounds great and the parcel came early",
    "cannot log in; the password mail never comes",
]

TEXTS = [
    "",
    "good",
    "where is my parcel?",
    "it was charged twice, please send the money back to my account today",
    "the new speaker sounds great and the parcel came early",
    "  Thank you,\n\tthis works VERY well!  ",
    "Größe 42 😀 赤い: the lamp works 👍🏽",
    "the [MASK] never comes",
    "the lamp is broken and the screen stays black, " * 20,
]
"""Of several lengths: none, short, long; with white space, other scripts, a mask token; too long for every backbone."""

ROWS = [
    LabelledText(f"the {thing} {state}", label)
    for thing in ("lamp", "camera", "speaker", "parcel", "screen", "mail")
    for state, label in (("is broken", "bad"), ("sounds great", "good"), ("came today", "neutral"))
]
UNICODE_LABELS = ("größe", "赤い 😀", "два слова", "a,b;c\"d'", " spaced ", "عربي")
MANY = tuple(f"label {place:02}" for place in range(30))
WORDS = {"good": ["great", "well"], "bad": ["broken", "nothing"], "lost": ["never"]}


def word_pieces() -> tuple[Tokenizer, dict[str, str]]:
    """BERT's kind, with a start, an end and a mask token."""
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=list(names.values()))
    )
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return tokenizer, names


def byte_pairs(start: bool) -> tuple[Tokenizer, dict[str, str]]:
    """GPT-2's kind, with a start token or with no special token, so that an empty text has no token at all."""
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=list(names.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if start:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer, names


def unigrams() -> tuple[Tokenizer, dict[str, str]]:
    """T5's kind, with an end token."""
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=list(names.values()), unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer, names


def save_model(folder: Path, architecture: str, tokenizer: Tokenizer, names: dict[str, str], **sizes: Any) -> None:
    """Save a tiny seeded model as transformers does."""
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **sizes, vocab_size=tokenizer.get_vocab_size())
    config.pad_token_id = 0
    config.bos_token_id = tokenizer.token_to_id(names.get("bos_token", names["pad_token"]))
    config.eos_token_id = tokenizer.token_to_id(names.get("eos_token", names["pad_token"]))
    # With pooler and masked-language-model head, as BERT was published.
    if architecture == "bert":
        model = BertForPreTraining(config)
    else:
        model = language_model_class(architecture).from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name == "model.embed_tokens.weight":  # the llama's, which makes more of the last bits if it is smaller
                torch.nn.init.normal_(parameter)
            elif parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=1 / parameter.shape[-1] ** 0.5)
            else:  # norms stay near 1, biases near 0
                parameter += torch.randn_like(parameter) / 10
    model.save_pretrained(folder)


def made(
    backbone: Backbone,
    name: str,
    pooling: str,
    labels: Sequence[str] = ("bad", "good", "neutral"),
    prompt: int = 0,
    prefix: int = 0,
    seed: int = 0,
    **more: Any,
) -> Task:
    """A task of random numbers, of about the sizes that trained ones have."""
    random = np.random.default_rng([seed, prompt, prefix, len(labels)])
    lengths = {"prompt": prompt, "prefix": prefix, "labels": len(labels)}
    names = [contract.HEAD_WEIGHT, contract.HEAD_BIAS]
    names += [contract.PROMPT_EMBEDDINGS] if prompt else []
    names += [contract.PREFIX_KEYS, contract.PREFIX_VALUES] if prefix else []
    return Task(
        **{
            "name": name,
            "labels": tuple(labels),
            "backbone_sha256": backbone.fingerprint(),
            "tensors": {
                tensor: random.normal(0, 0.3, backbone.sizes.of(contract.TASK_TENSORS[tensor], **lengths)).astype("f4")
                for tensor in names
            },
            "method": "random",
            "base_model": backbone.name,
            "pooling": pooling,
            "position_offset": backbone.position_offset(prompt + prefix),
            **more,
        }
    )


def trained(backbone: Backbone, name: str, folder: Path, **options: Any) -> Task:
    """A task as a short training writes it."""
    given = {"epochs": 6, "batch_size": 6, "prompt_length": 4, "head_learning_rate": 2e-2, **options}
    out = folder / f"{backbone.name}-{name}.safetensors"
    (report,) = train(backbone, [TaskData(name, out, ROWS, ROWS[::2])], TrainingOptions(**given))
    return report.task


def with_source(backbone: Backbone, task: Task) -> Task:
    """A task whose soft prompt is stored as the prefix that it leads to, with the prompt beside it."""
    tensors = {name: torch.from_numpy(tensor) for name, tensor in task.tensors.items()}
    return dataclasses.replace(task, tensors=prompts.stored(backbone, tensors, task.max_length))


def bert_tasks(backbone: Backbone, folder: Path) -> Iterator[Task]:
    yield made(backbone, "head-cls", "cls", ("no", "yes"))
    yield made(backbone, "prompt-cls", "cls", prompt=3, temperature=0.5)
    yield trained(backbone, "prompt-mean", folder, method="prompt")
    yield trained(backbone, "prompt-behind", folder, method="prompt", positions_behind_prompt=True)
    yield trained(backbone, "prefix-mean", folder, method="prefix", template="Someone wrote: {text}, today.")
    yield made(backbone, "prefix-last-short", "last", prefix=5, max_length=8)
    yield made(backbone, "both-pooler", "pooler", prompt=4, prefix=3, temperature=1.75)
    yield made(backbone, "unicode-pooler", "pooler", UNICODE_LABELS, template="„{text}“ – größe 😀 ", max_length=24)
    yield made(backbone, "many-mean", "mean", MANY, prefix=2, position_offset=2)
    yield create_task(backbone, "words-mask", WORDS, "{text} it was {mask}.")
    yield trained(
        backbone,
        "words-prefix",
        folder,
        template="{mask} news: {text} end",
        label_words={"good": ["great", "well"], "bad": ["broken"], "neutral": ["new"]},
        max_length=16,
    )


def llama_tasks(backbone: Backbone, folder: Path) -> Iterator[Task]:
    yield made(backbone, "head-last", "last")
    yield trained(backbone, "prefix-last", folder, method="prefix", template="{text}\nIt was")
    yield trained(backbone, "prompt-as-prefix", folder, method="prompt")
    yield with_source(backbone, made(backbone, "source-mean", "mean", ("no", "yes"), prompt=6, temperature=2.5))
    yield made(backbone, "prompt-kept", "last", prompt=5)
    yield made(backbone, "both-mean", "mean", prompt=2, prefix=3, position_offset=5)
    yield made(backbone, "prefix-cls", "cls", ("no", "yes"), prefix=2)
    yield made(backbone, "prefix-mean-short", "mean", UNICODE_LABELS, prefix=4, max_length=10, template="Q: {text} A:")
    yield made(backbone, "many-last", "last", MANY, prefix=1)
    yield create_task(backbone, "words", WORDS, "{text} it was", prompt="the mail", max_length=20)


def t5_tasks(backbone: Backbone, folder: Path) -> Iterator[Task]:
    yield made(backbone, "head", "decoder", ("no", "yes"))
    yield trained(backbone, "prompt", folder, method="prompt")
    yield made(backbone, "prefix", "decoder", prefix=4, temperature=0.8)
    yield made(backbone, "both-short", "decoder", UNICODE_LABELS, prompt=3, prefix=2, max_length=9)
    yield made(backbone, "many", "decoder", MANY, prompt=2, template="classify: {text}")
    yield create_task(backbone, "words", WORDS, "{text} it was", max_length=32)


def gpt2_tasks(backbone: Backbone, folder: Path) -> Iterator[Task]:
    yield made(backbone, "head-last", "last")
    yield made(backbone, "prefix-mean", "mean", ("no", "yes"), prefix=3)
    yield made(backbone, "prefix-cls", "cls", prefix=2, seed=2)


def bert_alone(backbone: Backbone, folder: Path) -> Task:
    return made(backbone, "alone", "mean", prompt=3, prefix=4, seed=1, metrics={"dev_accuracy": 0.875, "rows": 40.0})


def llama_alone(backbone: Backbone, folder: Path) -> Task:
    return trained(backbone, "alone", folder, method="prompt-residual", seed=1)


def t5_alone(backbone: Backbone, folder: Path) -> Task:
    return trained(backbone, "alone", folder, method="prefix-mlp", seed=1)


SMALL = {"num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}


@dataclasses.dataclass(frozen=True)
class Fixture:
    """A bundle to write; `split` puts its weights beside its graph."""

    tokenizer: Callable[[], tuple[Tokenizer, dict[str, str]]]
    sizes: dict[str, Any]
    precisions: tuple[str, ...]
    tasks: Callable[[Backbone, Path], Iterator[Task]]
    alone: Callable[[Backbone, Path], Task] | None = None
    split: bool = False


FIXTURES = {
    # Blocks of 32 weights share a scale in q4, so this one's rows have 32 or more.
    "bert": Fixture(
        word_pieces,
        SMALL | {"hidden_size": 32, "intermediate_size": 64},
        ("fp32", "int8", "q4"),
        bert_tasks,
        bert_alone,
    ),
    "llama": Fixture(
        lambda: byte_pairs(start=True),
        SMALL | {"hidden_size": 16, "intermediate_size": 32, "num_key_value_heads": 2},
        ("fp32", "int8"),
        llama_tasks,
        llama_alone,
    ),
    "t5": Fixture(
        unigrams,
        {"d_model": 16, "num_heads": 4, "num_layers": 2, "num_decoder_layers": 1, "d_kv": 4, "d_ff": 32}
        | {"decoder_start_token_id": 0},
        ("fp32", "int8"),
        t5_tasks,
        t5_alone,
    ),
    "gpt2": Fixture(
        lambda: byte_pairs(start=False),
        {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64, "n_inner": 32},
        ("fp32",),
        gpt2_tasks,
        split=True,
    ),
}


def bare_onnx(backbone: Backbone, weights: Weights) -> onnx.ModelProto:
    """The graph without PyTorch's notes, which nothing reads; they are most of so small a file."""
    model = to_onnx(backbone, weights)
    graph = model.graph
    for one in (model, graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        one.ClearField("metadata_props")
    return model


def write_bundle(name: str, fixture: Fixture, models_folder: Path) -> list[Path]:
    """Write a bundle and the task beside it; gives all task files."""
    save_model(models_folder / f"tiny-{name}", name, *fixture.tokenizer(), **fixture.sizes)
    backbone = load_backbone(str(models_folder / f"tiny-{name}"))
    tasks = list(fixture.tasks(backbone, models_folder))
    limit = 1 if fixture.split else external.LARGEST_GRAPH
    with mock.patch.object(export, "to_onnx", bare_onnx), mock.patch.object(external, "LARGEST_GRAPH", limit):
        export_bundle(backbone, HERE / name, precisions=fixture.precisions, tasks=tasks)
    files = [HERE / name / "tasks" / f"{task.name}.safetensors" for task in tasks]
    if fixture.alone is not None:
        alone = fixture.alone(backbone, models_folder)
        files.append(HERE / "tasks" / f"{name}-alone.safetensors")
        alone.save(files[-1])
    return files


def answers(name: str, files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """What the bundle answers, by precision, task and text."""
    for precision in FIXTURES[name].precisions:
        with Engine(HERE / name, precision=precision, threads=1, prepare=False) as engine:
            for file in files:
                task = Task.load(file)
                engine.add_task(task)
                rows = engine.encode(TEXTS, [task] * len(TEXTS))
                logits = engine.run([(row.ids, task) for row in rows])
                results = engine.classify(TEXTS, task.name)
                for text, row, values, result in zip(TEXTS, rows, logits, results, strict=True):
                    yield {
                        "bundle": name,
                        "precision": precision,
                        "file": file.relative_to(HERE).as_posix(),
                        "text": text,
                        # The other precisions read the same tokens, and answer a little otherwise on another CPU.
                        **({"exact": True, "ids": row.ids} if precision == "fp32" else {"exact": False}),
                        "truncated": row.truncated,
                        "logits": [float(value) for value in values],
                        "label": result.label,
                        "scores": list(result.scores.values()),
                    }


def main() -> None:
    shutil.rmtree(HERE, ignore_errors=True)
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, fixture in FIXTURES.items():
            files = write_bundle(name, fixture, Path(folder))
            lines += [json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers(name, files)]
    save_adapter(
        Task.load(HERE / "tasks/bert-alone.safetensors"),
        Bundle(HERE / "bert").manifest.sizes,
        HERE / "tasks/bert-alone.onnx_adapter",
    )
    (HERE / "answers.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")
    sums = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(HERE).as_posix()}\n"
        for path in sorted(HERE.rglob("*"))
        if path.is_file()
    ]
    (HERE / "SHA256SUMS").write_text("".join(sums), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
