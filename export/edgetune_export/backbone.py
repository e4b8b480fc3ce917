"""The frozen backbone: the forward that training and export share, and its fingerprint."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedConfig

from edgetune_export import assumptions, attention, half, injection
from edgetune_export.families import FAMILIES
from edgetune_export.language_model import OneStep, Vocabulary
from edgetune_export.own_head import OwnHead
from edgetune_export.rotary import hold_frequencies
from edgetune_export.sites import Site, find_sites, fitting
from edgetune_export.tokenizer import BackboneEncoder
from edgetune_runtime import contract
from edgetune_runtime.contract import BackboneSizes
from edgetune_runtime.errors import BackboneError
from edgetune_runtime.facts import BackboneFacts
from edgetune_runtime.pieces import stacked_spans
from edgetune_runtime.text import Tokens

_HASHED_AT_ONCE = 1 << 22  # numbers
_UNLIMITED_POSITIONS = 512  # the training length of backbones that have only relative positions (T5)


class Backbone(nn.Module):
    """A frozen transformer that takes a bank of tasks.

    Args:
        model: the transformer, loaded with edgetune's attention.
        config: its configuration.
        name: its name.
        tokenizer_json: the contents of its `tokenizer.json`.
        mask_token: its tokenizer's mask token with its id, if there is one.
        transforms: pooling → layers after the backbone through which it reads features ("mask", "pooler").
        vocabulary: the vocabulary's layer, if the weights have one.
        own_head: the checkpoint's own head, if it is a classifier and was loaded with its head.
        pooling: its default pooling, if it supports it; otherwise the default of its family is used.

    Attributes:
        sizes: sizes of its inputs and outputs.
        sites: the linear layers that low rank and units can enter.
        window: number of tokens that the layer with the narrowest attention sees; `None` if all layers see everything.
        has_segments: whether it was trained with segment ids for the first and second text of a pair.
        is_rounded: whether its weights were rounded, so that its facts describe the original ones.

    Raises:
        BackboneError: edgetune does not support its attention.
    """

    def __init__(
        self,
        model: nn.Module,
        config: PreTrainedConfig,
        name: str,
        tokenizer_json: bytes,
        mask_token: tuple[str, int] | None = None,
        transforms: Mapping[str, nn.Module] = MappingProxyType({}),
        vocabulary: Vocabulary | None = None,
        own_head: OwnHead | None = None,
        pooling: str | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.transforms = nn.ModuleDict(transforms).float()
        self.requires_grad_(False).eval()
        self.config = config
        self.name = name
        self.tokenizer_json = tokenizer_json
        self.family = FAMILIES[self.architecture]
        self.vocabulary = vocabulary
        self.own_head = own_head
        self.mask_token = mask_token[0] if mask_token else ""
        self.is_rounded = False
        self._first_position = 0
        positions = getattr(config, "max_position_embeddings", None) or _UNLIMITED_POSITIONS
        held = hold_frequencies(model, config)
        parameters = inspect.signature(model.forward).parameters
        self._caches = "use_cache" in parameters
        self.has_segments = "token_type_ids" in parameters and getattr(config, "type_vocab_size", 0) > 1
        self.sizes, self.sites, self.window = self._measured()
        self._try()
        self.max_positions = min(int(positions), held or int(positions)) - self._first_position
        self.poolings = tuple(sorted((*self.family.poolings, *transforms), key=lambda own: own != pooling))
        injection.watch(self.sites)

    @property
    def architecture(self) -> str:
        """The backbone's `model_type`."""
        return str(self.config.model_type)

    @cached_property
    def text_encoder(self) -> BackboneEncoder:
        """Its tokenizer, which rejects tokens without an embedding."""
        embeddings = self.model.get_input_embeddings().num_embeddings  # type: ignore[operator]
        return BackboneEncoder(self.tokenizer_json, self.max_positions, self.mask_token, embeddings)

    @cached_property
    def facts(self) -> BackboneFacts:
        """What tasks and texts need to know about it."""
        return BackboneFacts(
            name=self.name,
            sha256=self.fingerprint(),
            sizes=self.sizes,
            max_positions=self.max_positions,
            poolings=self.poolings,
            mask_token=self.mask_token,
            inputs=tuple(name for name in contract.BASE_INPUTS if name in self.inputs),
            variants={
                variant: tuple(name for name in self.inputs if name in more)
                for variant, more in contract.VARIANTS.items()
                if more.intersection(self.inputs)
            },
            classifier_sha256=self.fingerprint(whole=True) if self.transforms.keys() & contract.OWN_CLASSIFIER else "",
        )

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of its forward's inputs, with all parts, in the contract's order."""
        lacks = {
            contract.TOKEN_TYPE_IDS: not self.has_segments,
            contract.SPANS: isinstance(self.model, OneStep),  # it reads one step of its decoder
            contract.POOLING: not self.transforms,
            **{name: site not in self.sites for site, names in contract.LOW_RANK_INPUTS.items() for name in names},
            **dict.fromkeys(contract.UNIT_INPUTS, not {"widen", "narrow"} <= self.sites.keys()),
        }
        return tuple(name for name in contract.INPUTS if not lacks.get(name))

    def position_offset(self, prompt_length: int) -> int:
        """Position id of the text's first token, for a prompt or prefix of this length.

        In a bidirectional encoder the text keeps its positions from pre-training.
        """
        return prompt_length if self.family.causal else 0

    def fingerprint(self, whole: bool = False) -> str:
        """SHA-256 over all weights in the graph: sorted names, dtypes, shapes and bytes.

        Args:
            whole: whether to include the layers of the checkpoint's own classifier, which only its own tasks use.
        """
        digest = hashlib.sha256()
        tensors = self.model.state_dict()
        for pooling, transform in self.transforms.items():
            if pooling in contract.OWN_CLASSIFIER and not whole:
                continue
            tensors |= {f"{pooling}_transform.{name}": tensor for name, tensor in transform.state_dict().items()}
        for name, tensor in sorted(tensors.items()):
            # Half precision weights count as the same numbers in fp32.
            dtype = torch.float32 if tensor.dtype in half.DTYPES else tensor.dtype
            digest.update(f"{name} {dtype} {tuple(tensor.shape)}\n".encode())
            for part in tensor.detach().cpu().flatten().split(_HASHED_AT_ONCE):
                digest.update(part.to(dtype).view(torch.uint8).numpy())
        return digest.hexdigest()

    def embed(self, input_ids: Tensor) -> Tensor:
        """Input embeddings of tokens.

        Shape:
            input_ids: [...]
            output: [..., embedding]
        """
        with half.as_fp32(self.model):
            embedded: Tensor = self.model.get_input_embeddings()(input_ids)  # type: ignore[operator]
        return embedded

    def round_weights(self) -> bool:
        """Round large weights to bf16, without changing the facts. Returns whether any weight was rounded."""
        _ = self.facts
        rounded = half.round_large(self.model)
        if self.vocabulary is not None:
            self.vocabulary = self.vocabulary.rounded(rounded)
        self.is_rounded = self.is_rounded or bool(rounded)
        return self.is_rounded

    def keys_and_values(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values of every attention call for a row; a prefix has the same form.

        Shape:
            embeddings: [batch, sequence, embedding]
            both outputs: [batch, layers, kv_heads, sequence, head_dim]
        """
        with torch.no_grad(), attention.recording() as calls:
            self._hidden(embeddings, decoder_too=True)
        return torch.stack([call.keys for call in calls], dim=1), torch.stack([call.values for call in calls], dim=1)

    def _hidden(self, embeddings: Tensor, decoder_too: bool = False) -> Tensor:
        mask = torch.ones(embeddings.shape[:2], dtype=torch.int64, device=embeddings.device)
        positions = torch.arange(embeddings.shape[1], device=embeddings.device).expand_as(mask)
        more = {"decoder_inputs_embeds": embeddings} if decoder_too and isinstance(self.model, OneStep) else {}
        return self._ran(inputs_embeds=embeddings, attention_mask=mask, **self._position_ids(positions), **more)

    def _ran(self, **inputs: Tensor) -> Tensor:
        """Hidden states of the transformer."""
        with half.as_fp32(self.model):
            hidden: Tensor = self.model(**inputs, **self._no_cache).last_hidden_state
        return hidden

    def _measured(self) -> tuple[BackboneSizes, dict[str, Site], int | None]:
        embeddings = self.embed(torch.zeros(1, 1, dtype=torch.int64))
        hidden = 0

        def forward() -> None:
            nonlocal hidden
            hidden = self._hidden(embeddings).shape[-1]

        sites, calls = find_sites(self.model, forward)
        shapes = {tuple(states.shape) for call in calls for states in (call.keys, call.values)}
        if len(shapes) != 1:
            raise BackboneError(
                f"{self.name} ({self.architecture}) has attention of {len(shapes)} shapes {sorted(shapes)}: "
                f"expected one shape of keys and values in all layers"
            )
        _, kv_heads, _, head_dim = shapes.pop()
        windows = [call.window for call in calls if call.window is not None]
        sites, widths = fitting(sites)
        sizes = BackboneSizes(embeddings.shape[-1], hidden, len(calls), kv_heads, head_dim, **widths)
        return sizes, sites, min(windows, default=None)

    @torch.no_grad()
    def _try(self) -> None:
        """Check the assumptions on a few tokens, and measure where positions begin and which tokens a token sees."""
        called = f"{self.name} ({self.architecture})"
        table: nn.Embedding = self.model.get_input_embeddings()  # type: ignore[operator]
        ids = assumptions.some_ids(table.num_embeddings, self.config.pad_token_id)
        assumptions.check_mixing(self._hidden, self.embed(ids), called)
        expected = self._ran(input_ids=ids, attention_mask=torch.ones_like(ids))

        def numbered_from(first: int) -> Tensor:
            self._first_position = first
            return self._states(ids, prompt=self.embed(ids[:, :1]), present=0)[:, -expected.shape[1] :]

        tables = [module for module in self.model.modules() if isinstance(module, nn.Embedding)]
        paddings = [int(table.padding_idx) for table in tables if table.padding_idx is not None]  # MPNet has its own
        candidates = (0, int(self.config.pad_token_id or 0) + 1, *(padding + 1 for padding in paddings))
        self._first_position = assumptions.first_position(expected, numbered_from, candidates, called)
        if self.family.causal:
            before, text = ids[:, :2], ids[:, 2:]
            if not assumptions.same(self._states(before), self._states(ids)[:, :2]):
                self.family = self.family.bidirectional
                return
            by_prompt = self._states(text, prompt=self.embed(before))[:, 2:]
            keys, values = self.keys_and_values(self.embed(before))
            assumptions.check_prefix(by_prompt, self._states(text, prefix=(keys, values)), called)

    def _states(
        self,
        ids: Tensor,
        prompt: Tensor | None = None,
        prefix: tuple[Tensor, Tensor] | None = None,
        present: int = 1,
    ) -> Tensor:
        """Hidden states of one text after a prompt or a prefix, which is masked unless `present`."""
        before = self.embed(ids[:, :0]) if prompt is None else prompt
        none = before.new_zeros(1, self.sizes.layers, self.sizes.kv_heads, 0, self.sizes.head_dim)
        keys, values = prefix or (none, none)
        length = present * (before.shape[1] + keys.shape[3])
        return self._run(
            ids,
            torch.ones_like(ids),
            before,
            torch.full(before.shape[:2], present),
            (keys, values, torch.full((1, keys.shape[3]), present)),
            torch.tensor([self.position_offset(length)]),
        )

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        task_index: Tensor,
        prompt_embeddings: Tensor,
        prompt_mask: Tensor,
        prefix_keys: Tensor,
        prefix_values: Tensor,
        prefix_mask: Tensor,
        position_offset: Tensor,
        head_weight: Tensor,
        head_bias: Tensor,
        spans: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        pooling: Tensor | None = None,
        **parts: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Logits and features of spans of texts, each text with its own task of the bank.

        Args:
            spans, token_type_ids, pooling: only if `inputs` has them. The default segment is 0.
            parts: any of `contract.PART_INPUTS` that `inputs` has.

        Shape:
            inputs: see `contract.INPUTS`
            logits: [batch, spans, labels]
            features: [batch, spans, hidden]
        """
        prompt_present = prompt_mask[task_index]
        segments: dict[str, Tensor] = {}
        if token_type_ids is not None:
            none = torch.zeros_like(prompt_present)  # a prompt counts as part of the first text
            segments["token_type_ids"] = torch.cat([none, token_type_ids], dim=1)
        own = {name: tensor[task_index] for name, tensor in parts.items()}
        prefix = prefix_keys[task_index], prefix_values[task_index], prefix_mask[task_index]
        with injection.injected(own, self.sites):
            hidden = self._run(
                input_ids,
                attention_mask,
                prompt_embeddings[task_index],
                prompt_present,
                prefix,
                position_offset[task_index],
                segments,
            )
        features = hidden if spans is None else _mean_over_spans(hidden, spans, prompt_present.shape[1])
        if pooling is not None:
            features = self._transformed(features, pooling[task_index])
        logits = features @ head_weight[task_index].transpose(1, 2) + head_bias[task_index][:, None]
        return logits, features

    def _transformed(self, features: Tensor, pooling: Tensor) -> Tensor:
        """Pass features through the layers of their poolings.

        Poolings with layers read a text as a whole, so engines feed them few spans. The layers are applied only to that
        many spans, so a text that is answered word by word does not waste much time in them.

        Shape:
            features, output: [batch, spans, hidden]
            pooling: [batch]
        """
        few, more = features[:, : contract.TRANSFORMED_SPANS], features[:, contract.TRANSFORMED_SPANS :]
        for name, transform in self.transforms.items():
            chosen = pooling[:, None, None] == contract.POOLINGS.index(name)
            few = torch.where(chosen, transform(few), few)
        return torch.cat([few, more], dim=1)

    def _run(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        prompt: Tensor,
        prompt_present: Tensor,
        prefix: tuple[Tensor, Tensor, Tensor],
        position_offset: Tensor,
        segments: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> Tensor:
        """Hidden states of texts after their prompts, each with its prefix.

        Shape:
            prompt: [batch, prompt, embedding]
            prompt_present: [batch, prompt]
            prefix: two arrays [batch, layers, kv_heads, prefix, head_dim], and a mask [batch, prefix]
            position_offset: [batch]
            output: [batch, prompt + sequence, hidden]
        """
        text_positions = torch.arange(input_ids.shape[1], device=input_ids.device) + position_offset[:, None]
        prompt_positions = (prompt_present.cumsum(dim=1) - 1).clamp(min=0)  # a prompt is padded on its left
        positions = torch.cat([prompt_positions, text_positions], dim=1)
        with attention.prefixes(*prefix):
            return self._ran(
                inputs_embeds=torch.cat([prompt, self.embed(input_ids)], dim=1),
                attention_mask=torch.cat([prompt_present, attention_mask], dim=1),
                **self._position_ids(positions),
                **segments,
            )

    def _position_ids(self, positions: Tensor) -> dict[str, Tensor]:
        return {"position_ids": positions + self._first_position}

    @property
    def _no_cache(self) -> dict[str, bool]:
        return {"use_cache": False} if self._caches else {}


def _mean_over_spans(hidden: Tensor, spans: Tensor, prompt_length: int) -> Tensor:
    """Features of spans. Position 0 is the beginning of the text, after the prompt.

    Shape:
        hidden: [batch, prompt + sequence, hidden]
        spans: [batch, spans, 2]
        output: [batch, spans, hidden]
    """
    begin, end = spans[..., :1], spans[..., 1:]
    places = torch.arange(hidden.shape[1], device=hidden.device) - prompt_length
    inside = ((places >= begin) & (places < end)).to(hidden.dtype)
    return inside @ hidden / (end - begin)


def batch(rows: Sequence[Tokens], facts: BackboneFacts) -> dict[str, Tensor]:
    """A batch of texts for the forward, padded on the right. Texts with fewer spans than others repeat one.

    Shape:
        input_ids, attention_mask, token_type_ids: [batch, sequence]
        spans: [batch, most spans, 2]
    """
    found = {
        contract.INPUT_IDS: _padded([row.ids for row in rows]),
        contract.ATTENTION_MASK: _padded([[1] * len(row.ids) for row in rows]),
        contract.TOKEN_TYPE_IDS: _padded([row.type_ids for row in rows]),
        contract.SPANS: torch.from_numpy(stacked_spans([row.spans for row in rows])),
    }
    return {name: tensor for name, tensor in found.items() if name in facts.inputs}


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Rows, padded with zeros on the right. Shape: [rows, longest]."""
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
