"""INT8: collectors, range table, placements."""
