"""Progress display of training."""

from __future__ import annotations

import sys
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Progress(TrainerCallback):  # type: ignore[misc]
    """One progress bar for training, and one line per epoch, on stderr.

    Args:
        epochs: the number of epochs.
        chosen_by: the measure that chooses the epoch, or several measures.
        usual: the usual measure of the kind of answer, or several. It is also shown if it differs.
        title: text before each line.
    """

    def __init__(self, epochs: int, chosen_by: str, usual: str, title: str = "") -> None:
        self._epochs = epochs
        self._title = f"{title}  " if title else ""
        self._chosen_by, self._usual = chosen_by, usual
        self._bar: tqdm[Any] | None = None
        self._loss = float("nan")

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Show the bar."""
        self._bar = tqdm(
            total=state.max_steps, initial=state.global_step, file=sys.stderr, unit="step", leave=False, disable=None
        )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Keep the loss for the epoch's line."""
        self._loss = (logs or {}).get("loss", self._loss)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Print the epoch's line."""
        if self._bar is not None and metrics:
            beside = f" ({self._usual} {metrics['eval_usual']:.3f})" if self._usual != self._chosen_by else ""
            self._bar.write(
                f"{self._title}epoch {round(state.epoch or 0)}/{self._epochs}  loss {self._loss:.3f}  "
                f"dev {self._chosen_by} {metrics['eval_score']:.3f}{beside}  dev loss "
                f"{metrics['eval_unweighted_loss']:.3f}",
                file=sys.stderr,
            )

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()


class Steps(TrainerCallback):  # type: ignore[misc]
    """One progress bar for several training runs, on stderr.

    Args:
        total: total number of steps.
        label: text before the bar.
    """

    def __init__(self, total: int, label: str) -> None:
        self._bar: tqdm[Any] = tqdm(total=total, desc=label, file=sys.stderr, unit="step", leave=False, disable=None)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move the bar."""
        self._bar.update()

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()
