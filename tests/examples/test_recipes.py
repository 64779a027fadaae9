"""The claims of the recipes; the quick form of each, and with 20 seeds."""

import functools
import runpy
import sys

import pytest
import torch
from recipes import FOLDER, SEEDS, load, p_value

import functrain as ft
from functrain.step.execution import eager


@pytest.fixture
def short(monkeypatch):
    """Make `fit` train for so many epochs, silently."""

    def shorten(epochs):
        fit = ft.fit
        few = {"epochs": epochs, "progress": False}
        monkeypatch.setattr(ft, "fit", lambda state, loader, **options: fit(state, loader, **{**options, **few}))

    return shorten


def drawn_digits(tmp_path, monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["10_gan.py", str(tmp_path), *arguments])
    runpy.run_path(str(FOLDER / "10_gan.py"), run_name="__main__")
    return float(capsys.readouterr().out.rpartition(" ")[2].rstrip("%\n"))


def test_a_gan_goes_on_where_it_ended(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ft, "compile", lambda step: functools.partial(step, run=eager))
    drawn_digits(tmp_path, monkeypatch, capsys, "1")
    for _ in range(2):
        drawn_digits(tmp_path, monkeypatch, capsys, "2")
        assert ft.Checkpointer(tmp_path).names() == ["step-00000016", "step-00000032"]


@pytest.mark.slow
def test_real_digits_are_read_by_the_nearest_drawn_one(tmp_path, monkeypatch, capsys):
    assert drawn_digits(tmp_path, monkeypatch, capsys) >= 80.0


def test_a_policy_learns_to_keep_the_pole_up_for_50_moves(short):
    short(1)
    train = load("13_reinforce.py")["train"]
    train.__globals__["LONGEST"] = 50
    before, after = train(seed=2)
    assert before < 15.0
    assert after >= 45.0


@pytest.mark.slow
def test_a_policy_keeps_the_pole_up_to_the_end_with_each_of_20_seeds(short):
    short(10)
    train = load("13_reinforce.py")["train"]
    assert min(train(seed=seed)[1] for seed in SEEDS) >= 195.0


def test_each_patient_is_tested_once_and_no_fold_has_seen_its_own(short, monkeypatch):
    short(1)
    fitted, fit = [], ft.fit
    monkeypatch.setattr(
        ft, "fit", lambda state, loader, **options: fitted.append(loader) or fit(state, loader, **options)
    )
    labels, logits, folds = load("12_cross_validation.py")["cross_validate"]()
    assert logits.ne(0).all()
    assert torch.bincount(folds).tolist() == [114, 114, 114, 114, 113]
    for fold, loader in enumerate(fitted):
        values, seen = loader.dataset.tensors
        assert len(seen) == (folds != fold).sum()
        assert seen.sum() == labels[folds != fold].sum()
        torch.testing.assert_close(values.mean(0), torch.zeros(30), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_five_folds_estimate_the_accuracy_more_closely_than_one(short):
    short(15)
    cross_validate, of_one, of_all = load("12_cross_validation.py")["cross_validate"], [], []
    for seed in SEEDS:
        labels, logits, folds = cross_validate(seed=seed)
        right = ((logits > 0) == labels).double()
        of_one.append(right[folds == 0].mean().item())
        of_all.append(right.mean().item())
    expected = sum(of_all) / len(of_all)
    errors = [[abs(found - expected) for found in each] for each in (of_one, of_all)]
    assert p_value(*errors) < 0.01


def test_a_curriculum_chooses_the_rows_of_each_epoch_by_their_length():
    lengths = torch.arange(2400) % 24 + 1
    sampler = load("11_curriculum.py")["Curriculum"](lengths, 1)
    for epoch, longest in ((0, 1), (5, 6), (23, 24), (40, 24)):
        sampler.set_epoch(epoch)
        drawn = lengths[list(sampler)]
        assert len(drawn) == len(sampler)
        assert sorted(set(drawn.tolist())) == list(range(1, longest + 1))


@pytest.mark.slow
def test_with_a_curriculum_the_parity_of_long_rows_is_learned_and_without_it_is_not(short):
    short(50)
    module = load("11_curriculum.py")
    growing, longest = ([module["train"](shortest, seed=seed) for seed in SEEDS] for shortest in (1, module["LONGEST"]))
    assert p_value(growing, longest) < 0.01


@pytest.mark.slow
def test_one_network_for_two_tasks_is_within_two_points_of_two_networks(short):
    short(20)
    train = load("03_multi_task.py")["train"]
    both = [train(seed=seed) for seed in SEEDS]
    for task, metric in (("digit", "eval_accuracy"), ("even", "eval_even_accuracy")):
        alone = [train((task,), seed=seed)[metric] for seed in SEEDS]
        assert p_value([found[metric] + 0.02 for found in both], alone) < 0.01


def test_balanced_batches_and_a_tuned_threshold_are_compared(short):
    short(1)
    module = load("06_imbalanced.py")
    states, loaders = module["train"]()
    for state in states.values():
        assert all(0.0 <= found <= 1.0 for found in module["f1"](state, loaders))


@pytest.mark.slow
def test_balanced_batches_with_a_tuned_threshold_have_a_higher_f1_than_neither(short):
    short(20)
    module, both, neither = load("06_imbalanced.py"), [], []
    for seed in SEEDS:
        states, loaders = module["train"](seed=seed)
        neither.append(module["f1"](states["plain"], loaders)[0])
        both.append(module["f1"](states["balanced"], loaders)[1])
    assert p_value(both, neither) < 0.01


def test_a_private_network_repeats_no_wrong_label_within_its_budget():
    pytest.importorskip("opacus")
    accuracy, repeated, epsilon = load("20_private_training.py")["train"](True, steps=80)
    assert accuracy > 0.6
    assert repeated < 0.05
    assert 7.9 < epsilon <= 8.0


@pytest.mark.slow
def test_private_networks_repeat_fewer_wrong_labels_than_ordinary_ones():
    pytest.importorskip("opacus")
    train = load("20_private_training.py")["train"]
    ordinary, private = ([train(kind, seed=seed)[1] for seed in SEEDS] for kind in (False, True))
    assert p_value(ordinary, private) < 0.01


def test_an_ensemble_has_a_loss_of_at_most_the_mean_of_its_members():
    found = load("21_deep_ensemble.py")["train"](epochs=3)
    assert len(found.members) == 8
    assert found.ensemble["loss"] <= sum(member["loss"] for member in found.members) / 8
    assert found.uncertainty["model"] > 0


@pytest.mark.slow
def test_ensembles_are_more_accurate_than_their_members_on_average():
    train, ensembles, members = load("21_deep_ensemble.py")["train"], [], []
    for seed in SEEDS:
        found = train(seed=seed)
        ensembles.append(found.ensemble["accuracy"])
        members.append(sum(member["accuracy"] for member in found.members) / 8)
    print(
        f"ensembles {sum(ensembles) / 20:.4f}, members {sum(members) / 20:.4f}, p = {p_value(ensembles, members):.2g}"
    )
    assert p_value(ensembles, members) < 0.01
