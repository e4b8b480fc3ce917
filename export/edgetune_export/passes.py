"""Rewrites of the exported graph that change its speed and not its answers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.optimizer import optimize_model

from edgetune_export.quiet import quiet
from edgetune_runtime.contract import BackboneSizes


def fuse(model: onnx.ModelProto, sizes: BackboneSizes) -> onnx.ModelProto:
    """Fuse residual additions with layer normalization, and biases with GELU.

    onnxruntime is winding down this optimizer: all that is used of it is here.
    """
    options = FusionOptions("bert")
    options.enable_attention = False  # fused already, by construction
    # The fused operator always has a bias.
    norms = [node for node in model.graph.node if node.op_type == "LayerNormalization"]
    options.enable_skip_layer_norm = all(len(node.input) == 3 for node in norms)
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder) / "model.onnx"  # given a proto, it loses sight of the weights
        onnx.save(model, path)
        fused = optimize_model(
            str(path),
            model_type="bert",
            num_heads=sizes.hidden // sizes.head_dim,
            hidden_size=sizes.hidden,
            optimization_options=options,
            opt_level=1,
        )
    return fused.model
