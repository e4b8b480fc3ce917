"""Descriptions of labels in a training: the head that they make behind the prompt as it is."""

from __future__ import annotations

from edgetune.data.labelled import LabelledText
from edgetune.training.batches import encode_rows, text_features
from edgetune.training.setup import Setup
from edgetune_runtime.fitting.describe import Descriptions, described_head, lines
from edgetune_runtime.fitting.linear import Head


class Described:
    """Descriptions of the labels of a training's first task.

    Args:
        setup: what the training begins with.
        descriptions: of at least two labels.

    Attributes:
        rows: the descriptions as texts that have the label that they describe.
    """

    def __init__(self, setup: Setup, descriptions: Descriptions) -> None:
        self._tuner, self._labels, self._descriptions = setup.tuner, setup.drafts[0].labels, descriptions
        texts = [
            LabelledText(line, label)
            for label in self._labels
            if label in descriptions
            for line in lines([label], descriptions)
        ]
        self.rows = encode_rows(self._tuner.backbone, texts, setup.drafts[0], note=lambda _: None)

    def head(self) -> Head:
        """The head that is made of descriptions, with the prompt as it is now."""
        return described_head(self._labels, self._descriptions, text_features(self._tuner, self.rows))
