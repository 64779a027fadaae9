"""strict_resume: what would not be bit for bit is refused, and named."""

from pathlib import Path

import pytest
import torch
from loop_helpers import assert_same_bits, make_loader, make_state, quick_fit

import functrain as ft


def test_what_differs_is_named_and_the_run_left_alone(tmp_path: Path) -> None:
    quick_fit(make_state(), make_loader(), epochs=1, run_dir=tmp_path)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    changed = make_state(seed=1, clip_norm=0.5, optimizer=ft.optim.adamw(2e-2))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.raises(ft.ResumeRefusedError) as refusal:
            quick_fit(changed, make_loader(5), epochs=2, run_dir=tmp_path, strict_resume=True)
    finally:
        torch.set_num_threads(threads)
    lines = str(refusal.value).splitlines()
    assert lines[0] == "strict_resume: going on from step-00000006 would not be bit for bit:"
    assert [line.split(" was ")[0].strip() for line in lines[1:-1]] == [
        "threads",
        "key",
        "data",
        "clip_norm",
        "the initial learning rate",
    ]
    assert "data was 6 batches of 4 (indexed) and is 5 batches of 5 (indexed): other batches" in str(refusal.value)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_the_same_run_goes_on(tmp_path: Path) -> None:
    quick_fit(make_state(), make_loader(), epochs=1, run_dir=tmp_path, strict_resume=True)
    resumed = quick_fit(make_state(), make_loader(), epochs=2, run_dir=tmp_path, strict_resume=True)
    assert_same_bits(resumed.state, quick_fit(make_state(), make_loader(), epochs=2).state)


def test_without_it_each_difference_is_a_warning(tmp_path: Path) -> None:
    quick_fit(make_state(), make_loader(), epochs=1, run_dir=tmp_path)
    with pytest.warns(ft.ResumeWarning, match="not bit-for-bit because clip_norm was None and is 0.5: gradients are"):
        quick_fit(make_state(clip_norm=0.5), make_loader(), epochs=2, run_dir=tmp_path)


def test_other_contents_of_the_data_are_named_and_refused(tmp_path: Path) -> None:
    quick_fit(make_state(), make_loader(), epochs=1, run_dir=tmp_path)
    other = make_loader()
    other.dataset.tensors[1][3] = (other.dataset.tensors[1][3] + 1) % 3
    with pytest.raises(ft.ResumeRefusedError, match=r"data_content was [0-9a-f]{16} and is .*holds other values"):
        quick_fit(make_state(), other, epochs=2, run_dir=tmp_path, strict_resume=True)
    with pytest.warns(ft.ResumeWarning, match="data_content was "):
        quick_fit(make_state(), other, epochs=2, run_dir=tmp_path)
    quick_fit(make_state(), other, epochs=3, run_dir=tmp_path, strict_resume=True)
