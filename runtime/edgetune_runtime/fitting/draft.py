"""A task without its trained parts: how it reads texts, on a backbone that is given by its facts."""

from __future__ import annotations

from collections.abc import Sequence

from edgetune_runtime import contract
from edgetune_runtime.errors import DataError
from edgetune_runtime.facts import BackboneFacts
from edgetune_runtime.kinds import Kind
from edgetune_runtime.kinds.single_label import SINGLE_LABEL
from edgetune_runtime.task import Task, check_template
from edgetune_runtime.text import TextEncoder


def new_draft(
    facts: BackboneFacts,
    encoder: TextEncoder,
    *,
    name: str,
    labels: Sequence[str],
    kind: Kind,
    pairs: bool,
    pooling: str | None = None,
    template: str = contract.TEXT_SLOT,
    max_length: int = contract.DEFAULT_MAX_LENGTH,
    long_texts: str = contract.CUT,
    stride: int = 0,
    method: str = "none",
) -> Task:
    """A task without tensors.

    Args:
        facts: facts of the backbone.
        encoder: its tokenizer.
        name: name of the task.
        labels: the labels, in the order of the head's rows.
        kind: the kind of answer.
        pairs: whether a text is a pair of texts.
        pooling: where features are read. `None` means at the mask, if the template has one, and otherwise the
            backbone's default. For kinds that answer piece by piece the default is the mean over a piece's tokens
            (decoders: its last token).
        template: the text around each text. If the tokenizer puts nothing between the texts of a pair, a line break
            separates them.
        max_length: maximum number of tokens per text; fewer if the backbone has fewer positions.
        long_texts: how longer texts are read, one of `contract.LONG_TEXTS`. Kinds that may answer "none" always read
            the whole text, in windows.
        stride: number of tokens by which windows overlap.
        method: the training method.

    Raises:
        DataError: the backbone lacks the pooling, `long_texts` is unknown, or the template has a slot for a second text
            but the task takes single texts.
        TaskError: the template lacks a slot or repeats one.
    """
    if long_texts not in contract.LONG_TEXTS:
        raise DataError(f"long_texts is {long_texts!r:.40}: expected one of {', '.join(contract.LONG_TEXTS)}")
    if pairs and template == contract.TEXT_SLOT and not encoder.separates_pairs:
        template = f"{contract.TEXT_SLOT}\n{contract.TEXT_PAIR_SLOT}"
    in_segments = pairs and contract.TEXT_PAIR_SLOT not in template and contract.TOKEN_TYPE_IDS in facts.inputs
    needed = {contract.TOKEN_TYPE_IDS: in_segments, contract.SPANS: kind.reading is not None}
    read = pooling_of(facts, template, pooling, pairs, kind)
    if kind.reading is not None and kind.reading.or_none:  # an unread part would be reported as "no answer"
        long_texts = contract.WINDOWS
    return Task(
        name=name,
        labels=tuple(labels),
        backbone_sha256=facts.sha256_for(read),
        tensors={},
        method=method,
        base_model=facts.name,
        pooling=read,
        template=template,
        max_length=max_length,
        kind_name=kind.name,
        pairs=pairs,
        long_texts=long_texts,
        stride=stride if long_texts == contract.WINDOWS else 0,
        graph_inputs=tuple(name for name, needs in needed.items() if needs),
    )


def usual_stride(length: int) -> int:
    """Default overlap of windows of a length, in tokens: as for SQuAD, or less if windows are short."""
    return min(128, length // 4)


def fitted_draft(encoder: TextEncoder, draft: Task) -> Task:
    """The draft, with its length limited to what the backbone supports.

    Raises:
        DataError: its windows would overlap completely.
        TaskError: its template leaves no room for text.
    """
    new = encoder.fitted(draft)
    if new.stride >= new.max_length:
        raise DataError(
            f"`stride` {new.stride} came for windows of {new.max_length} tokens, which would not move on: expected "
            f"a lower `stride`, or a higher `max_length`"
        )
    return new


def pooling_of(facts: BackboneFacts, template: str, pooling: str | None, pairs: bool, kind: Kind = SINGLE_LABEL) -> str:
    """The pooling of a task of this kind with this template, for texts or pairs.

    Raises the same errors as `new_draft`.
    """
    if contract.TEXT_PAIR_SLOT in template and not pairs:
        raise DataError(
            f"the template {template!r} has {contract.TEXT_PAIR_SLOT}, and the texts are no pairs: expected data with "
            f"second texts, or a template without it"
        )
    if kind.reading is not None:
        return _pooling_of_pieces(facts, template, pooling, pairs, kind)
    has_mask = contract.MASK_SLOT in template
    chosen = pooling or ("mask" if has_mask else facts.poolings[0])
    if chosen not in facts.poolings:
        named = f"the template {template!r} has a {contract.MASK_SLOT}", f"the pooling is '{pooling}'"
        reason = named[pooling is not None]
        raise DataError(
            f"{reason}, but {facts.name} can read features by {', '.join(facts.poolings)}"
            + ("" if chosen != "mask" else ": only weights with a masked-language-model head fill a mask")
        )
    check_template(template, chosen, "the task", pairs)
    return chosen


def _pooling_of_pieces(facts: BackboneFacts, template: str, pooling: str | None, pairs: bool, kind: Kind) -> str:
    there = [name for name in contract.OF_PIECES if name in facts.poolings]
    if not there or contract.SPANS not in facts.inputs:
        raise DataError(
            f"a task of the kind '{kind.name}' reads each piece of a text on its own, and {facts.name} gives features "
            f"of whole texts alone: expected an encoder or a decoder, exported with this edgetune"
        )
    # In a decoder, the features of a word's first tokens do not depend on its last token.
    chosen = pooling or ("last" if facts.poolings[0] == "last" else there[0])
    if chosen not in there:
        raise DataError(
            f"the pooling is '{pooling}', and a task of the kind '{kind.name}' reads each piece of a text by "
            f"{', '.join(there)}: expected one of these"
        )
    check_template(template, chosen, "the task", pairs)
    return chosen
