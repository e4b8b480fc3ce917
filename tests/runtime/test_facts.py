"""What a backbone has, and which tasks that is enough for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from conftest import MakeTask

from edgetune_runtime import Bundle, contract
from edgetune_runtime.errors import TaskError
from edgetune_runtime.parts import HEAD, PARTS, Part


@pytest.mark.parametrize("part", [part for part in PARTS.values() if part is not HEAD], ids=lambda part: part.name)
def test_a_part_needs_its_inputs(bundle: Bundle, make_task: MakeTask, part: Part) -> None:
    head = make_task(prefix=0, labels=2)
    lengths = {one.length: 2 for one in PARTS.values()}
    given = {
        name: np.ones(bundle.facts.sizes.of(contract.TASK_TENSORS[name], **lengths), "f4") for name in part.tensors
    }
    whole = dataclasses.replace(head, tensors={**head.tensors, **given})
    bundle.facts.check(whole)
    lacking = dataclasses.replace(bundle.facts, inputs=[one for one in bundle.facts.inputs if one not in part.tensors])
    with pytest.raises(
        TaskError, match=f"needs the graph's input {', '.join(sorted(part.tensors))}, which this bundle"
    ):
        lacking.check(whole)
    lacking.check(head)


def test_inputs_of_the_first_generation_are_those_that_it_had() -> None:
    assert len(contract.INPUTS_OF_0_1) == 12
    assert contract.is_first_generation(contract.INPUTS_OF_0_1)
    assert not contract.is_first_generation(contract.INPUTS)
