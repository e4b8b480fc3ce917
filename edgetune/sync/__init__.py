"""Keep bundles in many places in sync.

Only changes are copied, and files become visible only when they are complete and checked.
"""

from edgetune.sync.copying import sync
from edgetune.sync.opening import open_place
from edgetune.sync.places import Place
from edgetune.sync.sharing import pull, push
from edgetune.sync.tasks import Report

__all__ = ["Place", "Report", "open_place", "pull", "push", "sync"]
