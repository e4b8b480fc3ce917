"""What tasks and texts need to know about a backbone. A bundle's manifest and the PyTorch model give the same facts."""

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
    """The facts of a backbone.

    Attributes:
        name: its name for people.
        sha256: fingerprint of its weights.
        sizes: sizes that determine the shapes of prompts and heads.
        max_positions: its number of positions.
        poolings: the available `contract.POOLINGS`; the first is the default.
        mask_token: the token that replaces `{mask}` in a template; empty if it has none.
        inputs: names of its graph's inputs, a subset of `contract.INPUTS`.
        variants: graph variant → the inputs that it takes in addition. A subset of `contract.VARIANTS`, cheapest first,
            without the base.
        classifier_sha256: fingerprint of the weights, including those of the checkpoint's own classifier
            (`contract.OWN_CLASSIFIER`); empty if that has no layers before its last.
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
        """Fingerprint of all weights that a task with this pooling uses."""
        return self.classifier_sha256 if pooling in contract.OWN_CLASSIFIER else self.sha256

    def inputs_of(self, variant: str) -> list[str]:
        """Names of a graph variant's inputs, in the contract's order."""
        taken = {*self.inputs, *self.variants.get(variant, ())}
        return [name for name in contract.INPUTS if name in taken]

    def variant_for(self, *tasks: Task) -> str:
        """The cheapest graph variant that takes all parts of these tasks.

        Raises:
            TaskError: no variant does.
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
        """Raise `TaskError` unless the task was made for this backbone and the graph has all inputs that it needs."""
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
