"""What is trained: the parameters of a soft prompt, how they begin, and the tensors that they become."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgetune_export.backbone import Backbone
from edgetune_runtime import contract


class SoftPrompt(nn.Module):
    """Prompt tuning (Lester et al. 2021): embeddings that are fed before the text.

    Begins as the embeddings of tokens of the training texts.

    Shape:
        prompt_embeddings: [prompt, embedding]
    """

    learning_rate = 1e-2

    def __init__(self, backbone: Backbone, length: int, rows: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.prompt_embeddings = nn.Parameter(backbone.embed(_sample(rows, length)).clone())

    def tensors(self) -> dict[str, Tensor]:
        """The task tensors that this becomes."""
        return {contract.PROMPT_EMBEDDINGS: self.prompt_embeddings}


class Prefix(nn.Module):
    """Prefix tuning (Li & Liang 2021) without the MLP: keys and values before the text's, in every layer.

    Begins as keys and values that the backbone computes while it reads training texts, so that every slot
    starts out as something that attention is used to.

    Shape:
        prefix_keys, prefix_values: [layers, kv_heads, prefix, head_dim]
    """

    learning_rate = 2e-2

    def __init__(self, backbone: Backbone, length: int, rows: Sequence[Sequence[int]]) -> None:
        super().__init__()
        # Slots are drawn from three times as much text: the tokens of one short text are too much alike.
        ids = _passage(rows, min(3 * max(1, length), backbone.max_positions))
        keys, values = backbone.keys_and_values(backbone.embed(ids[None]))
        slots = torch.randperm(len(ids))[:length]
        self.prefix_keys = nn.Parameter(keys[0][:, :, slots].clone())
        self.prefix_values = nn.Parameter(values[0][:, :, slots].clone())

    def tensors(self) -> dict[str, Tensor]:
        """The task tensors that this becomes."""
        return {contract.PREFIX_KEYS: self.prefix_keys, contract.PREFIX_VALUES: self.prefix_values}


METHODS: dict[str, type[SoftPrompt] | type[Prefix]] = {"prefix": Prefix, "prompt": SoftPrompt}
"""Method → the parameters that it trains."""


def _passage(rows: Sequence[Sequence[int]], length: int) -> Tensor:
    """That many tokens of running text: texts in random order, again and again if need be."""
    tokens: list[int] = []
    while len(tokens) < length:
        for place in torch.randperm(len(rows)).tolist():
            tokens += rows[place]
            if len(tokens) >= length:
                break
    return torch.tensor(tokens[:length])


def _sample(rows: Sequence[Sequence[int]], count: int) -> Tensor:
    """Tokens of the texts, drawn with torch's generator; special tokens at the ends are left out."""
    tokens = torch.tensor([token for ids in rows for token in ids[1:-1]] or [ids[0] for ids in rows])
    return tokens[torch.randint(len(tokens), (count,))]
