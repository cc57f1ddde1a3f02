"""Comma lists: order, blanks, repeats, unknown names."""

from __future__ import annotations

import doctest

import pytest

from finedge import options
from finedge.errors import UsageError
from finedge.options import comma_list


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ()),
        (" , ,", ()),
        ("int8", ("int8",)),
        ("int8, fp32 ,int8,", ("int8", "fp32")),
    ],
)
def test_names_keep_their_order_and_come_once(text, names):
    assert comma_list(text, kind="variant", known=("fp32", "int8")) == names


def test_an_unknown_name_is_a_usage_error_with_the_nearest_one():
    with pytest.raises(UsageError, match="unknown variant 'int9'") as raised:
        comma_list("fp32,int9", kind="variant", known=("fp32", "int8"))
    assert "did you mean 'int8'?" in raised.value.expected


def test_any_name_will_do_where_none_is_known():
    assert comma_list("99, 90", kind="percentile") == ("99", "90")


def test_the_example_is_true():
    assert doctest.testmod(options).failed == 0
