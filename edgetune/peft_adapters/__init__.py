"""Convert PEFT's adapters to tasks, and tasks to PEFT's adapters. PEFT itself is not needed."""

from edgetune.peft_adapters.exporting import export_adapter
from edgetune.peft_adapters.files import Adapter
from edgetune.peft_adapters.importing import import_task

__all__ = ["Adapter", "export_adapter", "import_task"]
