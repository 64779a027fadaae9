"""Population-based training: copies to the bit, factors of the run's key, and a resume that draws the same."""

import pytest
import torch
from member_helpers import largest_difference, member_state
from torch.utils.data import TensorDataset

import functrain as ft
from functrain.loop.events import Event
from functrain.optim import learning_rate

RATES = (0.1, 0.2, 0.3, 0.4, 0.5)


def stacked(**options):
    return ft.stack([member_state(m, optimizer=ft.optim.sgd(rate), **options) for m, rate in enumerate(RATES)])


def after(state, losses, **options):
    return ft.population(**options)(Event("after_epoch", state, metrics={"members": {"eval_loss": losses}}))


@pytest.mark.parametrize(("mode", "best", "worst"), [("min", 1, 3), ("max", 3, 1)])
def test_the_worst_goes_on_from_the_best_with_another_rate(mode, best, worst):
    state = stacked()
    new = after(state, [0.5, 0.1, 0.4, 0.9, 0.3], mode=mode)
    old, found = ft.unstack(state), ft.unstack(new)
    for number in range(5):
        source = best if number == worst else number
        assert all(torch.equal(found[number].params[name], value) for name, value in old[source].params.items())
        assert found[number].key == old[number].key
    rates = learning_rate(new.opt_state)
    assert rates[worst] / RATES[best] in (pytest.approx(0.8), pytest.approx(1.25))
    assert rates[best] == RATES[best]


def test_members_that_have_stopped_or_are_not_finite_are_not_copied_from():
    new = after(stacked(), [None, float("nan"), 0.1, 0.2, 0.3], fraction=0.25)
    old = ft.unstack(stacked())
    assert torch.equal(ft.unstack(new)[1].params["outer.bias"], old[2].params["outer.bias"])
    assert torch.equal(ft.unstack(new)[0].params["outer.bias"], old[0].params["outer.bias"])


def test_other_numbers_are_perturbed_by_name():
    states = [member_state(m, optimizer=ft.optim.sgd(0.1, weight_decay=0.1 * (m + 1))) for m in range(5)]
    new = after(ft.stack(states), [0.5, 0.1, 0.4, 0.9, 0.3], perturb=("weight_decay",), factors=(2.0,))
    assert new.members.values["optimizer.weight_decay"].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert learning_rate(new.opt_state).tolist() == [0.1] * 5
    with pytest.raises(ValueError, match="no number 'momentum'; they differ in weight_decay"):
        after(ft.stack(states), [0.5, 0.1, 0.4, 0.9, 0.3], perturb=("momentum",))


def test_a_stopped_run_draws_the_same(tmp_path):
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(
        torch.randn(40, 6, generator=generator, dtype=torch.float64), torch.randint(3, (40,), generator=generator)
    )
    loader, settings = ft.data.Loader(data, batch_size=8, shuffle=True), {"compile": False, "progress": False}
    rule = ft.population("train_loss")
    whole = ft.fit(stacked(), loader, epochs=4, run_dir=tmp_path / "whole", callbacks=[rule], **settings)
    ft.fit(stacked(), loader, epochs=2, run_dir=tmp_path / "parts", callbacks=[rule], **settings)
    parts = ft.fit(stacked(), loader, epochs=4, run_dir=tmp_path / "parts", callbacks=[rule], **settings)
    assert ft.diff_states(whole.state, parts.state) == []
    alone = ft.fit(stacked(), loader, epochs=4, **settings)
    assert largest_difference(alone.state, whole.state) > 0


def test_bad_arguments_are_refused():
    for options, message in (
        ({"mode": "best"}, "mode must be one of"),
        ({"fraction": 0.5}, "less than 0.5"),
        ({"factors": ()}, "one number at least"),
        ({"factors": (0.0,)}, "greater than 0|> 0"),
        ({"every": 0}, "every must be >= 1"),
    ):
        with pytest.raises(ValueError, match=message):
            ft.population(**options)
    with pytest.raises(ft.errors.FunctrainError, match="for a stack of members"):
        after(member_state(0), [0.1])
