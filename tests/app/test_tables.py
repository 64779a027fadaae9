"""What the commands print: nothing that matters is cut off."""

import io

import pytest
from rich.console import Console

from functrain.app.tables import print_facts, print_metrics, print_table

NAME = "step-00000017.m2.r1"
REASON = "the checksum of its file params/ocdbt.process_0/d/aebde860c0f89310cc4594a362d07e6d does not match"


def printed(*, width: int, terminal: bool) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=terminal, color_system=None)
    print_table(console, ["checkpoint", "", "reason", "ulps"], [[NAME, "damaged", REASON, "12"]], left=3)
    assert console.width == width
    return file.getvalue()


@pytest.fixture(autouse=True)
def _no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.mark.parametrize("terminal", [True, False])
def test_no_line_ends_with_blanks(terminal: bool) -> None:
    file = io.StringIO()
    console = Console(file=file, width=60, force_terminal=terminal, color_system=None)
    print_facts(console, "a run", [("name", "short"), ("another", REASON)])
    text = printed(width=60, terminal=terminal) + file.getvalue()
    assert [line for line in text.splitlines() if line != line.rstrip()] == []


def test_a_table_in_a_file_is_as_wide_as_columns_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert printed(width=80, terminal=False) == printed(width=80, terminal=True)


@pytest.mark.parametrize("width", [40, 80, 300])
def test_a_table_in_a_file_or_pipe_has_each_row_in_one_line(width: int) -> None:
    (row,) = [line for line in printed(width=width, terminal=False).splitlines() if NAME in line]
    assert row.split() == [NAME, "damaged", *REASON.split(), "12"]


@pytest.mark.parametrize("columns", [1, 2, 5, 9])
@pytest.mark.parametrize("left", [0, 1])
def test_no_terminal_is_too_narrow_for_numbers(columns: int, left: int) -> None:
    numbers = [f"{number}.2345" for number in range(columns)]
    names = ["", *["eval accuracy"] * columns][1 - left :]
    row = ["train", *numbers][1 - left :]
    for width in range(5, 140):
        file = io.StringIO()
        console = Console(file=file, width=width, force_terminal=True, color_system=None)
        print_table(console, names, [row], left=left)
        assert [line.split() for line in file.getvalue().splitlines() if numbers[0] in line] == [row], width


@pytest.mark.parametrize("width", [60, 80])
def test_a_table_on_a_terminal_is_wrapped_and_whole(width: int) -> None:
    lines = printed(width=width, terminal=True).splitlines()
    assert max(map(len, lines)) <= width
    assert f"{NAME}  damaged" in "\n".join(lines)
    start, end = len(f" {NAME}  damaged "), max(line.find(" 12") for line in lines if NAME in line)
    folded = "".join(line[start:end] for line in lines[lines.index(next(row for row in lines if NAME in row)) :])
    assert folded.replace(" ", "") == REASON.replace(" ", "")


def test_numbers_of_classes_have_a_table_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = {"loss": 0.5, "f1": 0.25, "f1/class/0": 0.125, "f1/class/1": 0.375, "confusion_matrix/0/0": 3.0}
    print_metrics(Console(), {"train": metrics, "val": {"loss": 0.75}})
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[0] == ["loss", "f1"]
    assert lines[-4:] == [["class", "train", "f1"], lines[-3], ["0", "0.1250"], ["1", "0.3750"]]
