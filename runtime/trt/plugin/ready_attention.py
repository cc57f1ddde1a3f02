"""An attention whose launches are planned, and whose kernels are loaded."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from finedge.runtime.trt.plugin.driver import Driver, parameters_of
from finedge.runtime.trt.plugin.launch import (
    COMBINE,
    COMBINE_BLOCK,
    AttentionShape,
    kernel_for,
    plan,
)

log = logging.getLogger(__name__)


class ReadyAttention:
    """An attention that only lacks the addresses of its maps, and its loaded kernels.

    Args:
        driver: the CUDA driver.
        shape: maps and sizes; `splits` is filled in from the plan of the launch.
        shared: keys and values are one map.

    Raises:
        UsageError: more channels than any kernel has room for.
        SystemProblem: no image fits the device, or it has too little shared memory.
    """

    def __init__(self, driver: Driver, shape: AttentionShape, *, shared: bool) -> None:
        kernels = driver.kernels()
        kernel = kernel_for(d=shape.d, dv=shape.dv, shared=shared)
        self.shape = shape
        launch = self.plan = plan(
            queries=shape.queries,
            keys=shape.keys,
            d=shape.d,
            dv=shape.dv,
            shared=shared,
            batch=shape.batch,
            processors=kernels.processors,
            resident=kernels.resident(kernel),
        )
        shape.splits = launch.splits
        function = kernels.function(launch.kernel, shared_bytes=launch.shared_bytes)
        self._steps = [(function, *launch.grid, *launch.block, launch.shared_bytes)]
        if launch.combine_grid:
            combine = kernels.function(COMBINE, shared_bytes=0)
            self._steps.append((combine, *launch.combine_grid, *COMBINE_BLOCK, 0))
        self._driver, self._parameters = driver, parameters_of(shape)
        log.debug("cross-layer attention: %s", launch)

    def launch(self, addresses: Sequence[int], *, workspace: int, stream: int) -> None:
        """Record the launches on a stream.

        `addresses` are those of q, k, v and y; `workspace` has `plan.workspace_bytes`.
        """
        shape = self.shape
        shape.q.data, shape.k.data, shape.v.data, shape.y.data = addresses
        shape.partial = workspace
        for step in self._steps:
            self._driver.launch(*step, stream=stream, parameters=self._parameters)
