"""Soft prompts and prefixes as they are trained: how they begin, what they pass through, what they are stored as."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgetune.training.trained import RunningText, Tensors, TrainedPart
from edgetune_export.backbone import Backbone
from edgetune_runtime import contract
from edgetune_runtime.arrays import Array
from edgetune_runtime.errors import DataError

_COMMON_TOKENS = 5000  # a vocabulary's first tokens are its most frequent ones


class SoftPrompt(TrainedPart):
    """Prompt tuning (Lester et al. 2021): embeddings that are fed before the text.

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
        """The embeddings themselves."""
        row, slots = text()
        return {contract.PROMPT_EMBEDDINGS: row[slots]}

    def tensors(self) -> dict[str, Tensor]:
        """The prompt as the graph takes it."""
        return {contract.PROMPT_EMBEDDINGS: self.reparameterization(self.embeddings)}


class Prefix(TrainedPart):
    """Prefix tuning (Li & Liang 2021), P-tuning v2 (Liu et al. 2022): keys and values before every layer's own.

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
        """What attention reads at these places of the text."""
        row, slots = text()
        keys, values = backbone.keys_and_values(row[None])
        return {contract.PREFIX_KEYS: keys[0][:, :, slots], contract.PREFIX_VALUES: values[0][:, :, slots]}

    def tensors(self) -> dict[str, Tensor]:
        """The prefix as the graph takes it."""
        keys, values = self.reparameterization(self.keys_and_values)
        return {contract.PREFIX_KEYS: keys, contract.PREFIX_VALUES: values}


class Perceptron(nn.Sequential):
    """P-tuning's smaller encoder (Liu et al. 2021): the prompt's embeddings come out of three linear layers."""

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

    Its last layer begins at zero, so that the prompt begins as it is.
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
    """Prefix tuning's reparameterisation (Li & Liang 2021): all layers' prefixes come out of one small network.

    What it gives is added to the prefix; its last layer begins at zero, so that the prefix begins as it is.
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
    """A prompt and a head as a task stores them.

    On a causal backbone a soft prompt does not depend on the text behind it: the keys and values that it leads
    to are computed here, once, and it becomes a prefix. It stays a prompt where the backbone's attention has
    windows too narrow to see the prompt from the end of the longest text, or parts are added that change what it leads
    to.
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
    """What a prompt begins as: embeddings of at least `length` tokens, and so many places among them.

    Args:
        backbone: the frozen backbone.
        length: tokens of the prompt or prefix.
        init: one of `options.INITS`.
        rows: token ids of training texts, for the init "data".
        labels: for the init "labels".
        text: for the init "text".

    Shape:
        output: [tokens, embedding], [length]
    """
    row = _embeddings(backbone, length, init, rows, labels, text)
    # Only from running text slots are drawn: the other rows are as long as the prompt already.
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
        # Slots are drawn from three times as much text: the tokens of one short text are too much alike.
        return backbone.embed(_passage(rows, min(3 * max(1, length), backbone.max_positions)))
    ids = backbone.text_encoder.ids(" ".join(labels) if init == "labels" else text)
    if not ids:
        raise DataError(f"the text that the prompt should begin as, {text!r}, has no tokens: name one with words")
    return backbone.embed(torch.tensor((ids * max(1, length))[: max(1, length)]))


def _passage(rows: Sequence[Sequence[int]], length: int) -> Tensor:
    """That many tokens of running text: texts in random order, again and again if need be."""
    tokens: list[int] = []
    while len(tokens) < length:
        for place in torch.randperm(len(rows)).tolist():
            tokens += rows[place]
            if len(tokens) >= length:
                break
    return torch.tensor(tokens[:length])
