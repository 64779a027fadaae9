"""Checkpoints that lie under another's name: what they say about themselves decides which is the newest."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from functrain.checkpoint import Checkpointer, CheckpointWarning, verify_checkpoints


def tree(value: int) -> dict[str, dict[str, torch.Tensor]]:
    return {"params": {"w": torch.tensor(value)}}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    with Checkpointer(tmp_path, keep=9) as checkpointer:
        for step in (1, 2, 3):
            checkpointer.save(tree(step), step=step, metric=float(step))
    return tmp_path


def test_a_copy_under_a_later_name_is_not_the_newest(saved: Path) -> None:
    shutil.copytree(saved / "step-00000001", saved / "step-00000009")
    checkpointer = Checkpointer(saved, keep=2)
    names = ["step-00000009", "step-00000001", "step-00000002", "step-00000003"]
    assert checkpointer.names() == names
    assert [info.name for info in checkpointer.infos()] == names
    with pytest.warns(CheckpointWarning, match="step-00000009 was saved as step-00000001, and copied or renamed since"):
        restored = checkpointer.restore(tree(0))
    assert (int(restored.tree["params"]["w"]), restored.info.name) == (3, "step-00000003")
    assert verify_checkpoints(saved).newest_good == "step-00000003"
    checkpointer.save(tree(4), step=4)
    checkpointer.close()
    assert os.readlink(saved / "last") == "step-00000004"
    assert (saved / "step-00000009").is_dir()  # it is somebody's copy: retention leaves it alone


def test_two_that_were_swapped_are_told_apart(saved: Path) -> None:
    for source, target in (("step-00000003", "aside"), ("step-00000001", "step-00000003"), ("aside", "step-00000001")):
        (saved / source).rename(saved / target)
    with pytest.warns(CheckpointWarning) as caught:
        restored = Checkpointer(saved).restore(tree(0))
    assert len(caught) == 2
    assert (int(restored.tree["params"]["w"]), restored.info.step) == (3, 3)


def test_one_whose_index_cannot_be_read_keeps_the_place_of_its_name(saved: Path) -> None:
    (saved / "step-00000003" / "functrain.json").write_text("nothing")
    assert Checkpointer(saved).names() == ["step-00000001", "step-00000002", "step-00000003"]
    with pytest.warns(CheckpointWarning, match="step-00000003 is damaged"):
        assert Checkpointer(saved).restore(tree(0)).info.step == 2
