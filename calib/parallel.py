"""Runs a function over many items on all cores, and yields the results in the order of the items.

ONNX Runtime, OpenCV and NumPy release the interpreter lock. One session of one thread that works on
a batch for each core takes less CPU time than a session of all cores: no thread waits for others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from finedge.runtime.machine.cpu import owned_cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield `function(item)` for each item, computed a few items ahead, one thread a core.

    At most one item more than there are cores is in memory. An error comes in the place of the
    result; nothing is started after it.
    """
    cores = owned_cores()
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(cores) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > cores:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
