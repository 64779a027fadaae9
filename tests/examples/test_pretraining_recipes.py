"""The claims of the recipes on pre-training, distillation, fine-tuning and language; quickly, and with 20 seeds."""

import runpy
import sys

import pytest
import torch
from recipes import FOLDER, SEEDS, load, p_value

import functrain as ft
from functrain.checkpoint import load_state_dict, read_safetensors
from functrain.models import MLP, load_lora


@pytest.fixture(autouse=True)
def silent(monkeypatch):
    """No display, and short runs where `epochs` is set."""

    def shorten(epochs=None):
        few = {"progress": False} | ({} if epochs is None else {"epochs": epochs, "limit_batches": 2})
        monkeypatch.setattr(ft, "fit", lambda state, loader, **options: fit(state, loader, **{**options, **few}))

    fit = ft.fit
    shorten()
    return shorten


def over_seeds(name, better, worse):
    """The chance of the results under the contrary; they are printed for the recipe's page (`pytest -s`)."""
    p = p_value(better, worse)
    means = [sum(found) / len(found) for found in (better, worse)]
    differences = [one - other for one, other in zip(better, worse, strict=True)]
    print(f"{name}: {means[0]:.4f}, {means[1]:.4f}; {min(differences):+.4f} to {max(differences):+.4f}; p = {p:.2g}")
    return p


def test_a_probe_is_the_same_one_at_each_start(silent, tmp_path):
    silent(1)
    train = load("14_contrastive.py")["train"]
    first = train(tmp_path)
    assert train() == first


def test_pretraining_and_what_begins_anew_end_with_other_numbers(silent):
    silent(1)
    for accuracy in load("15_masked_pretraining.py")["train"]():
        assert 0.0 < accuracy < 1.0


def test_the_teachers_average_is_a_leaf_of_its_state(silent, tmp_path):
    silent(1)
    states, accuracy = load("16_distillation.py")["train"](tmp_path)
    teacher, student = states["teacher"], states["student"]
    restored = ft.Checkpointer(tmp_path / "teacher" / "checkpoints").restore(like=teacher).tree
    for average in (restored.ema.params, restored.ema.buffers):
        kept = teacher.ema.params if average is restored.ema.params else teacher.ema.buffers
        assert all(torch.equal(kept[name], average[name]) for name in kept)
    sizes = [sum(parameter.numel() for parameter in state.params.values()) for state in (student, teacher)]
    assert sizes[0] <= sizes[1] / 10
    assert accuracy.keys() == {"teacher", "student"}


def test_adapters_alone_are_trained_and_saved(silent, tmp_path, monkeypatch, capsys):
    silent(1)
    monkeypatch.setattr(sys, "argv", ["18_fine_tuning.py", str(tmp_path)])
    module = runpy.run_path(str(FOLDER / "18_fine_tuning.py"), run_name="__main__")
    assert "adapters: " in capsys.readouterr().out
    base = MLP(64, 10)
    base.load_state_dict(load_state_dict(tmp_path / "base" / "checkpoints" / "last"))
    images = module["turned"](ft.data.digits("test").tensors[0]).flatten(1)
    adapted = load_lora(base, read_safetensors(tmp_path / "adapters.safetensors"))
    assert torch.equal(adapted(images), ft.to_module(module["states"]["adapters"])(images))


@pytest.mark.slow
def test_contrastive_pretraining_beats_an_untrained_encoder_by_20_points():
    learned, untrained = zip(*(load("14_contrastive.py")["train"](seed=seed) for seed in SEEDS), strict=True)
    assert over_seeds("contrastive", learned, [found + 0.2 for found in untrained]) < 0.01


@pytest.mark.slow
def test_masked_pretraining_beats_beginning_anew_at_10_labels_a_class():
    pretrained, anew = zip(*(load("15_masked_pretraining.py")["train"](seed=seed) for seed in SEEDS), strict=True)
    assert over_seeds("masked pre-training", pretrained, anew) < 0.01


@pytest.mark.slow
def test_a_student_is_within_a_point_of_its_teacher():
    found = [load("16_distillation.py")["train"](seed=seed)[1] for seed in SEEDS]
    student, teacher = ([accuracy[name] for accuracy in found] for name in ("student", "teacher"))
    assert over_seeds("distillation", [one + 0.01 for one in student], teacher) < 0.01


@pytest.mark.slow
def test_layer_wise_rates_beat_training_anew():
    found = [load("18_fine_tuning.py")["train"](seed=seed)[1] for seed in SEEDS]
    layer_wise, anew = ([accuracy[name] for accuracy in found] for name in ("layer-wise", "anew"))
    assert over_seeds("layer-wise", layer_wise, anew) < 0.01
