from tasks.pages.funnel import Step, funnel


def test_files_then_clips_then_reasons_by_how_frequent_they_are() -> None:
    reasons = {"silent": 2, "no_face": 7, "dark": 2}
    assert funnel([("input files", 9), ("clips found", 14)], 3, reasons) == [
        Step("input files", 9),
        Step("clips found", 14),
        Step("clips accepted", 3, "good"),
        Step("refused: no_face", 7, "bad"),
        Step("refused: dark", 2, "bad"),
        Step("refused: silent", 2, "bad"),
    ]
