"""Trainable soft prompts and prefixes: initial values, reparameterizations, and how they are stored."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgetune.training.trained import RunningText, Tensors, TrainedPart
from edgetune_export.backbone import Backbone
from edgetune_runtime import contract
from edgetune_runtime.arrays import Array
from edgetune_runtime.errors import DataError

_COMMON_TOKENS = 5000  # the first tokens of a vocabulary are the most frequent ones


class SoftPrompt(TrainedPart):
    """Prompt tuning (Lester et al. 2021): embeddings before those of the text.

    Shape:
        start, prompt_embeddings: [prompt, embedding]
    """

    names = (contract.PROMPT_EMBEDDINGS,)
    takes_positions = True

    def __init__(self, start: Tensors, reparameterization: nn.Module) -> None:
        super().__init__(start, reparameterization)
        self.embeddings = nn.Parameter(start[contract.PROMPT_EMBEDDINGS].clone())
        self.reparameterization = reparameterization

    @staticmethod
    def start(backbone: Backbone, length: int, text: RunningText) -> dict[str, Tensor]:
        """The embeddings of the text."""
        row, slots = text()
        return {contract.PROMPT_EMBEDDINGS: row[slots]}

    def tensors(self) -> dict[str, Tensor]:
        """The prompt in the graph's form."""
        return {contract.PROMPT_EMBEDDINGS: self.reparameterization(self.embeddings)}


class Prefix(TrainedPart):
    """Prefix tuning (Li & Liang 2021), P-tuning v2 (Liu et al. 2022): keys and values before those of every layer.

    Shape:
        start, prefix_keys, prefix_values: [layers, kv_heads, prefix, head_dim]
    """

    names = (contract.PREFIX_KEYS, contract.PREFIX_VALUES)
    takes_positions = True

    def __init__(self, start: Tensors, reparameterization: nn.Module) -> None:
        super().__init__(start, reparameterization)
        keys_and_values = torch.stack([start[contract.PREFIX_KEYS], start[contract.PREFIX_VALUES]])
        self.keys_and_values = nn.Parameter(keys_and_values)
        self.reparameterization = reparameterization

    @staticmethod
    def start(backbone: Backbone, length: int, text: RunningText) -> dict[str, Tensor]:
        """The keys and values at these places of the text."""
        row, slots = text()
        keys, values = backbone.keys_and_values(row[None])
        return {contract.PREFIX_KEYS: keys[0][:, :, slots], contract.PREFIX_VALUES: values[0][:, :, slots]}

    def tensors(self) -> dict[str, Tensor]:
        """The prefix in the graph's form."""
        keys, values = self.reparameterization(self.keys_and_values)
        return {contract.PREFIX_KEYS: keys, contract.PREFIX_VALUES: values}


class Perceptron(nn.Sequential):
    """P-tuning's smaller encoder (Liu et al. 2021): three linear layers compute the prompt's embeddings."""

    def __init__(self, start: Tensors) -> None:
        width = _width(start)
        super().__init__(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)
        )


class Recurrent(nn.Module):
    """P-tuning's encoder (Liu et al. 2021): a bidirectional LSTM over the prompt, and two linear layers."""

    def __init__(self, start: Tensors) -> None:
        super().__init__()
        width = _width(start)
        self.lstm = nn.LSTM(width, width, num_layers=2, bidirectional=True, batch_first=True)
        self.linear = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Shape: [prompt, embedding], both ways."""
        output: Tensor = self.linear(self.lstm(embeddings[None])[0])[0]
        return output


class Residual(nn.Module):
    """Residual prompt tuning (Razdaibiedina et al. 2023): a bottleneck is added to each embedding.

    Its last layer starts at zero, so that the prompt is unchanged at first.
    """

    def __init__(self, start: Tensors) -> None:
        super().__init__()
        width = _width(start)
        norm = nn.LayerNorm(width)
        nn.init.zeros_(norm.weight)
        self.bottleneck = nn.Sequential(nn.Linear(width, width // 4), nn.ReLU(), nn.Linear(width // 4, width), norm)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Shape: [prompt, embedding], both ways."""
        output: Tensor = embeddings + self.bottleneck(embeddings)
        return output


class PrefixPerceptron(nn.Module):
    """Prefix tuning's reparameterisation (Li & Liang 2021): one small network computes the prefixes of all layers.

    Its output is added to the prefix. Its last layer starts at zero, so that the prefix is unchanged at first.
    """

    hidden = 256

    def __init__(self, start: Tensors) -> None:
        super().__init__()
        keys = start[contract.PREFIX_KEYS]
        slots = keys.shape[2]
        self.embeddings = nn.Parameter(0.5 * torch.randn(slots, self.hidden))
        last = nn.Linear(self.hidden, 2 * keys.numel() // slots)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.network = nn.Sequential(nn.Linear(self.hidden, self.hidden), nn.Tanh(), last)

    def forward(self, states: Tensor) -> Tensor:
        """Shape: [2, layers, kv_heads, prefix, head_dim], both ways."""
        two, layers, heads, slots, width = states.shape
        output: Tensor = self.network(self.embeddings)
        return states + output.view(slots, two, layers, heads, width).permute(1, 2, 3, 0, 4)


def _width(start: Tensors) -> int:
    return start[contract.PROMPT_EMBEDDINGS].shape[-1]


def stored(backbone: Backbone, tensors: Tensors, max_length: int) -> dict[str, Array]:
    """A prompt and a head in the form that a task stores.

    In a causal backbone a soft prompt does not depend on the text after it. So its keys and values are computed here
    once, and it becomes a prefix. It stays a prompt if the backbone's attention windows are too narrow to reach the
    prompt from the end of the longest text, or if added parts change its keys and values.
    """
    found = {name: tensor.detach().cpu().float() for name, tensor in tensors.items()}
    prompt = found.get(contract.PROMPT_EMBEDDINGS)
    if prompt is not None and len(prompt) == 0:
        del found[contract.PROMPT_EMBEDDINGS]
    elif prompt is not None and _is_alone(found) and _becomes_prefix(backbone, prompt, max_length):
        found[contract.PROMPT_SOURCE] = found.pop(contract.PROMPT_EMBEDDINGS)
        keys, values = backbone.keys_and_values(prompt[None].to(next(backbone.parameters()).device))
        found |= {contract.PREFIX_KEYS: keys[0].cpu(), contract.PREFIX_VALUES: values[0].cpu()}
    return {name: tensor.numpy() for name, tensor in found.items()}


def _is_alone(tensors: Tensors) -> bool:
    return contract.PREFIX_KEYS not in tensors and contract.PART_INPUTS.isdisjoint(tensors)


def _becomes_prefix(backbone: Backbone, prompt: Tensor, max_length: int) -> bool:
    sees_all = backbone.window is None or len(prompt) + max_length <= backbone.window
    return backbone.family.causal and sees_all


def running_text(
    backbone: Backbone, length: int, init: str, rows: Sequence[Sequence[int]], labels: Sequence[str], text: str
) -> tuple[Tensor, Tensor]:
    """The initial value of a prompt: embeddings of at least `length` tokens, and `length` places among them.

    Args:
        backbone: the frozen backbone.
        length: number of tokens of the prompt or prefix.
        init: one of `options.INITS`.
        rows: token ids of training texts, for the init "data".
        labels: for the init "labels".
        text: for the init "text".

    Shape:
        output: [tokens, embedding], [length]
    """
    row = _embeddings(backbone, length, init, rows, labels, text)
    # Places are drawn only from running text. The other initial values are already as long as the prompt.
    return row, torch.randperm(len(row))[:length] if len(row) > length else torch.arange(length)


def _embeddings(
    backbone: Backbone, length: int, init: str, rows: Sequence[Sequence[int]], labels: Sequence[str], text: str
) -> Tensor:
    """Embeddings of at least `length` tokens. Shape: [tokens, embedding]."""
    common = min(_COMMON_TOKENS, backbone.config.vocab_size)
    if init == "random":
        return torch.randn(length, backbone.sizes.embedding) * backbone.embed(torch.arange(common)).std()
    if init == "vocabulary":
        return backbone.embed(torch.randint(common, (length,)))
    if init == "data":
        # Places are drawn from three times as much text, because the tokens of one short text are too similar.
        return backbone.embed(_passage(rows, min(3 * max(1, length), backbone.max_positions)))
    ids = backbone.text_encoder.ids(" ".join(labels) if init == "labels" else text)
    if not ids:
        raise DataError(f"the text that the prompt should begin as, {text!r}, has no tokens: name one with words")
    return backbone.embed(torch.tensor((ids * max(1, length))[: max(1, length)]))


def _passage(rows: Sequence[Sequence[int]], length: int) -> Tensor:
    """Running text of `length` tokens: texts in random order, repeated if necessary."""
    tokens: list[int] = []
    while len(tokens) < length:
        for place in torch.randperm(len(rows)).tolist():
            tokens += rows[place]
            if len(tokens) >= length:
                break
    return torch.tensor(tokens[:length])
