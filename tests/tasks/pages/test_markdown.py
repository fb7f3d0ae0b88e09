from tasks.pages.markdown import cell, table


def test_numbers_stand_to_the_right_and_cells_stay_cells() -> None:
    assert table(("name", "n"), [("a|b\nc", "1")], (1,)) == (
        "| name | n |\n| --- | ---: |\n| a\\|b c | 1 |"
    )
    assert table(("name",), []) == ""


def test_marks_are_text() -> None:
    assert cell("<b> *x* [y](z) `_\\") == "\\<b\\> \\*x\\* \\[y\\](z) \\`\\_\\\\"
