import json

import pytest

from finedge.calib.ranges.calibration_table import CalibrationTable, Range
from finedge.errors import FinedgeError


def test_the_scale_maps_the_larger_end_to_127():
    assert Range(-254, 10).scale == 2


def test_a_constant_zero_has_a_usable_scale():
    assert Range(0, 0).scale == 1


def test_a_tensor_without_a_range_is_named():
    with pytest.raises(FinedgeError, match="'conv7'"):
        CalibrationTable("max", {})["conv7"]


def test_the_table_is_plain_data():
    assert json.loads(json.dumps(CalibrationTable("max", {"x": Range(-1, 2)}).to_json())) == {
        "x": [-1, 2]
    }
