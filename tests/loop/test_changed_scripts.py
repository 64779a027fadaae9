"""A script that was changed since the run began: a resume names what differs, and says nothing where nothing does."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from loop_helpers import make_loader, quick_fit
from torch import nn
from torch.utils.data import DataLoader, Dataset

import functrain as ft
from functrain.loop.resume.changes import changes
from functrain.loop.resume.describing import describe, describe_modules, describe_samples
from functrain.loop.resume.programs import Programs

FIRST = {"steps": 2, "save_every": 1}


class Noisy:
    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.scale * torch.randn(4)


class Samples(Dataset):
    def __init__(self, transform: Any) -> None:
        self.transform = transform
        self.reads = 0

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        self.reads += 1
        return self.transform(torch.full((4,), float(index))), torch.tensor(index % 3)


def make(
    dropout: float = 0.1,
    weight_decay: float = 0.01,
    smoothing: float = 0.0,
    noise: float = 0.1,
    clip: float = 1.0,
    schedule: int = 50,
) -> tuple[ft.TrainState, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(dropout), nn.Linear(8, 3))
    optimizer = ft.optim.adamw(ft.schedules.cosine(0.1, schedule), weight_decay=weight_decay)
    chain = ft.optim.chain(ft.optim.clip_by_value(clip), optimizer)
    state = ft.init_state(model, ft.classification(label_smoothing=smoothing), chain)
    return state, DataLoader(Samples(Noisy(noise)), batch_size=4, shuffle=True, num_workers=1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"dropout": 0.3},
            r"of the model, 1 was Dropout\(p=0.1, inplace=False\) and is Dropout\(p=0.3, inplace=False\)",
        ),
        ({"weight_decay": 0.5}, "of the optimizer, weight_decay was 0.01 and is 0.5: updates are made in another way"),
        ({"weight_decay": 0.0}, "of the optimizer, weight_decay was 0.01 and is absent"),
        ({"smoothing": 0.1}, "of the objective, label_smoothing was absent and is 0.1: another loss is minimised"),
        ({"noise": 0.2}, "of the samples, scale was 0.1 and is 0.2: other batches give other updates"),
        ({"clip": 2.0}, "of the optimizer, .* was 1.0 and is 2.0"),
        ({"schedule": 60}, "of the optimizer, decay_steps was 50 and is 60"),
    ],
)
def test_a_resume_names_what_was_changed_in_the_script(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    state, loader = make()
    quick_fit(state, loader, run_dir=tmp_path, **FIRST)
    quick_fit(*make(), run_dir=tmp_path, steps=3)  # the same script says nothing: warnings are errors here
    with pytest.raises(ft.ResumeRefusedError, match=said):
        quick_fit(*make(**change), run_dir=tmp_path, steps=4, strict_resume=True)
    with pytest.warns(ft.ResumeWarning, match=f"not bit-for-bit because {said}") as caught:
        quick_fit(*make(**change), run_dir=tmp_path, steps=3)  # over already, but the script is another one
    assert len(caught) == 1


def test_code_of_the_users_own_is_compared(tmp_path: Path) -> None:
    def one(model: Any, batch: Any) -> ft.Loss:
        return ft.Loss(model(batch[0]).square().sum(), len(batch[0]))

    def other(model: Any, batch: Any) -> ft.Loss:
        return ft.Loss(model(batch[0]).abs().sum(), len(batch[0]))

    def state(objective: Any) -> ft.TrainState:
        return ft.init_state(nn.Linear(4, 3), objective, ft.optim.sgd(0.1))

    other.__qualname__ = one.__qualname__
    quick_fit(state(one), make_loader(), run_dir=tmp_path, **FIRST)
    with pytest.warns(ft.ResumeWarning, match="of the objective, the code of the function has changed"):
        quick_fit(state(other), make_loader(), run_dir=tmp_path, steps=3)


def test_any_of_several_learning_rates_is_taken_over_and_said(tmp_path: Path) -> None:
    def state(rate: float) -> ft.TrainState:
        torch.manual_seed(0)
        groups = {"0.*": ft.optim.sgd(0.1), "*": ft.optim.sgd(rate)}
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
        return ft.init_state(model, ft.classification(), ft.optim.partition(groups))

    quick_fit(state(0.2), make_loader(), run_dir=tmp_path, **FIRST)
    with pytest.warns(ft.ResumeWarning, match=r"lr was 0.2 and is 0.3: training goes on with the new one"):
        result = quick_fit(state(0.3), make_loader(), run_dir=tmp_path, steps=3)
    assert [float(rate) for rate in ft.optim.learning_rates(result.state.opt_state)] == [0.1, 0.3]


def test_what_has_no_name_shows_in_the_compiled_step(tmp_path: Path) -> None:
    hidden = SimpleNamespace(scale=1.0)
    number = {"scale": hidden}

    class Hiding(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * sys.modules["hidden_settings"].scale  # type: ignore[attr-defined]

    def state() -> ft.TrainState:
        torch.manual_seed(0)
        return ft.init_state(Hiding(4, 3), ft.classification(), ft.optim.sgd(0.1))

    options = {"compile": True, "backend": "eager", "run_dir": tmp_path}
    sys.modules["hidden_settings"] = number["scale"]  # type: ignore[assignment]
    try:
        quick_fit(state(), make_loader(), **options, **FIRST)
        quick_fit(state(), make_loader(), **options, steps=3)
        hidden.scale = 2.0
        with pytest.raises(ft.ResumeRefusedError, match="the compiled update step computes something else than before"):
            quick_fit(state(), make_loader(), **options, steps=4, strict_resume=True)
        with pytest.warns(ft.ResumeWarning, match="the compiled update step computes something else than before"):
            quick_fit(state(), make_loader(), **options, steps=4)
    finally:
        del sys.modules["hidden_settings"]


def test_another_engine_is_named(tmp_path: Path) -> None:
    options = {"compile": True, "backend": "aot_eager", "run_dir": tmp_path}
    state = make()[0]
    first = quick_fit(state, make_loader(), **options, **FIRST, engine="torch")
    torch.testing.assert_close(first.state.params, quick_fit(state, make_loader(), steps=2).state.params)
    said = "compile was aot_eager/default/torch and is aot_eager/default"
    with pytest.raises(ft.ResumeRefusedError, match=said):
        quick_fit(state, make_loader(), **options, steps=3, strict_resume=True)
    with pytest.warns(ft.ResumeWarning, match=said):
        quick_fit(state, make_loader(), **options, steps=3)


def test_other_patches_of_the_compiler_are_named() -> None:
    before = {"update made 1": "package, patches: a, b", "update recorded 1": "digest"}
    programs = Programs(before)
    programs("update recorded 1", "digest")
    programs("update made 1", "package, patches: a, b")
    said = r"the update step is compiled by other means.*\(was: package, patches: a, b; is: torch.compile\)"
    with pytest.warns(ft.ResumeWarning, match=said):
        programs("update made 1", "torch.compile")
    with pytest.raises(ft.ResumeRefusedError, match=said):
        Programs(before, strict=True)("update made 1", "torch.compile")


def test_a_finished_run_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, loader = make()
    for _ in range(2):
        quick_fit(state, loader, run_dir=tmp_path, epochs=1, progress=None)
    said = 'already finished (step 2, after epoch 1): nothing to train. resume="never" starts afresh\n'
    assert capsys.readouterr().err.endswith(said)


SCRIPT = """
import json, sys
from functools import partial
import torch
from torch import nn
import functrain as ft
from functrain.loop.resume.describing import describe, describe_modules

ALLOWED = {"a", "b", "c", "d"}


def helper(x):
    return x in {"p", "q", "r", "s"}


class Transform:
    def __init__(self):
        self.names, self.root = {"x", "y", "z"}, sys.argv[1]
        self.parts = [helper, partial(helper, x=3), object()]

    def __call__(self, x):
        return helper(x), ALLOWED


mask = lambda path, leaf: path in {"u", "v", "w"} or helper(path)
found = [describe(ft.optim.adamw(ft.schedules.cosine(0.1, 9), weight_decay_mask=mask)), describe(Transform())]
found += [describe(ft.classification(class_weights=(1.0, 2.0))), describe_modules([("", nn.LSTM(2, 3, dropout=0.5))])]
print(json.dumps(found))
"""


def test_a_description_is_the_same_in_another_process_and_directory(tmp_path: Path) -> None:
    found = []
    for number in ("1", "2"):
        (tmp_path / number).mkdir()
        (tmp_path / number / "script.py").write_text(SCRIPT)
        environment = {**os.environ, "PYTHONHASHSEED": number, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "script.py", str(tmp_path / number)]
        done = subprocess.run(
            command, cwd=tmp_path / number, env=environment, capture_output=True, text=True, check=True
        )
        found.append(done.stdout)
    assert found[0] == found[1]
    assert len(found[0]) > 1000


def test_where_data_lie_and_what_was_read_is_no_change_of_the_samples() -> None:
    before, now = Samples(Noisy(0.1)), Samples(Noisy(0.1))
    now.reads, now.root, now.cached = 7, "elsewhere", True  # type: ignore[attr-defined]
    assert describe_samples(before, None) == describe_samples(now, None)
    assert changes(describe_samples(before, None), describe_samples(Samples(Noisy(0.2)), None)) == [
        "scale was 0.1 and is 0.2"
    ]


def test_any_value_has_a_description_that_json_holds_and_that_equals_itself() -> None:
    def uses(**values: Any) -> Any:
        return lambda: values

    odd = [math.nan, math.inf, 1j, b"x", np.float32("nan"), np.datetime64("2026-01-01"), np.longdouble(1) / 3, {1, "a"}]
    odd += [torch.ones(2, dtype=torch.bfloat16), np.array([object()]), type, len, sys, {"a": {None: object()}}, [[[]]]]
    odd.append(odd)
    found = [describe(uses(odd=odd)) for _ in range(2)]
    assert json.loads(json.dumps(found[0])) == found[1]
    assert changes(*found) == []


def test_a_description_tells_what_is_configured() -> None:
    assert changes(describe(ft.optim.sgd(0.1, momentum=0.9)), describe(ft.optim.sgd(0.1, momentum=0.8))) == [
        "momentum was 0.9 and is 0.8"
    ]
    networks = [nn.Sequential(nn.BatchNorm1d(2, eps=eps)) for eps in (1e-5, 1e-3)]
    (said,) = changes(*(describe_modules(network.named_modules()) for network in networks))
    assert said.startswith("0 was BatchNorm1d(num_features=2, eps=1e-05")
    assert changes(describe(make), describe(make)) == []


def test_functions_of_functrain_may_move_to_other_modules() -> None:
    found = describe(ft.optim.sgd(0.1))
    own = {path: name for path, name in found.items() if isinstance(name, str)}
    assert own
    assert all(name.startswith("functrain:") for name in own.values())
    elsewhere = {path: name.replace("functrain:", "functrain.another.module.") for path, name in own.items()}
    assert changes(found | elsewhere, found) == []  # as checkpoints of functrain 0.1 have it
    other = {path: f"{name}_other" for path, name in elsewhere.items()}
    assert changes(found | other, found) != []
