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
from finedge.runtime.trt.plugin.launch import kernel_for
from tests.runtime.trt.plugin.attention import (
    COMBINE_KERNEL,
    FIRST,
    LAST,
    PROBE,
    RANDOM,
    ROOT,
    error,
    opened,
)
from tests.runtime.trt.plugin.bounds import intervals
from tests.runtime.trt.plugin.conftest import build_host
from tests.runtime.trt.plugin.test_kernel import TOLERANCE

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
        return text.replace(self.old, self.new)


NONE = Mutant("none", "", "", "")
SMALL = [name for name, case in PROBE.items() if max(case.d, case.dv) <= 64]  # of one kernel
BARRIERS = [
    Mutant("barrier 1", "__syncthreads();  // 1:", "// 1:", "shared"),
    Mutant("barrier 2", "__syncthreads();  // 2:", "// 2:", "wide"),
    Mutant("barrier 3", "__syncthreads();  // 3:", "// 3:", "separate"),
    Mutant("barrier 4", "__syncthreads();  // 4:", "// 4:", "separate"),
    Mutant("barrier 5", "__syncthreads();  // 5:", "// 5:", "separate"),
    Mutant("barrier 6", "__syncthreads();  // 6:", "// 6:", "separate"),
]
COPIES = [
    Mutant("tile not awaited", "wait_copies<0>();  // k", "// k", "shared"),
    Mutant("values not awaited", "wait_copies<1>();", "", "separate"),
    Mutant("keys not awaited", "wait_copies<0>();  // k", "// k", "separate"),
    Mutant("queries not awaited", "wait_copies<0>();  // q", "// q", "shared"),
    Mutant("one group too few awaited", "wait_copies<1>();", "wait_copies<2>();", "separate"),
    Mutant("copies not committed", "        commit_copies();\n    }", "}", "shared"),
    Mutant("next tile not committed", "    }\n    commit_copies();\n}", "}}", "shared"),
    Mutant("copies past the last tile", "if (first >= end) return copies;", "", "shared"),
]
OTHERS = [
    Mutant("key mask", "key + i < keys ?", "true ?", "separate"),
    Mutant("rescale of o", "o[i / 2][n][i % 2 * 2] *=", "0,", "grown"),
    Mutant("rescale of the other column", "o[i / 2][n][i % 2 * 2 + 1] *=", "0,", "grown"),
    Mutant(
        "o is never rescaled",
        "if (__all_sync(~0u, by[0] * by[1] * by[2] * by[3] == 1)) return;",
        "return;",
        "grown",
    ),
    Mutant("weights past fp16", "SLACK = 8;", "SLACK = 64;", "grown"),
    Mutant("rescale of the sum", "own.mass * rescale", "own.mass", "grown"),
    Mutant("maximum of this tile only", "peak <= own.peak + SLACK", "false && peak", "peaks"),
    Mutant("half a row", "mask < LANES;", "mask < LANES / 2;", "separate"),
    Mutant("half a row of eight lanes", "mask < LANES;", "mask < LANES / 2;", "shared"),
    Mutant(
        "sum of one lane", "over<K::WARPS>(own.mass,", "own.mass; over<K::WARPS>(0,", "separate"
    ),
    Mutant("base of the exponent", "p.scale * LOG2_E", "p.scale", "separate"),
    Mutant(
        "wrong row of s", "lane() / 4 + 8 * r, key =", "lane() / 4 + 8 - 8 * r, key =", "separate"
    ),
    Mutant("slice of a warp", "return warp() % SLICES;", "return 0;", "shared"),
    Mutant("keys of a warp", "SLICES * (8 * BLOCKS);", "SLICES * 8;", "medium"),
    Mutant("channels of a warp", "warp() * K::COLUMNS + lane() % 4", "lane() % 4", "separate"),
    Mutant("tokens of a copy", "step = map.token * STEP,", "step = map.token,", "separate"),
    Mutant("first key of a split", "run * blockIdx.y,", "0,", "split"),
    Mutant("image of a part", "long long>(blockIdx.z) * p.splits", "long long>(0)", "split"),
    Mutant("wrong row of y", "lane() / 4 + 8 * r;", "lane() / 4 + 8 - 8 * r;", "separate"),
    Mutant("wrong row's rescale", "lane() / 4 + i % 2 * 8;", "lane() / 4;", "grown"),
    Mutant(
        "one slice of the channels", "slice < K::SLICES; slice++", "slice < 1; slice++", "shared"
    ),
    Mutant("slices in one place", "arena.part(K::slice()", "arena.part(0", "shared"),
    Mutant("half of the steps", "pair.of[0] += s[g][1][2 * r],", "", "shared"),
    Mutant("half of the steps, odd", ", pair.of[1] += s[g][1][2 * r + 1]", "", "shared"),
    Mutant("halves of b swapped", "b[i % 2][2 * half]", "b[i % 2][2 * half + 1]", "separate"),
    Mutant("loads of k not in turn", "b[(i + 1) % 2], k", "b[i % 2], k", "separate"),
    Mutant("keys of a wide tile", "lane() % 8 + lane() / 16 * 8;", "lane() % 8;", "wide"),
    Mutant("channels of a wide tile", "lane() / 8 % 2 * 8;", "lane() / 16 * 8;", "wide"),
    Mutant("steps of a wide tile", "2 * i + half : i;", "2 * i + half : i / 2;", "wide"),
    Mutant("second group's keys", "w[g][h], b[0], b[1]", "w[0][h], b[0], b[1]", "separate"),
    Mutant("keys of the weights", "w[g][h], b[2], b[3]", "w[g][0], b[2], b[3]", "separate"),
    Mutant("values not transposed", "ldmatrix_transposed(b, v", "ldmatrix(b, v", "separate"),
    Mutant("one group in every block", "p.queries - query > GROUP;", "false;", "separate"),
    Mutant("owners of one group", "const bool owner = both ||", "const bool owner =", "separate"),
    Mutant("values in the keys' buffer", "K::ONE_MAP ? k : arena.tile(1)", "k", "sliced"),
    Mutant("tiles do not take turns", "turn ^= K::ONE_MAP", "turn ^= 0", "shared"),
    Mutant(
        "padding of the channels",
        "2 * min(max(channels - c, 0), 8)",
        "channels > c ? 16 : 0",
        "padded",
    ),
    Mutant("padding of INT8", "return c + i < channels ?", "return true ?", "int8_padded"),
    Mutant("image of the batch", "map.batch * blockIdx.z", "0", "split"),
    Mutant("image of the answer", "y.batch * blockIdx.z", "0", "split"),
    Mutant("every split takes all keys", "min(begin + run, p.keys)", "p.keys", "split"),
    Mutant("parts not weighed", "share = weight /", "share = 1 /", "split"),
    Mutant("sums not weighed", "over<32>(weight * mass", "over<32>(mass", "split"),
    Mutant(
        "split's maximum", "store_global(part, own.peak);", "store_global(part, 0.0f);", "split"
    ),
    Mutant("scale of INT8", "return x * scale;", "return x;", "int8"),
    Mutant("bytes of INT8", "word >> i % 4 * 8", "word >> i % 2 * 8", "int8"),
    Mutant(
        "groups of INT8",
        "map.group * (c / 32) + c % 32;\n    const auto",
        "c;\n    const auto",
        "int8",
    ),
    Mutant("second channel of a linear answer", "at + y.channel,", "at,", "linear"),
    Mutant("channels of a linear map", "map.channel * i)", "map.channel * (i ^ 1))", "linear_v"),
    Mutant("crooked address", "SKEW = 8;", "SKEW = 4;", "separate"),
]
# The numbers stay right; the counter shows these.
CONFLICTS = [
    Mutant("rows of a tile in the same banks", "SKEW = 8;", "SKEW = 0;", "shared"),
    Mutant("s without its swizzle", "row % 4 * 8 + row % 2 * 4", "0", "shared"),
    Mutant("s with half of it", "row % 4 * 8 + row % 2 * 4", "row % 4 * 8", "separate"),
    Mutant("narrow s without its swizzle", "row / 2 % 2 * 8", "0", "wide"),
    Mutant("w without its swizzle", "row / 2 % 4 * 8", "0", "shared"),
    Mutant("narrow w without its swizzle", "row / 4 % 2 * 8", "0", "wide"),
]
# Numbers alone may not show these: reads past the end are masked.
OVERRUNS = [
    Mutant(
        "tokens of a wide map",
        "i * STEP < rows ? bytes : 0",
        "bytes",
        "separate",
    ),
    Mutant("tokens of INT8", "row < rows && c < channels ? __ldg", "c < channels ? __ldg", "int8"),
    Mutant(
        "channels of INT8",
        "row < rows && c < channels ? __ldg",
        "row < rows ? __ldg",
        "int8_padded",
    ),
    Mutant(
        "tokens of a linear map", "row < rows && c + i < channels;", "c + i < channels;", "linear"
    ),
    Mutant("queries of the answer", "if (query >= p.queries) continue;", "", "separate"),
    Mutant("queries of a part", "p.splits == 1 || query >= p.queries", "p.splits == 1", "split"),
]


def build(mutant, folder, *, probes, flags=()):
    """Build a mutant with no more kernels than its probes need: most of the compiler's time."""
    cases = [PROBE[probe] for probe in probes]
    used = {kernel_for(d=c.d, dv=c.dv, shared=c.shared) for c in cases} | {COMBINE_KERNEL}
    unused = re.compile(rf"^KERNEL\((?!({'|'.join(kernel.name for kernel in used)}),).*$", re.M)
    (folder / "mutant.cu").write_text(unused.sub("", mutant.source))
    kernels = " ".join(f"K({kernel.name}, {kernel.threads})" for kernel in used)
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


@pytest.mark.parametrize(
    "mutant", [*named([*BARRIERS, *COPIES[:2]]), *named([*COPIES[2:], *OTHERS], slow=True)]
)
def test_the_numbers_catch_it(mutant, tmp_path):
    library = opened(build(mutant, tmp_path, probes=[mutant.probe]))
    assert any(is_wrong(library, mutant.probe, order=order) for order in ORDERS)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", [NONE, *CONFLICTS], ids=lambda m: m.name)
def test_the_counter_catches_it(mutant, tmp_path):
    probe = mutant.probe or "shared"
    library = opened(build(mutant, tmp_path, probes=[probe]))
    conflicts = sum(cost.conflicts for cost in intervals(library, PROBE[probe]))
    assert (conflicts == 0) == (mutant is NONE)


def test_the_whole_kernel_passes_all_of_it(tmp_path):
    library = opened(build(NONE, tmp_path, probes=PROBE))
    assert not [
        (probe, order)
        for probe, order in itertools.product(PROBE, ORDERS)
        if is_wrong(library, probe, order=order)
    ]


def sanitized(mutant, folder, *, probes):
    """Run problems in a process with AddressSanitizer."""
    library = build(mutant, folder, probes=probes, flags=SANITIZE)
    asan = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    environment = {
        **os.environ,
        "LD_PRELOAD": asan,
        "ASAN_OPTIONS": "detect_leaks=0",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "tests.runtime.trt.plugin.attention", str(library), *probes]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("probes", [SMALL, pytest.param(list(PROBE), marks=pytest.mark.slow)])
def test_the_sanitizer_finds_nothing_in_the_kernel(tmp_path, probes):
    done = sanitized(NONE, tmp_path, probes=probes)
    assert done.returncode == 0, done.stderr
    assert all(float(line) < TOLERANCE for line in done.stdout.split())


@pytest.mark.parametrize("mutant", [*named(OVERRUNS[:1]), *named(OVERRUNS[1:], slow=True)])
def test_the_sanitizer_catches_it(mutant, tmp_path):
    done = sanitized(mutant, tmp_path, probes=[mutant.probe])
    assert done.returncode != 0
    # What lies past the end is random: a red zone, a freed block, or no memory at all.
    outside = re.search(
        r"heap-(buffer-overflow|use-after-free)|SEGV on unknown address", done.stderr
    )
    assert outside, done.stderr


def test_every_barrier_of_the_kernel_has_a_mutant():
    assert SOURCE.read_text().count("__syncthreads();") == len(BARRIERS)


def test_every_wait_for_copies_has_a_mutant():
    waits = re.findall(r"wait_copies<\d>\(\);", SOURCE.read_text())
    assert len(waits) == len({mutant.old for mutant in COPIES if "wait_copies" in mutant.old})
