"""The module that is trained: a frozen backbone with one prompt and, for each task, a head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from edgetune.training.prompts import Prefix, SoftPrompt
from edgetune_export.backbone import Backbone
from edgetune_runtime import contract
from edgetune_runtime.arrays import Array
from edgetune_runtime.task import Task


class PromptTuner(nn.Module):
    """A frozen backbone with a trainable prompt, which all tasks share, and a trainable head for each task.

    Its state, and so a checkpoint, is the prompt and the heads alone; the backbone stays in evaluation mode.

    Args:
        backbone: the frozen backbone.
        prompt: the prompt.
        heads: one a task.
        drafts: the tasks, of which only positions and pooling are read.
        class_weights: for each task how much a row of each label counts in the loss, or `None`: all the same.
    """

    def __init__(
        self,
        backbone: Backbone,
        prompt: SoftPrompt | Prefix,
        heads: Sequence[nn.Linear],
        drafts: Sequence[Task],
        class_weights: Sequence[Array | None] = (),
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.prompt = prompt
        self.heads = nn.ModuleList(heads)
        widest = max(head.out_features for head in heads)
        missing = [[place >= head.out_features for place in range(widest)] for head in heads]
        self._no_label = torch.tensor(missing)
        self._class_weights: Tensor | None = None
        if any(weights is not None for weights in class_weights):
            self._class_weights = torch.ones(self._no_label.shape)
            for place, weights in enumerate(class_weights):
                if weights is not None:
                    self._class_weights[place, : len(weights)] = torch.from_numpy(weights)
        self._fixed = {
            contract.POOLING: torch.tensor([contract.POOLINGS.index(draft.pooling) for draft in drafts]),
            contract.POSITION_OFFSET: torch.tensor([draft.position_offset for draft in drafts]),
        }
        # Trainer asks for it when it saves.
        self._keys_to_ignore_on_save: list[str] | None = None

    @property
    def heaviest_row(self) -> float:
        """The most that a row counts in the loss; 1 without class weights."""
        return 1.0 if self._class_weights is None else float(self._class_weights.max())

    def train(self, mode: bool = True) -> PromptTuner:
        """Set training mode for all but the frozen backbone: dropout in it only adds noise."""
        super().train(mode)
        self.backbone.eval()
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The trainable state."""
        state = super().state_dict(*args, **kwargs)
        return {name: tensor for name, tensor in state.items() if not name.startswith("backbone.")}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a trainable state; the backbone stays as it is."""
        backbone = {f"backbone.{name}": tensor for name, tensor in self.backbone.state_dict().items()}
        return super().load_state_dict({**backbone, **state_dict}, strict=strict, assign=assign)

    def task_tensors(self, place: int) -> dict[str, Tensor]:
        """The prompt, and one task's head."""
        weight, bias = list(self.heads[place].parameters())
        return {**self.prompt.tensors(), contract.HEAD_WEIGHT: weight, contract.HEAD_BIAS: bias}

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, task_index: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        """Loss and logits of a batch; a task with fewer labels than another has the least logit for the rest.

        Shape:
            input_ids, attention_mask: [batch, sequence]
            task_index, labels: [batch]
            logits: [batch, most labels of any task]
        """
        logits, _ = self.backbone(input_ids, attention_mask, task_index, **self._bank(input_ids.device))
        logits = logits.masked_fill(self._no_label.to(logits.device)[task_index], torch.finfo(logits.dtype).min)
        return {"loss": self._loss(logits, task_index, labels), "logits": logits}

    def _loss(self, logits: Tensor, task_index: Tensor, labels: Tensor) -> Tensor:
        if self._class_weights is None:
            return nn.functional.cross_entropy(logits, labels)
        weights = self._class_weights.to(logits.device)[task_index, labels]
        # The mean over rows, not over weights: a batch that happens to have a rare label would else count no more
        # than one that has none.
        return (weights * nn.functional.cross_entropy(logits, labels, reduction="none")).mean()

    def _bank(self, device: torch.device) -> dict[str, Tensor]:
        """The tasks as rows of a bank; each has the one prompt."""
        tensors = {
            name: tensor.expand(len(self.heads), *tensor.shape) for name, tensor in self.prompt.tensors().items()
        }
        weights, biases = zip(*(tuple(head.parameters()) for head in self.heads), strict=True)
        given = {
            **tensors,
            **{name: tensor.to(device) for name, tensor in self._fixed.items()},
            # Heads of unequal numbers of labels are filled up with zeros.
            contract.HEAD_WEIGHT: pad_sequence(list(weights), batch_first=True),
            contract.HEAD_BIAS: pad_sequence(list(biases), batch_first=True),
        }
        lengths = {
            "tasks": len(self.heads),
            "prompt": _length(tensors, contract.PROMPT_EMBEDDINGS, axis=1),
            "prefix": _length(tensors, contract.PREFIX_KEYS, axis=3),
        }
        for name, spec in contract.BANK_INPUTS.items():
            if name not in given:
                shape = self.backbone.sizes.shape(name, **lengths)
                given[name] = torch.ones(shape, dtype=getattr(torch, spec.dtype), device=device)
        return given


def _length(tensors: Mapping[str, Tensor], name: str, axis: int) -> int:
    return tensors[name].shape[axis] if name in tensors else 0
