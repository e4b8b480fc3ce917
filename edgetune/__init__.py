"""Train soft prompts on a frozen transformer, export it once, classify on the edge."""

import edgetune_runtime  # noqa: F401 - first: what it sets is read when onnxruntime is imported
