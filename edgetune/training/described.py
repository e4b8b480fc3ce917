"""Label descriptions in training: the head that they give with the current prompt."""

from __future__ import annotations

from edgetune.data.labelled import LabelledText
from edgetune.training.batches import encode_rows, text_features
from edgetune.training.setup import Setup
from edgetune_runtime.fitting.describe import About, described_head, lines
from edgetune_runtime.fitting.join import trust_of
from edgetune_runtime.fitting.linear import Head


class Described:
    """Descriptions of the labels of a task in training.

    Args:
        setup: the setup of the training run.
        place: index of the task among those that are trained together.
        about: the descriptions.

    Attributes:
        rows: the descriptions as texts, labelled with the label that they describe.
        trust: how much they are trusted.
    """

    def __init__(self, setup: Setup, place: int, about: About) -> None:
        draft = setup.drafts[place]
        self._tuner, self._labels, self._descriptions = setup.tuner, draft.labels, about.descriptions
        texts = [
            LabelledText(line, label)
            for label in self._labels
            if label in about.descriptions
            for line in lines([label], about.descriptions)
        ]
        self.rows = encode_rows(self._tuner.backbone, texts, draft, place, note=lambda _: None)
        self.trust = trust_of(about)

    def head(self) -> Head:
        """The head that is made from descriptions, with the current prompt."""
        return described_head(self._labels, self._descriptions, text_features(self._tuner, self.rows))
