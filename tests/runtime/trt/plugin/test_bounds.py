"""What the shim counts, and the bounds of the kernels' speed that follow."""

import pytest

from finedge.runtime.trt.plugin.launch import INT8, SEPARATE, SHARED
from tests.runtime.trt.plugin.attention import ROOT, Case
from tests.runtime.trt.plugin.bounds import H100, ORIN, PRODUCT, Tile, bound, intervals, row, table

PAGE = ROOT / "benchmarks" / "gpu" / "README.md"
KERNELS = {kernel.name: kernel for kernel in (*SEPARATE, *SHARED)}


@pytest.fixture(scope="module")
def tiles(host_library):
    """A full tile of each kernel."""
    return {name: Tile.of(host_library, k, k.queries) for name, k in KERNELS.items()}


@pytest.mark.parametrize("name", KERNELS)
def test_a_full_tile_multiplies_nothing_in_vain(tiles, name):
    assert tiles[name].total.products * PRODUCT == tiles[name].useful


@pytest.mark.parametrize("name", KERNELS)
def test_no_access_to_shared_memory_has_a_bank_conflict(tiles, name):
    assert tiles[name].total.conflicts == 0


@pytest.mark.parametrize("name", KERNELS)
def test_a_tile_is_read_once_from_global_memory(tiles, name):
    kernel, maps = KERNELS[name], 1 if "shared" in name else 2
    assert tiles[name].total.read == maps * kernel.keys * kernel.size * 2
    assert tiles[name].total.written == 0


def test_a_tile_of_cla_shared_512_costs_what_the_head_of_the_file_adds_up(tiles):
    total = tiles["cla_shared_512"].total
    tile, parts = 32 * 512 * 2 // 128, 2 * 32 * 32 * 4 // 128
    weights, rescale = 32 * 32 * 2 // 128, 4 * 8  # a warp reads 4 of them, broadcast
    assert total.copy == tile
    assert total.matrix == 2 * tile + 8 * weights
    assert total.load == parts + rescale
    assert total.store == parts + weights + 8


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("cla_64", 0.43),
        ("cla_128", 0.60),
        ("cla_256", 0.69),
        ("cla_512", 0.76),
        ("cla_shared_512", 0.94),
        ("cla_shared_1024", 0.90),
    ],
)
def test_shared_memory_leaves_that_much_of_the_tensor_peak_of_orin(tiles, name, least):
    tile = tiles[name]
    assert tile.useful / ORIN.peak / tile.clocks(ORIN, overlap=True) >= least


@pytest.mark.parametrize(("name", "least"), [("cla_512", 0.70), ("cla_shared_512", 0.85)])
def test_the_barriers_leave_that_much_of_it_to_one_block(tiles, name, least):
    tile = tiles[name]
    assert tile.useful / ORIN.peak / tile.clocks(ORIN, overlap=False) >= least


@pytest.mark.parametrize(("queries", "orin", "h100"), [(196, 0.84, 0.42), (49, 0.72, 0.36)])
def test_rounding_up_to_16_queries_costs_that_much(host_library, queries, orin, h100):
    kernel = KERNELS["cla_shared_512"]
    for gpu, least in ((ORIN, orin), (H100, h100)):
        assert bound(host_library, kernel, queries, gpu=gpu, overlap=True) >= least


@pytest.mark.parametrize("name", ["cla_64", "cla_shared_512", "cla_shared_1024"])
def test_a_group_without_queries_is_not_multiplied(host_library, tiles, name):
    alone = Tile.of(host_library, KERNELS[name], 16)
    assert 2 * alone.total.products == tiles[name].total.products
    assert alone.total.conflicts == 0


@pytest.mark.parametrize("form", ["LINEAR", "CHW32"])
def test_maps_that_need_conversion_store_without_conflicts_too(host_library, form):
    case = Case(32, 64, 64, 64, forms=(form,) * 3, kinds=(INT8,) * 3)
    assert sum(cost.conflicts for cost in intervals(host_library, case)) == 0


def test_the_page_has_the_table(host_library):
    """Where this fails: python -m tests.runtime.trt.plugin.bounds."""
    lines = table([row(host_library, kernel) for kernel in KERNELS.values()])
    assert "\n".join(lines) in PAGE.read_text()
