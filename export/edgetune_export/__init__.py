"""Export a frozen PyTorch backbone to an ONNX bundle."""

import edgetune_runtime  # noqa: F401 - first: what it sets is read when onnxruntime is imported
from edgetune_export.backbone import Backbone
from edgetune_export.export import export_bundle
from edgetune_export.loading import load_backbone
from edgetune_export.parity import CheckTexts

__all__ = ["Backbone", "CheckTexts", "export_bundle", "load_backbone"]
