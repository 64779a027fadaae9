"""Memory of one update on each rank, as it is and as `plan` says: `python planning_process.py RANKS,CASE,FOLDER ...`.

With RANKS 0 it is the plan's; the others measure: the bytes of the state at rest, and by torch's profiler, which hears
of each allocation and each release of the CPU's allocator, the most that is taken in an update.
"""

import dataclasses
import gc
import json
import sys
from pathlib import Path

import torch
from forked_ranks import main
from torch import nn

import functrain as ft
from functrain.diagnostics.fake_ranks import fake_world
from functrain.diagnostics.planning import micro_batches_of, plan
from functrain.distributed import current_world, replicate
from functrain.foundation.trees import nbytes
from functrain.models import GPT

CHANNELS = 32


def of_mlp(rows):
    layers = [layer for _ in range(4) for layer in (nn.Linear(256, 256), nn.ReLU())]
    state = ft.init_state(nn.Sequential(*layers), ft.regression(), ft.optim.adamw(1e-3), accumulate=8, clip_norm=1.0)
    return state, (torch.ones(rows, 256), torch.ones(rows, 256))


def of_cnn(rows):
    layers = nn.Conv2d(3, CHANNELS, 3), nn.BatchNorm2d(CHANNELS), nn.ReLU(), nn.Conv2d(CHANNELS, 64, 3), nn.ReLU()
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 16))
    average = ft.optim.ema(0.9)
    state = ft.init_state(net, ft.classification(), ft.optim.sgd(0.1, momentum=0.9), accumulate=4, ema=average)
    return state, (torch.ones(rows, 3, 16, 16), torch.zeros(rows, dtype=torch.long))


def of_gpt(rows):
    net = GPT(vocabulary=256, length=64, width=128, layers=4, heads=4)
    state = ft.init_state(net, ft.language_modelling(), ft.optim.adamw(1e-3), accumulate=4)
    tokens = torch.zeros(rows, 64, dtype=torch.long)
    return state, (tokens, tokens)


MODELS = {"mlp": of_mlp, "cnn": of_cnn, "gpt": of_gpt}
ROWS = 16  # of a micro-batch on each process


def kept(state, strategy, reduction):
    if (strategy, reduction) == ("ddp", "fast") and state.recipe.accumulate == 1:
        return replicate(state, current_world())
    return ft.shard(state, strategy=strategy, reduction=reduction)


def measured(model, strategy, reduction):
    """The profiler listens from the beginning, so that it hears of each release; the peak is the least of 3 updates.

    A thread of gloo may hold the memory of a message for a moment longer than the step does.
    """
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        state, batch = MODELS[model](ROWS)
        state = kept(state, strategy, reduction)
        at_rest, count = nbytes(state), micro_batches_of(state)
        gc.collect()
        for _ in range(3):
            with torch.profiler.record_function("an update"):
                for number in range(count):
                    state, _ = ft.train_step(state, batch, end_window=number == count - 1)
    assert state.step == 3
    events = sorted(profile.profiler.kineto_results.events(), key=lambda each: each.start_ns())
    now, peaks = 0, []
    for each in events:
        if each.name() == "an update":
            peaks.append(0)
        elif each.name() == "[memory]":
            now += each.nbytes()
            peaks[-1:] = [max(peak, now) for peak in peaks[-1:]]
    return {"at_rest": at_rest, "peak": min(peaks)}


def run(model, strategy, reduction, folder):
    found = measured(model, strategy, reduction)
    world = current_world()
    Path(folder, f"{model}.{strategy}.{reduction}.{world.size}.{world.rank}").write_text(json.dumps(found))


def planned(model, strategy, reduction, ranks):
    """What `plan` says of the same run."""
    state, batch = MODELS[model](ROWS)
    with fake_world(ranks):
        found = plan(
            state,
            lambda state: kept(state, strategy, reduction),
            lambda _: (batch, ROWS),
            world=ranks,
        )
    return {
        "at_rest": found.memory.state,
        "peak": found.memory.step,
        "flops": found.flops,
        "sent": [dataclasses.asdict(each) for each in found.sent],
    }


if __name__ == "__main__":
    if sys.argv[1] == "plan":
        found = {}
        for case in sys.argv[2:]:
            ranks, model, strategy, reduction, *_ = case.split(",")
            found[f"{model}.{strategy}.{reduction}.{ranks}"] = planned(model, strategy, reduction, int(ranks))
        print(json.dumps(found))
    else:
        main(run)
