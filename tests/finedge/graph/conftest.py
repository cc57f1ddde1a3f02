"""Graph tests read the INT8 files of the runtime tests' tiny bundle."""

from tests.runtime.conftest import tiny_files

__all__ = ["tiny_files"]
