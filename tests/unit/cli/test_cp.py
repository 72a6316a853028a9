"""What `skerry cp` says of names that a sandbox chose."""

import pytest

from skerry.cli.cp import _shown_report


def test_a_name_cannot_add_a_line_to_what_cp_says(capsys: pytest.CaptureFixture[str]) -> None:
    report = _shown_report("sbx:/t", lambda _: None, as_json=False)
    report.skipped(("x\nskerry: all is well",), "a symbolic link")
    report.failed("sbx:/t/y\nskerry: all is well: Permission denied")
    assert capsys.readouterr().err.splitlines() == [
        "skerry: left out sbx:/t/x\\nskerry: all is well: a symbolic link",
        "skerry: sbx:/t/y\\nskerry: all is well: Permission denied",
    ]
