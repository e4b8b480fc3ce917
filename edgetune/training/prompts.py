"""What is trained beside the heads: soft prompts and prefixes, how they begin, and what they are stored as.

They may be reparameterised while they are trained.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from edgetune_export.backbone import Backbone
from edgetune_runtime import contract
from edgetune_runtime.arrays import Array
from edgetune_runtime.errors import DataError, TaskError
from edgetune_runtime.task import Task

_COMMON_TOKENS = 5000  # a vocabulary's first tokens are its most frequent ones

Tensors = Mapping[str, Tensor]


class Prompt(nn.Module, ABC):
    """What a method trains: some of the tensors of a task.

    Attributes:
        names: of the tensors.
        takes_positions: whether the text's positions follow its own on a causal backbone.

    Args:
        start: what it begins as.
        reparameterization: what it passes through while it is trained.
    """

    names: ClassVar[tuple[str, ...]]
    takes_positions: ClassVar[bool] = True

    @abstractmethod
    def __init__(self, start: Tensors, reparameterization: nn.Module) -> None:
        super().__init__()

    @staticmethod
    @abstractmethod
    def start(backbone: Backbone, row: Tensor, slots: Tensor) -> dict[str, Tensor]:
        """What it begins as, given running text and places in it.

        Shape:
            row: [tokens, embedding]
            slots: [length]
        """

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """The tensors as the graph takes them, without the tasks dimension."""


class SoftPrompt(Prompt):
    """Prompt tuning (Lester et al. 2021): embeddings that are fed before the text.

    Shape:
        start, prompt_embeddings: [prompt, embedding]
    """

    names = (contract.PROMPT_EMBEDDINGS,)

    def __init__(self, start: Tensors, reparameterization: nn.Module) -> None:
        super().__init__(start, reparameterization)
        self.embeddings = nn.Parameter(start[contract.PROMPT_EMBEDDINGS].clone())
        self.reparameterization = reparameterization

    @staticmethod
    def start(backbone: Backbone, row: Tensor, slots: Tensor) -> dict[str, Tensor]:
        """The embeddings themselves."""
        return {contract.PROMPT_EMBEDDINGS: row[slots]}

    def tensors(self) -> dict[str, Tensor]:
        """The prompt as the graph takes it."""
        return {contract.PROMPT_EMBEDDINGS: self.reparameterization(self.embeddings)}


class Prefix(Prompt):
    """Prefix tuning (Li & Liang 2021), P-tuning v2 (Liu et al. 2022): keys and values before every layer's own.

    Shape:
        start, prefix_keys, prefix_values: [layers, kv_heads, prefix, head_dim]
    """

    names = (contract.PREFIX_KEYS, contract.PREFIX_VALUES)

    def __init__(self, start: Tensors, reparameterization: nn.Module) -> None:
        super().__init__(start, reparameterization)
        keys_and_values = torch.stack([start[contract.PREFIX_KEYS], start[contract.PREFIX_VALUES]])
        self.keys_and_values = nn.Parameter(keys_and_values)
        self.reparameterization = reparameterization

    @staticmethod
    def start(backbone: Backbone, row: Tensor, slots: Tensor) -> dict[str, Tensor]:
        """What attention reads at these places of the text."""
        keys, values = backbone.keys_and_values(row[None])
        return {contract.PREFIX_KEYS: keys[0][:, :, slots], contract.PREFIX_VALUES: values[0][:, :, slots]}

    def tensors(self) -> dict[str, Tensor]:
        """The prefix as the graph takes it."""
        keys, values = self.reparameterization(self.keys_and_values)
        return {contract.PREFIX_KEYS: keys, contract.PREFIX_VALUES: values}


class Perceptron(nn.Sequential):
    """P-tuning's smaller encoder (Liu et al. 2021): the prompt's embeddings come out of three linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)
        )


class Recurrent(nn.Module):
    """P-tuning's encoder (Liu et al. 2021): a bidirectional LSTM over the prompt, and two linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
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

    def __init__(self, width: int) -> None:
        super().__init__()
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

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        slots = start.shape[3]
        self.embeddings = nn.Parameter(0.5 * torch.randn(slots, self.hidden))
        last = nn.Linear(self.hidden, start.numel() // max(1, slots))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.network = nn.Sequential(nn.Linear(self.hidden, self.hidden), nn.Tanh(), last)

    def forward(self, states: Tensor) -> Tensor:
        """Shape: [2, layers, kv_heads, prefix, head_dim], both ways."""
        two, layers, heads, slots, width = states.shape
        output: Tensor = self.network(self.embeddings)
        return states + output.view(slots, two, layers, heads, width).permute(1, 2, 3, 0, 4)


@dataclass(frozen=True)
class Method:
    """A way to train a prompt.

    Attributes:
        prompt: what is trained.
        learning_rate: what it usually learns best with.
        reparameterization: makes what the prompt passes through, from what it begins as.
        starts_anywhere: whether it can begin as a prompt that is given, such as another task's.
    """

    prompt: type[Prompt]
    learning_rate: float
    reparameterization: Callable[[Tensor], nn.Module] = lambda _: nn.Identity()
    starts_anywhere: bool = True


METHODS: dict[str, Method] = {
    "prefix": Method(Prefix, 2e-2),
    "prefix-mlp": Method(Prefix, 1e-3, PrefixPerceptron),
    "prompt": Method(SoftPrompt, 1e-2),
    "prompt-residual": Method(SoftPrompt, 1e-2, lambda start: Residual(start.shape[-1])),
    "p-tuning-mlp": Method(SoftPrompt, 1e-3, lambda start: Perceptron(start.shape[-1]), starts_anywhere=False),
    "p-tuning-lstm": Method(SoftPrompt, 1e-3, lambda start: Recurrent(start.shape[-1]), starts_anywhere=False),
}
METHODS["p-tuning-v2"] = METHODS["prefix"]  # the name of the paper that gave prefixes to classification
"""Method of `options.METHODS` → how it trains."""


def begin(
    method: str,
    backbone: Backbone,
    length: int,
    init: str,
    rows: Sequence[Sequence[int]],
    labels: Sequence[str] = (),
    text: str = "",
) -> Prompt:
    """A new prompt.

    Args:
        method: one of `METHODS`.
        backbone: the frozen backbone.
        length: tokens of the prompt or prefix.
        init: one of `options.INITS`.
        rows: token ids of training texts, for the init "data".
        labels: for the init "labels".
        text: for the init "text".
    """
    row = _row(backbone, length, init, rows, labels, text)
    # Only from running text slots are drawn: the other rows are as long as the prompt already.
    slots = torch.randperm(len(row))[:length] if len(row) > length else torch.arange(length)
    return _build(method, METHODS[method].prompt.start(backbone, row, slots))


def begin_from(method: str, task: Task) -> Prompt:
    """A prompt that begins as a stored task's (prompt transfer, Vu et al. 2022).

    Raises:
        TaskError: the task stores the other kind of prompt, or the method cannot begin anywhere.
    """
    if not METHODS[method].starts_anywhere:
        raise TaskError(
            f"'{method}' cannot begin from task '{task.name}': its prompt comes out of an encoder, which is not "
            f"stored; use `method` prompt or prompt-residual"
        )
    given = {name: torch.from_numpy(tensor) for name, tensor in task.tensors.items()}
    if contract.PROMPT_SOURCE in given:
        given[contract.PROMPT_EMBEDDINGS] = given[contract.PROMPT_SOURCE]
    wanted = METHODS[method].prompt.names
    if not given.keys() >= set(wanted):
        raise TaskError(
            f"task '{task.name}' was trained as '{task.method}' and has no {wanted[0]} for '{method}' to begin "
            f"from: use a method of its kind"
        )
    return _build(method, {name: given[name] for name in wanted})


def stored(backbone: Backbone, tensors: Tensors, max_length: int) -> dict[str, Array]:
    """A prompt and a head as a task stores them.

    On a causal backbone a soft prompt does not depend on the text behind it: the keys and values that it leads
    to are computed here, once, and it becomes a prefix. It stays a prompt where the backbone's attention has
    windows too narrow to see the prompt from the end of the longest text.
    """
    found = {name: tensor.detach().cpu().float() for name, tensor in tensors.items()}
    prompt = found.get(contract.PROMPT_EMBEDDINGS)
    if prompt is not None and len(prompt) == 0:
        del found[contract.PROMPT_EMBEDDINGS]
    elif prompt is not None and contract.PREFIX_KEYS not in found and _becomes_prefix(backbone, prompt, max_length):
        found[contract.PROMPT_SOURCE] = found.pop(contract.PROMPT_EMBEDDINGS)
        keys, values = backbone.keys_and_values(prompt[None].to(next(backbone.parameters()).device))
        found |= {contract.PREFIX_KEYS: keys[0].cpu(), contract.PREFIX_VALUES: values[0].cpu()}
    return {name: tensor.numpy() for name, tensor in found.items()}


def _becomes_prefix(backbone: Backbone, prompt: Tensor, max_length: int) -> bool:
    sees_all = backbone.window is None or len(prompt) + max_length <= backbone.window
    return backbone.family.causal and sees_all


def _build(method: str, start: Tensors) -> Prompt:
    kind = METHODS[method]
    whole = torch.stack(list(start.values())) if len(start) > 1 else next(iter(start.values()))
    # What has no tokens has nothing to reparameterise.
    return kind.prompt(start, kind.reparameterization(whole) if whole.numel() else nn.Identity())


def _row(
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
