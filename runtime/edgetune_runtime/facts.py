"""What tasks and texts need to know of a backbone, the same from a bundle's manifest and from the model in PyTorch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from edgetune_runtime import contract
from edgetune_runtime.contract import BackboneSizes
from edgetune_runtime.errors import TaskError
from edgetune_runtime.parts import lengths_of
from edgetune_runtime.task import Task


@dataclass(frozen=True)
class BackboneFacts:
    """A backbone, described.

    Attributes:
        name: what people call it.
        sha256: fingerprint of its weights.
        sizes: sizes that fix the shapes of prompts and heads.
        max_positions: positions that it has.
        poolings: where features can be read, some of `contract.POOLINGS`; the first is its usual one.
        mask_token: what `{mask}` in a template becomes; empty if it has no such token.
        inputs: names of the inputs that its graph takes, some of `contract.INPUTS`.
        variants: variant of the graph → inputs that it takes beside these. Some of `contract.VARIANTS` in its order,
            from the cheapest on, and never the base.
        classifier_sha256: fingerprint of the weights with those of the checkpoint's own
            classifier (`contract.OWN_CLASSIFIER`); empty if it has no layers before its last.
    """

    name: str
    sha256: str
    sizes: BackboneSizes
    max_positions: int
    poolings: tuple[str, ...]
    mask_token: str
    inputs: Collection[str] = contract.BASE_INPUTS
    variants: Mapping[str, Collection[str]] = field(default_factory=dict)
    classifier_sha256: str = ""

    def sha256_for(self, pooling: str) -> str:
        """Fingerprint of all weights that a task with that pooling passes through."""
        return self.classifier_sha256 if pooling in contract.OWN_CLASSIFIER else self.sha256

    def inputs_of(self, variant: str) -> list[str]:
        """Names of the inputs that a variant of the graph takes, in the contract's order."""
        taken = {*self.inputs, *self.variants.get(variant, ())}
        return [name for name in contract.INPUTS if name in taken]

    def variant_for(self, *tasks: Task) -> str:
        """The cheapest variant of the graph that takes what these tasks have.

        Raises:
            TaskError: none does.
        """
        needed = {name for task in tasks for name in task.needed_inputs}.difference(self.inputs)
        for variant in (contract.BASE, *self.variants):
            if needed.issubset(self.variants.get(variant, ())):
                return variant
        missing = ", ".join(sorted(needed.difference(*self.variants.values()) or needed))
        named = " and ".join(f"task '{task.name}'" for task in tasks)
        raise TaskError(
            f"{named} needs the graph's input {missing}, which this bundle of {self.name} does not have: export "
            f"{self.name} again with this edgetune"
        )

    def check(self, task: Task) -> None:
        """Raise `TaskError` unless the task was made for this backbone and needs only what its graph has."""
        own = self.sha256_for(task.pooling)
        if task.backbone_sha256 != own:
            raise TaskError(
                f"task '{task.name}' was trained on the backbone {task.base_model} ({task.backbone_sha256[:12]}…), "
                f"but this is {self.name} ({(own or self.sha256)[:12]}…): use the bundle of its own backbone, or train "
                f"it again on this one"
            )
        if not {*contract.reads(task.pooling)} <= {*self.poolings}:
            raise TaskError(
                f"task '{task.name}' reads its features by pooling '{task.pooling}', which {self.name} does not have: "
                f"expected one of {', '.join(self.poolings)}; train it again with `pooling` {self.poolings[0]}"
            )
        self.variant_for(task)
        if max(task.prompt_length, task.position_offset) >= self.max_positions:
            raise TaskError(
                f"task '{task.name}' has a prompt of {task.prompt_length} tokens and its text begins at position "
                f"{task.position_offset}: {self.name} has {self.max_positions} positions, which leaves no room for text"
            )
        lengths = lengths_of(task.tensors)
        for name, tensor in task.tensors.items():
            expected = self.sizes.of(contract.TASK_TENSORS[name], **lengths)
            if tensor.shape != expected:
                raise TaskError(
                    f"task '{task.name}' has {name} of shape {list(tensor.shape)}: expected {list(expected)} "
                    f"on {self.name}"
                )
