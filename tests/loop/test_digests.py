"""Records hold digests of the state, by which two runs can be compared by their logs."""

import pytest
import torch
from torch import nn

import functrain as ft
from functrain.checkpoint import read_checkpoint
from functrain.loop.output.log_files import read_records


def _data():
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(4, 3, generator=generator), torch.randn(4, 1, generator=generator)) for _ in range(5)]


def _state(**options):
    return ft.init_state(nn.Linear(3, 1), ft.regression(), ft.optim.adam(0.1), seed=1, **options)


OPTIONS = {"compile": False, "progress": False}


def test_an_epochs_record_has_the_digest_of_its_checkpoint(tmp_path):
    rule = ft.optim.plateau(patience=0, factor=0.5)
    options = {"eval_loader": _data(), "plateau": rule, "watch": "eval_loss", "keep": 9}
    result = ft.fit(_state(ema_decay=0.9), _data(), epochs=4, run_dir=tmp_path, **options, **OPTIONS)
    saved = [read_checkpoint(tmp_path / "checkpoints" / f"step-{5 * n:08d}", result.state).tree for n in range(1, 5)]
    assert [record["digest"] for record in result.history] == [ft.digest(state) for state in saved]
    assert result.history[-1]["digest"] == ft.digest(result.state)


def test_digest_every_adds_the_digests_of_single_updates(tmp_path):
    states = {}

    @ft.on("after_step")
    def look(event):
        states[event.state.step] = ft.digest(event.state)

    ft.fit(_state(), _data(), epochs=2, run_dir=tmp_path, digest_every=3, log_every=4, callbacks=[look], **OPTIONS)
    steps = [record for record in read_records(tmp_path / "metrics.jsonl") if record["kind"] == "step"]
    assert [record["step"] for record in steps] == [3, 4, 6, 8, 9]
    assert {record["step"]: record["digest"] for record in steps if "digest" in record} == {
        step: states[step] for step in (3, 6, 9)
    }
    assert all({"loss", "lr"} <= record.keys() for record in steps)


@pytest.mark.parametrize("first", ["epoch", "step"])
def test_a_log_with_digests_comes_back_from_the_table(tmp_path, first):
    """Whichever record brings the column, each line is rebuilt to the byte."""
    every = {"epoch": 7, "step": 2}[first]
    options = {"run_dir": tmp_path, "digest_every": every, "log_every": 3 if first == "step" else 6, **OPTIONS}
    ft.fit(_state(), _data(), epochs=2, **options)
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "metrics.jsonl").write_bytes(whole.replace(b'"kind"', b'"kind', 1))
    with pytest.warns(UserWarning, match=r"it was rebuilt from metrics\.csv"):
        ft.fit(_state(), _data(), epochs=2, **options)
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole


def test_a_digest_of_decimal_digits_stays_a_text(tmp_path):
    from functrain.loop.output.records import Records

    records = Records(tmp_path)
    records.append({"kind": "epoch", "epoch": 1, "step": 1, "digest": "0123" * 8})
    mark = records.mark()
    records.close()
    (tmp_path / "metrics.jsonl").unlink()
    with pytest.warns(UserWarning, match="rebuilt"):
        again = Records(tmp_path, 1, mark)
    again.close()
    assert again.epochs[0]["digest"] == "0123" * 8


def test_digest_every_is_checked():
    with pytest.raises(ValueError, match="digest_every must be a whole number"):
        ft.fit(_state(), _data(), epochs=1, digest_every=0, **OPTIONS)
