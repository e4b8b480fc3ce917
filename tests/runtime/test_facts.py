"""A backbone's facts, and the tasks that fit it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from conftest import HIDDEN, LAYERS, MakeTask

from edgetune_runtime import Bundle, contract
from edgetune_runtime.errors import TaskError
from edgetune_runtime.parts import HEAD, LOW_RANK, PARTS, PREFIX, SOFT_PROMPT, UNITS, Part
from edgetune_runtime.task import Task

OTHERS = {LOW_RANK["projection"], LOW_RANK["gate"]}
"""Parts for layers that the tests' backbone, a BERT, does not have."""


def with_part(bundle: Bundle, head: Task, part: Part, length: int = 2) -> Task:
    lengths = {one.length: length for one in PARTS.values()}
    shapes = {name: bundle.facts.sizes.of(contract.TASK_TENSORS[name], **lengths) for name in part.tensors}
    shapes = {name: [size or length for size in shape] for name, shape in shapes.items()}  # of sizes it does not have
    given = {name: np.ones(shape, "f4") for name, shape in shapes.items()}
    return dataclasses.replace(head, tensors={**head.tensors, **given})


@pytest.mark.parametrize("part", [part for part in PARTS.values() if part is not HEAD], ids=lambda part: part.name)
def test_a_part_needs_its_inputs(bundle: Bundle, make_task: MakeTask, part: Part) -> None:
    head = make_task(prefix=0, labels=2)
    whole = with_part(bundle, head, part)
    lacking = dataclasses.replace(
        bundle.facts,
        inputs=[one for one in bundle.facts.inputs if one not in part.tensors],
        variants={
            name: [one for one in more if one not in part.tensors] for name, more in bundle.facts.variants.items()
        },
    )
    if part not in OTHERS:
        bundle.facts.check(whole)
    for facts in (lacking, bundle.facts) if part in OTHERS else (lacking,):
        with pytest.raises(
            TaskError, match=f"needs the graph's input {', '.join(sorted(part.tensors))}, which this bundle"
        ):
            facts.check(whole)
    lacking.check(head)


@pytest.mark.parametrize(
    ("parts", "variant"),
    [
        ((), "base"),
        ((SOFT_PROMPT, PREFIX), "base"),
        ((LOW_RANK["query"], LOW_RANK["value"]), "light"),
        ((UNITS, PREFIX), "light"),
        ((LOW_RANK["value"], LOW_RANK["key"]), "full"),
        ((LOW_RANK["narrow"], UNITS), "full"),
    ],
)
def test_the_cheapest_graph_that_takes_a_tasks_parts_is_chosen(
    bundle: Bundle, make_task: MakeTask, parts: tuple[Part, ...], variant: str
) -> None:
    task = make_task(prefix=0)
    for part in parts:
        task = with_part(bundle, task, part)
    assert bundle.facts.variant_for(task) == variant
    assert set(bundle.facts.inputs_of(variant)) >= task.needed_inputs


def test_a_part_of_no_length_needs_nothing(bundle: Bundle, make_task: MakeTask) -> None:
    head = make_task(prefix=0)
    nothing = {name: np.zeros((LAYERS, 2 * HIDDEN, 0), "f4") for name in LOW_RANK["narrow"].tensors}
    task = dataclasses.replace(head, tensors={**head.tensors, **nothing})
    assert bundle.facts.variant_for(task) == "base"
    assert task.requires == ()


def test_inputs_of_the_first_generation_are_those_that_it_had() -> None:
    assert len(contract.INPUTS_OF_0_1) == 12
    assert contract.is_first_generation(contract.INPUTS_OF_0_1)
    assert not contract.is_first_generation(contract.INPUTS)
