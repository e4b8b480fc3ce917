"""Tasks from PEFT's adapters, and PEFT's adapters from tasks. PEFT itself is not needed for either."""

from edgetune.peft_adapters.exporting import export_adapter
from edgetune.peft_adapters.files import Adapter
from edgetune.peft_adapters.importing import import_task

__all__ = ["Adapter", "export_adapter", "import_task"]
