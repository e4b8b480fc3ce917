"""Other ways of running the same backbone, for `peers.py`.

Contenders without prompts run texts that are longer by the prompt's length, which costs the same as a soft prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgetune.bench.contenders import Prepare, Rows
from edgetune_runtime.task import Task

CALIBRATION_ROWS, CALIBRATION_TOKENS = 100, 32


def classifier(model: str, prompt: str | None = None, length: int = 0) -> Any:
    """A transformers sequence classifier, optionally with a PEFT prompt.

    Args:
        model: its folder.
        prompt: "prompt" or "prefix".
        length: length of the prompt.
    """
    from peft import PrefixTuningConfig, PromptTuningConfig, TaskType, get_peft_model
    from transformers import AutoModelForSequenceClassification

    from edgetune_export.quiet import quiet

    with quiet():  # its head is untrained, which is intended
        loaded = AutoModelForSequenceClassification.from_pretrained(model, num_labels=2).eval()
    loaded.config.use_cache = False  # keys and values for the next token are not needed
    if prompt is None or length == 0:
        return loaded
    kind = {"prompt": PromptTuningConfig, "prefix": PrefixTuningConfig}[prompt]
    return get_peft_model(loaded, kind(task_type=TaskType.SEQ_CLS, num_virtual_tokens=length)).eval()


@dataclass(frozen=True)
class Peft:
    """PyTorch, eager, fp32, with PEFT's prompt: the usual result of training with PEFT."""

    model: str
    threads: int
    prompt: str

    def start(self) -> Prepare:
        """Models are loaded when they are prepared."""
        import torch

        torch.set_num_threads(self.threads)

        def prepare(task: Task, rows: Rows) -> Callable[[], Any]:
            model = classifier(self.model, self.prompt, task.prompt_length + task.prefix_length)
            return _torch_run(model, rows)

        return prepare


@dataclass(frozen=True)
class TorchInt8:
    """PyTorch's dynamic quantization of all linear layers (GPT-2 has none)."""

    model: str
    threads: int

    def start(self) -> Prepare:
        """Quantize."""
        import torch
        from torch.ao.quantization import quantize_dynamic

        from edgetune_export.quiet import quiet

        torch.set_num_threads(self.threads)
        with quiet():
            model = quantize_dynamic(classifier(self.model), {torch.nn.Linear}, dtype=torch.qint8)
        return lambda task, rows: _torch_run(model, _with_prompt(task, rows))


@dataclass(frozen=True)
class TorchCompile:
    """`torch.compile` with dynamic shapes, fp32."""

    model: str
    threads: int

    def start(self) -> Prepare:
        """Compiled when first run."""
        import torch

        torch.set_num_threads(self.threads)
        model = torch.compile(classifier(self.model), dynamic=True)
        return lambda task, rows: _torch_run(model, _with_prompt(task, rows))


@dataclass(frozen=True)
class PlainOnnx:
    """onnxruntime with default settings, with a graph of the plain classifier."""

    graph: str
    threads: int

    def start(self) -> Prepare:
        """Open the session."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        session = ort.InferenceSession(self.graph, options)

        def prepare(task: Task, rows: Rows) -> Callable[[], Any]:
            feed = _feed(_with_prompt(task, rows))
            return lambda: session.run(None, feed)

        return prepare


@dataclass(frozen=True)
class OpenVino:
    """OpenVINO, optimized for latency."""

    graph: str
    threads: int

    def start(self) -> Prepare:
        """Compile the graph."""
        import openvino

        settings = {"INFERENCE_NUM_THREADS": self.threads, "PERFORMANCE_HINT": "LATENCY"}
        request = openvino.Core().compile_model(self.graph, "CPU", settings).create_infer_request()

        def prepare(task: Task, rows: Rows) -> Callable[[], Any]:
            feed = _feed(_with_prompt(task, rows))
            return lambda: request.infer(feed)

        return prepare


@dataclass(frozen=True)
class CTranslate2:
    """CTranslate2's encoder, int8; it has no classification head."""

    model: str
    threads: int

    def start(self) -> Prepare:
        """Open the model."""
        import ctranslate2

        encoder = ctranslate2.Encoder(self.model, compute_type="int8", intra_threads=self.threads, inter_threads=1)

        def prepare(task: Task, rows: Rows) -> Callable[[], Any]:
            ids = _with_prompt(task, rows)
            return lambda: np.asarray(encoder.forward_batch(ids).last_hidden_state)

        return prepare


def export_plain(model: str, folder: Path, ctranslate2: bool) -> None:
    """Write the plain classifier in the forms that the setups open: plain.onnx, openvino.xml, their int8 forms,
    ctranslate2/."""
    import nncf
    import openvino
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic

    example = torch.ones(2, 9, dtype=torch.int64)
    axes = {0: "batch", 1: "sequence"}
    program = torch.onnx.export(
        classifier(model),
        kwargs={"input_ids": example, "attention_mask": example},
        dynamo=True,
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
        dynamic_shapes={"input_ids": axes, "attention_mask": axes},
        external_data=False,
        verbose=False,
    )
    if program is None:
        raise SystemExit(f"{model} gave no ONNX program")
    plain = folder / "plain.onnx"
    program.save(plain)
    quantize_dynamic(plain, folder / "plain_int8.onnx", weight_type=QuantType.QInt8)
    graph = openvino.convert_model(plain)
    openvino.save_model(graph, folder / "openvino.xml", compress_to_fp16=False)
    random = np.random.default_rng(0)
    rows = [random.integers(1000, 20000, (1, CALIBRATION_TOKENS)) for _ in range(CALIBRATION_ROWS)]
    dataset = nncf.Dataset([{"input_ids": ids, "attention_mask": np.ones_like(ids)} for ids in rows])
    quantized = nncf.quantize(graph, dataset, model_type=nncf.ModelType.TRANSFORMER)
    openvino.save_model(quantized, folder / "openvino_int8.xml")
    if ctranslate2:
        from ctranslate2.converters import TransformersConverter

        TransformersConverter(model).convert(str(folder / "ctranslate2"), quantization="int8", force=True)


def _torch_run(model: Any, rows: Rows) -> Callable[[], Any]:
    import torch

    input_ids = torch.tensor(rows)
    mask = torch.ones_like(input_ids)

    def run() -> Any:
        with torch.inference_mode():
            return model(input_ids=input_ids, attention_mask=mask).logits

    return run


def _with_prompt(task: Task, rows: Rows) -> Rows:
    return [[*ids[:1] * (task.prompt_length + task.prefix_length), *ids] for ids in rows]


def _feed(rows: Rows) -> dict[str, Any]:
    ids = np.array(rows, np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}
