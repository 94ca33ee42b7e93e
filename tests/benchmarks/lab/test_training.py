"""The table of tuning methods: what a row says, and that it replaces itself between its markers."""

from benchmarks.lab.training import MARKERS, Trial, machine_line, place, placed, table

TRIALS = [
    Trial("sst2", "naive script", 549.6, None, None, 0.781, "lora"),
    Trial("sst2", "auto", 61.2, 1_234_000_000, 0.9251, 0.93, "probe"),
]


def test_a_row_tells_what_was_measured_and_what_was_not():
    assert table(TRIALS)[2:] == [
        "| sst2 | naive script | 550 | not measured |  | 78.10 | lora |",
        "| sst2 | auto | 61 | 1,234 | 92.51 | 93.00 | probe |",
    ]
    assert "One run each" in machine_line()


def test_the_table_replaces_the_one_before_and_leaves_the_page(tmp_path):
    page = tmp_path / "performance.md"
    first, second = (f"{MARKERS[0]}\n{text}\n{MARKERS[1]}\n" for text in ("one", "two"))
    place(page, first)
    page.write_text("# Head\n" + page.read_text(encoding="utf-8") + "tail\n", encoding="utf-8")
    place(page, second)
    assert page.read_text(encoding="utf-8") == f"# Head\n{second}tail\n"


def test_a_placed_table_is_found_again(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Performance\n", encoding="utf-8")
    text = f"{MARKERS[0]}\n| a |\n{MARKERS[1]}\n"

    assert placed(page) == ""
    place(page, text)

    assert placed(page) == text
    assert placed(tmp_path / "absent.md") == ""
