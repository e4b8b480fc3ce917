"""Bundles kept alike in many places: what changed is copied, and nothing is seen before it is whole and checked."""

from edgetune.sync.copying import sync
from edgetune.sync.opening import open_place
from edgetune.sync.places import Place
from edgetune.sync.sharing import pull, push
from edgetune.sync.tasks import Report

__all__ = ["Place", "Report", "open_place", "pull", "push", "sync"]
