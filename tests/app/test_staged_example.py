"""The shipped example of stages: masked pre-training on the digits, then a class for each pixel."""

from pathlib import Path

import pytest
import torch

from functrain.app.config.loading import load_config, load_stages
from functrain.checkpoint.reader import read_arrays
from functrain.loop.output.log_files import read_records
from functrain.models import EncoderDecoder

EXAMPLE = Path(__file__).parents[2] / "configs" / "digits_stages.yaml"
SHORT = ["training.epochs=2", "model.width=4", "data.batch_size=256", "compile=false"]


def test_the_second_stage_trains_on_from_the_first_ones_encoder(functrain, project):
    code, out, err = functrain("train", EXAMPLE, "--all-stages", "--no-progress", *SHORT)
    assert (code, err) == (0, "")
    first, second = (project / "runs/digits_stages" / name for name in ("pretrain", "dense"))
    assert "begins with the parameters of runs/digits_stages/pretrain, step-" in out
    assert read_records(first / "metrics.jsonl")[-1]["eval_mae"] > 0
    assert read_records(second / "metrics.jsonl")[-1]["eval_accuracy"] > 0
    shapes = {
        stage.name: {
            name: tuple(leaf.shape) for name, leaf in read_arrays(stage / "checkpoints/last")["params"].items()
        }
        for stage in (first, second)
    }
    differing = {name for name in shapes["dense"] if shapes["dense"][name] != shapes["pretrain"][name]}
    assert differing == {"head.weight", "head.bias"}
    assert functrain("reproduce", second, "--no-progress")[0] == 0


def test_the_example_is_what_its_comments_say():
    first, second = (stage.config for stage in load_stages(EXAMPLE))
    assert (first.objective.name, second.objective.name) == ("regression", "segmentation")
    assert (second.init_from.stage, second.init_from.which, second.init_from.new) == (
        "pretrain",
        "last",
        ["head.*"],
    )


def test_the_models_and_data_refuse_what_they_cannot_do(functrain, project):
    for text in ("model.layers=0", "model.width=0", "model.patch=3", "stages.pretrain.data.fraction=1.0"):
        code, _, err = functrain("train", EXAMPLE, "--all-stages", text)
        assert (code, err.count("\n")) == (2, 1), err
    assert load_config(EXAMPLE, stage="dense").model.parameters["out_channels"] == 11
    with pytest.raises(ValueError, match="H and W multiples of 4"):
        EncoderDecoder()(torch.zeros(1, 1, 6, 6))
