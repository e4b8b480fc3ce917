"""Low-rank changes of linear layers: PEFT's LORA (Hu et al. 2021).

PEFT adds scaling · B·A·x to a linear layer's output for x, and a task adds x·down·up. So down is A transposed, and up
is B transposed, multiplied by the scaling.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from edgetune.peft_adapters import files as peft
from edgetune.peft_adapters.change import Change, Written, check_reads_last
from edgetune.peft_adapters.files import Adapter
from edgetune.peft_adapters.plain_lora import check_plain
from edgetune_export.backbone import Backbone
from edgetune_runtime import contract
from edgetune_runtime.errors import TaskError
from edgetune_runtime.task import Task

INSIDE = "base_model.model."
_FACTOR = re.compile(re.escape(INSIDE) + r"(?P<path>.+)\.lora_(embedding_)?(?P<factor>[AB])(\.weight)?")


@dataclass(frozen=True)
class LowRank(Change):
    """The changes of linear layers by an adapter.

    Attributes:
        adapter: the adapter.
        factors: path of a layer in PEFT's model → names of its tensors A and B.

    Shape:
        A: [rank, inputs]
        B: [outputs, rank]
    """

    inside = INSIDE
    length = 0

    adapter: Adapter
    factors: Mapping[str, tuple[str, str]]

    @classmethod
    def read(cls, adapter: Adapter) -> Self:
        """Accept only adapters that are exactly x·A·B."""
        check_plain(adapter)
        found: dict[str, dict[str, str]] = {}
        for name in adapter.tensors:
            if match := _FACTOR.fullmatch(name):
                found.setdefault(match["path"], {})[match["factor"]] = name
        for path, names in found.items():
            if len(names) != 2:
                raise TaskError(
                    f"{adapter.origin} has only {', '.join(names.values())} of {path}: expected lora_A and lora_B; "
                    f"copy it again"
                )
        return cls(adapter, {path: (names["A"], names["B"]) for path, names in found.items()})

    def check(self, backbone: Backbone, task: Task) -> None:
        """Check that a sequence classifier finds the last token that is not padding."""
        if self.adapter.task_type == peft.SEQ_CLS:
            check_reads_last(backbone, self.adapter, task)

    def parts(self, backbone: Backbone, peft_task: int | None) -> dict[str, Tensor]:
        """Down and up of each site that the adapter changes, with zeros for unchanged layers."""
        places = _places(backbone)
        prefixes: set[str] = set()
        changed: dict[str, dict[int, tuple[Tensor, Tensor]]] = {}
        for path, names in sorted(self.factors.items()):  # errors name the first
            if not all(self.adapter.tensors[name].any() for name in names):
                continue  # still in its initial state, so nothing is added
            prefix, name = _own_name(path, places)
            if name is None:
                raise TaskError(
                    f"{self.adapter.origin} changes {path}, which {backbone.name} does not let a task change: expected "
                    f"only linear layers of attention and feed-forwards ({', '.join(backbone.sites)}); train it with "
                    f"these as target_modules"
                )
            prefixes.add(prefix)
            site, numbers = places[name]
            down, up = self._down_and_up(path, backbone.sites[site].inputs, backbone.sites[site].outputs)
            changed.setdefault(site, {}).update(dict.fromkeys(numbers, (down, up)))
        if len(prefixes) > 1:
            raise TaskError(
                f"{self.adapter.origin} changes layers of {' and '.join(repr(prefix) for prefix in sorted(prefixes))}, "
                f"of which only one can be {backbone.name}: expected an adapter of that model alone"
            )
        found: dict[str, Tensor] = {}
        for site, factors in changed.items():
            rank = max(down.shape[1] for down, _ in factors.values())
            sizes = {**vars(backbone.sizes), contract.rank(site): rank}
            for place, name in enumerate((contract.down(site), contract.up(site))):
                found[name] = torch.zeros([sizes[dim] for dim in contract.TASK_TENSORS[name]])
                for number, pair in factors.items():
                    rows, columns = pair[place].shape
                    found[name][number, :rows, :columns] = pair[place]
        return found

    def _down_and_up(self, path: str, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
        """Shape: [inputs, rank], [rank, outputs]."""
        settings = self.adapter.settings
        try:
            rank = int(_by_pattern(settings.get("rank_pattern"), path, settings["r"]))
            alpha = float(_by_pattern(settings.get("alpha_pattern"), path, settings["lora_alpha"]))
            scaling = alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
            if not math.isfinite(scaling):
                raise ValueError(f"a scaling of {scaling}")
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, re.error) as error:
            raise self.adapter.unreadable(error) from error
        names = self.factors[path]
        read, written = self.adapter.tensor(names[0], (rank, inputs)), self.adapter.tensor(names[1], (outputs, rank))
        return read.T, written.T * scaling

    @property
    def made_from(self) -> Collection[str]:
        """All A and B."""
        return {name for names in self.factors.values() for name in names}

    @staticmethod
    def write(backbone: Backbone, task: Task, tensors: Mapping[str, Tensor], classifies: bool) -> Written:
        """Columns without effect are omitted, and so are layers with no other columns."""
        prefix = f"{backbone.model.base_model_prefix}." if classifies else ""
        found: dict[str, Tensor] = {}
        ranks: dict[str, int] = {}
        for name, (site, numbers) in _places(backbone).items():
            if contract.down(site) not in tensors:
                continue
            pairs = [(tensors[contract.down(site)][number], tensors[contract.up(site)][number]) for number in numbers]
            down, up = pairs[0]
            if any(not torch.equal(down, other) or not torch.equal(up, same) for other, same in pairs):
                raise TaskError(
                    f"task '{task.name}' changes {name} in another way each of the {len(numbers)} times that "
                    f"{backbone.name} calls it, an adapter of PEFT's in one way: expected equal changes"
                )
            used = (down.any(dim=0) & up.any(dim=1)).nonzero()
            if not len(used):
                continue
            path, rank = prefix + name, int(used.max()) + 1
            ranks[path] = rank
            found[f"{INSIDE}{path}.lora_A.weight"] = down[:, :rank].T
            found[f"{INSIDE}{path}.lora_B.weight"] = up[:rank].T
        if not ranks:
            raise TaskError(f"task '{task.name}' has low rank that changes nothing: expected numbers that are not 0")
        return Written(peft.LORA, _settings(backbone, ranks, classifies), found)


def _settings(backbone: Backbone, ranks: Mapping[str, int], classifies: bool) -> dict[str, Any]:
    """With an alpha equal to the rank, PEFT's scaling is 1."""
    usual = max(ranks.values())
    others = {path: rank for path, rank in ranks.items() if rank != usual}
    layers = (module for site in backbone.sites.values() for module in site.modules)
    return {
        "alpha_pattern": others,
        "bias": "none",
        "fan_in_fan_out": any(isinstance(module, Conv1D) for module in layers),
        "lora_alpha": usual,
        "lora_dropout": 0.0,
        "modules_to_save": ["classifier", "score"] if classifies else None,
        "r": usual,
        "rank_pattern": others,
        "target_modules": sorted(ranks),
    }


def _places(backbone: Backbone) -> dict[str, tuple[str, list[int]]]:
    """Name of a linear layer in the backbone → its site and its indices there.

    Several if the layer is called repeatedly.
    """
    names: dict[nn.Module, str] = {module: name for name, module in backbone.model.named_modules()}
    found: dict[str, tuple[str, list[int]]] = {}
    for site, layers in backbone.sites.items():
        for number, module in enumerate(layers.modules):
            found.setdefault(names[module], (site, []))[1].append(number)
    return found


def _own_name(path: str, places: Collection[str]) -> tuple[str, str | None]:
    """Split a layer's path in PEFT's model into the backbone's name and the layer's name.

    The backbone's name is empty if it is the whole model. The layer's name is `None` if the backbone has no such layer.
    """
    if path in places:
        return "", path
    prefix, _, name = path.partition(".")
    return prefix, name if name in places else None


def _by_pattern(patterns: Mapping[str, Any] | None, path: str, usual: Any) -> Any:
    """The value for a layer in PEFT's `rank_pattern` or `alpha_pattern`.

    The first pattern that matches the end of its path counts.
    """
    return next((value for key, value in (patterns or {}).items() if re.match(rf"(.*\.)?({key})$", path)), usual)
