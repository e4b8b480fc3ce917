"""How a graph is run, as far as it may differ from one CPU to another: what `edgetune tune` chooses among.

All forms of a graph compute the same; which is fastest depends on the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edgetune_runtime import operators, strict
from edgetune_runtime.protobuf import Data

_FUSES_NORMALIZATION = "SkipLayerNormFusion"
_ATTENTIONS = ("", operators.ONNX_ATTENTION, operators.OWN_ATTENTION)
_MOST_THREADS, _MOST_ROWS, _MOST_TOKENS = 4096, 1024, 1_000_000


@dataclass(frozen=True)
class Form:
    """Changes to a graph when it is loaded.

    Attributes:
        attention: the operator of attention, `operators.ONNX_ATTENTION` or `OWN_ATTENTION`; empty as exported.
        fuses_normalization: whether residual addition and layer normalization are one operator.
    """

    attention: str = ""
    fuses_normalization: bool = False

    def rewritten(self, graph: Data) -> bytes:
        """The graph in this form.

        Raises:
            BundleError: the bytes are no ONNX graph.
        """
        changed = operators.with_attention(graph, self.attention) if self.attention else None
        return bytes(graph) if changed is None else changed

    def disabled_optimizers(self, usual: tuple[str, ...]) -> list[str]:
        """The optimizers of onnxruntime that are off, given those that the device usually has off."""
        return [name for name in usual if not (self.fuses_normalization and name == _FUSES_NORMALIZATION)]


EXPORTED = Form()
"""A graph as it was exported."""


@dataclass(frozen=True)
class Setup:
    """How a precision of a bundle is run.

    Attributes:
        form: what is made of its graphs.
        threads: most tokens of a text → threads of a text that is alone, in ascending order; all threads for longer
            texts.
        rows: most texts in one run, if many come at once.
    """

    form: Form = EXPORTED
    threads: Mapping[int, int] = field(default_factory=dict)
    rows: int = 1

    def threads_for(self, tokens: int, available: int) -> int:
        """Threads of a text that is alone."""
        for most, threads in self.threads.items():
            if tokens <= most:
                return min(threads, available)
        return available

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"form": asdict(self.form), "threads": [*map(list, self.threads.items())], "rows": self.rows}

    @classmethod
    def from_dict(cls, told: Any) -> Setup:
        """Read the output of `to_dict`.

        Raises:
            ValueError: it is something else.
        """
        try:
            attention, fuses = told["form"]["attention"], told["form"]["fuses_normalization"]
            if attention not in _ATTENTIONS or type(fuses) is not bool:
                raise ValueError(f"the form {told['form']!r:.100}: expected one that this edgetune knows")
            threads = {
                strict.whole_number(most, 1, _MOST_TOKENS): strict.whole_number(number, 1, _MOST_THREADS)
                for most, number in told["threads"]
            }
            return cls(
                Form(attention, fuses), dict(sorted(threads.items())), strict.whole_number(told["rows"], 1, _MOST_ROWS)
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"{told!r:.100}: expected a form, threads and rows") from error


DEFAULT = Setup()
"""How a graph is run on a CPU that nobody tuned it for."""
