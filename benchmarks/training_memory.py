"""Memory and time of a training step, with and without the options that save memory.

    python benchmarks/training_memory.py --model bert-base --model bert-large --model llama-1.1b

Models have random weights, stored in bf16, because only sizes matter here. Each way is a separate process, which loads
the model and runs training steps like `edgetune train`. Its peak is the largest resident size that the system counted
for it, from start to end; the peak after loading the model is reported too. Seconds are summed over all CPU threads.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import click
import random_models
from export_memory import run
from random_models import MODELS

STEPS = """
import json, resource, sys, time
from pathlib import Path
from edgetune.data.labelled import LabelledText
from edgetune.training import TaskData, TrainingOptions
from edgetune.training.batches import Collator, width_of
from edgetune.training.methods import chosen
from edgetune.training.options import EPOCHS
from edgetune.training.recomputed import layers_recomputed
from edgetune.training.setup import set_up
from edgetune.training.trainer import optimizer
from edgetune_export import load_backbone

folder, load_in, again, batch, tokens, steps = sys.argv[1:]
backbone = load_backbone(folder, load_in=load_in)
options = chosen(TrainingOptions(recipe=EPOCHS), EPOCHS, backbone)
rows = [LabelledText("good morning " * (int(tokens) // 2), label) for label in "ab" * (int(batch) // 2)]
setup = set_up(backbone, [TaskData("task", Path("task"), rows, rows)], options, lambda _: None)
encoded = setup.rows["train"]
given = Collator(backbone.facts, width_of(encoded))(encoded)
learner = optimizer(setup.tuner, options)
seconds = []
loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
with layers_recomputed(backbone, again == "True"):
    for _ in range(int(steps)):
        began = time.process_time()
        loss = setup.tuner.train()(**given)["loss"]
        loss.backward()
        learner.step()
        learner.zero_grad()
        seconds.append(time.process_time() - began)
shape = list(given["input_ids"].shape)
figures = {"loss": loss.item(), "step_cpu_seconds": round(min(seconds), 1), "loaded_peak_mb": round(loaded)}
print(json.dumps({"method": options.title, "batch": shape, **figures}))
"""

WAYS = {
    "fp32": ("fp32", False),
    "fp32-recomputed": ("fp32", True),
    "bf16": ("bf16", False),
    "bf16-recomputed": ("bf16", True),
}
"""Name → type of the weights in memory, and whether layers are recomputed."""


@click.command()
@click.option("--model", "names", multiple=True, type=click.Choice(list(MODELS)), default=["bert-base"])
@click.option("--way", "ways", multiple=True, type=click.Choice(list(WAYS)), default=list(WAYS), show_default=True)
@click.option("--batch-size", default=8, show_default=True)
@click.option("--tokens", default=126, show_default=True, help="Words of each text; the special tokens come on top.")
@click.option("--steps", default=1, show_default=True, help="Steps to take; the seconds are those of the shortest.")
def main(names: tuple[str, ...], ways: tuple[str, ...], batch_size: int, tokens: int, steps: int) -> None:
    """Measure; a line of JSON for each model and way."""
    for name in names:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / name
            # In a process of its own: Linux tells no process's peak below that of the one that starts it.
            made = run([sys.executable, random_models.__file__, name, "bfloat16", str(folder)])
            for way in ways:
                load_in, again = WAYS[way]
                arguments = [str(folder), load_in, str(again), str(batch_size), str(tokens), str(steps)]
                ended = run([sys.executable, "-c", STEPS, *arguments])
                row = {
                    "model": name,
                    "fp32_weights_mb": round(float(made.output)),
                    "load_in": load_in,
                    "gradient_checkpointing": again,
                    "peak_mb": round(ended.peak_mb),
                    **json.loads(ended.output.splitlines()[-1]),
                }
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
