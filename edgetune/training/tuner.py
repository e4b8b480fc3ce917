"""The module to train: a frozen backbone with shared parts and, for each task, a head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from edgetune.training.methods import TrainedParts
from edgetune.training.objectives import Scale, objective_of
from edgetune_export.backbone import Backbone
from edgetune_runtime import contract
from edgetune_runtime.arrays import Array
from edgetune_runtime.parts import PARTS, lengths_of
from edgetune_runtime.task import Task


class PromptTuner(nn.Module):
    """A frozen backbone with trainable parts that all tasks share, and a trainable head for each task.

    Its state, and so a checkpoint, contains only the parts and the heads. The backbone stays in evaluation mode, except
    for dropout if it is used.

    Args:
        backbone: the frozen backbone.
        parts: the parts that are trained in addition to the heads, such as a prompt.
        heads: one head per task.
        drafts: the tasks; only their kind, positions and pooling are used.
        class_weights: for each task the weight of each label's rows in the loss; `None` if all count the same.
        scales: for each task the scale of its head's outputs; a head is trained on the scale of 1.
        dropout: dropout rate in the backbone during training.
    """

    def __init__(
        self,
        backbone: Backbone,
        parts: TrainedParts,
        heads: Sequence[nn.Linear],
        drafts: Sequence[Task],
        class_weights: Sequence[Array | None] = (),
        scales: Sequence[Scale] = (),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.parts = parts
        self._dropout = dropout
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
        self._objectives = [objective_of(draft.kind) for draft in drafts]
        self.scales = list(scales) or [Scale()] * len(drafts)
        self._fixed = {
            contract.POOLING: torch.tensor([contract.POOLINGS.index(draft.pooling) for draft in drafts]),
            contract.POSITION_OFFSET: torch.tensor([draft.position_offset for draft in drafts]),
        }
        # Trainer reads it when it saves.
        self._keys_to_ignore_on_save: list[str] | None = None

    @property
    def heaviest_row(self) -> float:
        """The highest weight of a row in the loss; 1 without class weights."""
        return 1.0 if self._class_weights is None else float(self._class_weights.max())

    def train(self, mode: bool = True) -> PromptTuner:
        """Set training mode, except for the frozen backbone; its dropout layers use the tuner's rate."""
        super().train(mode)
        self.backbone.eval()
        if mode and self._dropout:
            for layer in self.backbone.modules():
                if isinstance(layer, nn.Dropout):
                    layer.p = self._dropout
                    layer.train()
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The trainable state."""
        state = super().state_dict(*args, **kwargs)
        return {name: tensor for name, tensor in state.items() if not name.startswith("backbone.")}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a trainable state. The backbone is not changed."""
        backbone = {f"backbone.{name}": tensor for name, tensor in self.backbone.state_dict().items()}
        return super().load_state_dict({**backbone, **state_dict}, strict=strict, assign=assign)

    def task_tensors(self, place: int) -> dict[str, Tensor]:
        """The parts, and one task's head with its scale multiplied in."""
        weight, bias = list(self.heads[place].parameters())
        scale = self.scales[place]
        head = {contract.HEAD_WEIGHT: weight * scale.factor, contract.HEAD_BIAS: bias * scale.factor + scale.shift}
        return {**self.parts.tensors(), **head}

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        task_index: Tensor,
        labels: Tensor,
        text: Tensor | None = None,
        spans: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Loss and logits of a batch. Tasks with fewer labels than others are padded with the lowest possible logit.

        Args:
            input_ids, attention_mask, spans, token_type_ids: the texts, from `edgetune_export.backbone.batch`.
            task_index: the task of each text.
            labels: the targets, padded for tasks with fewer numbers.
            text: the text to which each span belongs; negative for padding. By default each span is a text.

        Shape:
            task_index: [batch]
            labels: [batch, spans, numbers]
            text: [batch, spans]
            logits: [batch, spans, most rows of any task's head]
        """
        logits = self._answers(input_ids, attention_mask, task_index, spans, token_type_ids)[0]
        loss = logits.new_zeros(())
        scaled = logits
        there = torch.ones(labels.shape[:2], dtype=torch.bool, device=labels.device) if text is None else text >= 0
        for place, (objective, scale, head) in enumerate(zip(self._objectives, self.scales, self.heads, strict=True)):
            of_task = task_index == place
            own = of_task[:, None] & there
            targets = labels[own]
            given = (targets[:, : head.out_features] - scale.shift) / scale.factor
            losses = self._weights(place, targets) * objective.loss(logits[own][:, : head.out_features], given)
            # Each text has the same weight, however many pieces it has.
            loss = loss + losses.sum() * (of_task.sum() / own.sum().clamp(min=1))
            if scale != Scale():
                scaled = torch.where(of_task[:, None, None], logits * scale.factor + scale.shift, scaled)
        least = torch.finfo(logits.dtype).min
        scaled = scaled.masked_fill(self._no_label.to(logits.device)[task_index][:, None], least)
        return {"loss": loss / len(labels), "logits": scaled}

    def features(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        task_index: Tensor,
        spans: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **_: Tensor,
    ) -> Tensor:
        """Features of a batch, which the heads read. Arguments are those of `forward`.

        Shape: [batch, spans, hidden].
        """
        return self._answers(input_ids, attention_mask, task_index, spans, token_type_ids)[1]

    def _answers(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        task_index: Tensor,
        spans: Tensor | None,
        token_type_ids: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Logits and features of the spans of texts."""
        logits, features = self.backbone(
            input_ids,
            attention_mask,
            task_index,
            spans=spans,
            token_type_ids=token_type_ids,
            **self._bank(input_ids.device),
        )
        return logits, features

    def _weights(self, place: int, labels: Tensor) -> Tensor | float:
        """The weight of each span of a task. Shape: [spans].

        The loss is divided by the number of rows, not by the sum of weights. Otherwise a batch with a rare label would
        count no more than a batch without one.
        """
        if self._class_weights is None or not self._objectives[place].fitting.weighs_classes:
            return 1.0
        return self._class_weights.to(labels.device)[place, labels[:, 0].long()]

    def _bank(self, device: torch.device) -> dict[str, Tensor]:
        """The tasks as rows of a bank, all with the same parts."""
        parts = self.parts.tensors()
        tensors = {name: tensor.expand(len(self.heads), *tensor.shape) for name, tensor in parts.items()}
        weights, biases = zip(*(tuple(head.parameters()) for head in self.heads), strict=True)
        given = {
            **tensors,
            **{name: tensor.to(device) for name, tensor in self._fixed.items()},
            # Heads with fewer labels are padded with zeros.
            contract.HEAD_WEIGHT: pad_sequence(list(weights), batch_first=True),
            contract.HEAD_BIAS: pad_sequence(list(biases), batch_first=True),
        }
        lengths = {"tasks": len(self.heads), **lengths_of(parts)}
        for part in PARTS.values():
            if part.mask is not None:  # no padding, because all tasks have the same part
                given[part.mask] = torch.ones(len(self.heads), lengths[part.length], dtype=torch.int64, device=device)
            for name in part.tensors:
                if name not in given and name in contract.BASE_INPUTS:
                    given[name] = torch.zeros(self.backbone.sizes.shape(name, **lengths), device=device)
        return {name: tensor for name, tensor in given.items() if name in self.backbone.inputs}
