"""The tests of the kernel notice errors: each important line is broken in turn.

The numbers or the sanitizer must show it.
"""

import itertools
import os
import re
import subprocess
import sys
from dataclasses import dataclass

import pytest

from finedge.runtime.trt.plugin.kernels.make import SOURCE
from tests.runtime.trt.plugin.attention import FIRST, LAST, PROBE, RANDOM, ROOT, error, opened
from tests.runtime.trt.plugin.conftest import build_host
from tests.runtime.trt.plugin.test_kernel import TOLERANCE

# What a mutant's problems call; the rest is left out, which halves the compiler's time.
USED = ("cla_64", "cla_shared_512", "cla_combine")
ORDERS = [(FIRST, 0), (LAST, 0), (RANDOM, 1), (RANDOM, 2)]
SANITIZE = (
    "-g",
    "-fsanitize=address,alignment",
    "-fsanitize-undefined-trap-on-error",
    "--param",
    "asan-stack=0",
)  # stacks are the fibers'


@dataclass(frozen=True)
class Mutant:
    """`old` in the source becomes `new`; the case `probe` of `PROBE` shows it.

    The source must contain `old`.
    """

    name: str
    old: str
    new: str
    probe: str

    @property
    def source(self):
        text = SOURCE.read_text()
        assert self.old in text, (
            f"the kernel no longer reads `{self.old}`: mutant '{self.name}' is stale"
        )
        kept = [
            line
            for line in text.replace(self.old, self.new).splitlines()
            if not line.startswith('extern "C"') or any(f" {n}(" in line for n in USED)
        ]
        return "\n".join(kept)


NONE = Mutant("none", "", "", "")
BARRIERS = [
    Mutant(
        f"barrier {n}", f"__syncthreads();  // {n}:", f"// {n}:", "shared" if n == 5 else "separate"
    )
    for n in range(1, 7)
]
USUAL = [
    Mutant("key mask", "s[i] = key < end ?", "s[i] = true ?", "separate"),
    Mutant("rescale of o", "rows.o[n][2 * r] *= rescale;", "", "separate"),
]
OTHERS = [
    Mutant("rescale of the other column", "rows.o[n][2 * r + 1] *= rescale;", "", "separate"),
    Mutant("rescale of the sum", "rows.mass[r] * rescale", "rows.mass[r]", "separate"),
    Mutant("maximum of one warp only", "w < WARPS; w++) peak", "w < 1; w++) peak", "peaks"),
    Mutant(
        "maximum of half a row", "peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, 2));", "", "peaks"
    ),
    Mutant("sum of half a row", "mass += __shfl_xor_sync(~0u, mass, 2);", "", "separate"),
    Mutant("base of the exponent", "p.scale * LOG2_E", "p.scale", "separate"),
    Mutant(
        "wrong row of weights",
        "weights + (row + 8 * r) * WEIGHTS_PITCH",
        "weights + (8 + row - 8 * r) * WEIGHTS_PITCH",
        "separate",
    ),
    Mutant(
        "wrong row of o",
        "o + (row + 8 * r) * (D + SKEW / 2)",
        "o + (8 + row - 8 * r) * (D + SKEW / 2)",
        "separate",
    ),
    Mutant(
        "halves of b swapped", "mma(odd, a, b[2], b[3]);", "mma(odd, a, b[3], b[2]);", "separate"
    ),
    Mutant(
        "keys of the weights swapped",
        "mma(o[n], late, b[2], b[3]);",
        "mma(o[n], early, b[2], b[3]);",
        "separate",
    ),
    Mutant("values not transposed", "ldmatrix_transposed(b, v", "ldmatrix(b, v", "separate"),
    Mutant(
        "padding of the channels",
        "x.x & keep[0], x.y & keep[1], x.z & keep[2], x.w & keep[3]",
        "x.x, x.y, x.z, x.w",
        "padded",
    ),
    Mutant("image of the batch", "map.batch * blockIdx.z", "0", "split"),
    Mutant("image of the answer", "y.batch * blockIdx.z", "0", "split"),
    Mutant("every split takes all keys", "min(begin + run, p.keys)", "p.keys", "split"),
    Mutant("parts not weighed", "exp2f(part[p.dv] - peak) / mass", "1 / mass", "split"),
    Mutant(
        "sums not weighed", "mass += exp2f(partial(p, s, query)[p.dv] - peak) *", "mass +=", "split"
    ),
    Mutant(
        "scale of INT8",
        "packed(static_cast<signed char>(word) * scale",
        "packed(static_cast<signed char>(word)",
        "int8",
    ),
    Mutant("groups of INT8", "data += map.group * (c / 32) + c % 32;", "data += c;", "int8"),
    Mutant("second channel of a linear answer", "at[y.channel] =", "at[0] =", "linear"),
    Mutant("channels of a linear map", "map.channel * i)", "map.channel * (i ^ 1))", "linear_v"),
]
# Numbers alone may not show these: reads past the end are masked, and x86 accepts a misaligned
# address.
OVERRUNS = [
    Mutant(
        "tokens of a wide map",
        "row < rows && c < channels ? eight",
        "c < channels ? eight",
        "separate",
    ),
    Mutant(
        "tokens of a linear map", "row < rows && c + i < channels ?", "c + i < channels ?", "linear"
    ),
    Mutant("queries of the answer", "if (query >= p.queries) continue;", "", "separate"),
    Mutant("crooked address", "SKEW = 8;", "SKEW = 4;", "separate"),
]


def build(mutant, folder, *, flags=()):
    (folder / "mutant.cu").write_text(mutant.source)
    kernels = " ".join(f"K({n})" for n in USED)
    return build_host(
        folder / "mutant.so",
        source=folder / "mutant.cu",
        flags=(f"-DKERNELS={kernels}", "-w", *flags),
    )


def is_wrong(library, probe, *, order):
    library.order(*order)
    try:
        return not error(library, PROBE[probe]) < TOLERANCE
    except RuntimeError:  # the shim saw threads that wait for ever, or a write past shared memory
        return True


def named(mutants, *, slow=False):
    return [pytest.param(m, id=m.name, marks=[pytest.mark.slow] if slow else []) for m in mutants]


@pytest.mark.parametrize("mutant", [*named(BARRIERS), *named(USUAL), *named(OTHERS, slow=True)])
def test_the_numbers_catch_it(mutant, tmp_path):
    library = opened(build(mutant, tmp_path))
    assert any(is_wrong(library, mutant.probe, order=order) for order in ORDERS)


def test_the_whole_kernel_passes_all_of_it(tmp_path):
    library = opened(build(NONE, tmp_path))
    assert not [
        (probe, order)
        for probe, order in itertools.product(PROBE, ORDERS)
        if is_wrong(library, probe, order=order)
    ]


def sanitized(mutant, folder, *, probe):
    """Run a problem in a process with AddressSanitizer."""
    library = build(mutant, folder, flags=SANITIZE)
    asan = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    environment = {
        **os.environ,
        "LD_PRELOAD": asan,
        "ASAN_OPTIONS": "detect_leaks=0",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "tests.runtime.trt.plugin.attention", str(library), *probe]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )


def test_the_sanitizer_finds_nothing_in_the_whole_kernel(tmp_path):
    done = sanitized(NONE, tmp_path, probe=PROBE)
    assert done.returncode == 0, done.stderr
    assert all(float(line) < TOLERANCE for line in done.stdout.split())


@pytest.mark.parametrize("mutant", [*named(OVERRUNS[:1]), *named(OVERRUNS[1:], slow=True)])
def test_the_sanitizer_catches_it(mutant, tmp_path):
    done = sanitized(mutant, tmp_path, probe=[mutant.probe])
    assert done.returncode != 0
    # What lies past the end is random: a red zone, a freed block, or no memory at all.
    outside = re.search(
        r"heap-(buffer-overflow|use-after-free)|SEGV on unknown address", done.stderr
    )
    assert outside or mutant.name == "crooked address", done.stderr


def test_every_barrier_of_the_kernel_has_a_mutant():
    assert SOURCE.read_text().count("__syncthreads();") == len(BARRIERS)
