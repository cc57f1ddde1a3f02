from dataclasses import asdict

from finedge.provenance import DecisionRecord, MethodRecord
from finedge.runtime.report.calibration import CalibrationSection, decision_tables
from finedge.runtime.report.content import Report
from finedge.schema import decode

ROW = MethodRecord("max", 256, 0.003939, 0.983333, 0.8875, 240)
DECISION = DecisionRecord(
    reason="max is as close as any",
    float_top1=0.89,
    methods=(ROW,),
    curve=(ROW, ROW),
    images_sha256=("0" * 64,),
)
REPORT = {"calibration": {"birds": asdict(CalibrationSection("max", DECISION))}}


def test_methods_and_curve_have_a_table_each():
    methods, curve = decision_tables(REPORT)
    assert methods.rows == (("max", "256", "0.00394", "98.3", "88.8", "240"),)
    assert methods.reason == "max is as close as any"
    assert len(curve.rows) == 2
    assert "birds" in methods.heading


def test_a_report_without_a_comparison_has_no_such_section():
    assert decision_tables({}) == ()


def test_a_written_section_is_read_again():
    section = decode(CalibrationSection, REPORT["calibration"]["birds"])
    assert section == CalibrationSection("max", DECISION)
    assert "calibration" in Report.__dataclass_fields__
