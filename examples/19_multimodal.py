"""Spectra and a table: which country is a coffee from?   Usage: python examples/19_multimodal.py [folder]

Scans of 60 coffees meet a table of what preprocessing takes away from them. Five models are tested on the fifth that
they have not seen; the last one is looked into. `folder` gets the runs and a report. (pip install chemotools)
"""

import sys

import torch

import functrain as ft
from functrain.models import TFTMultimodal

EPOCHS, BANDS = 40, 230
ORIGINS, COLUMNS = ft.data.COFFEE_ORIGINS, ("mean", "deviation", "slope", "noise")
objective = ft.weighted_sum(
    {
        "class": ft.term("cross_entropy", output="logits", options={"label_smoothing": 0.1}),
        "spectra": ft.term("cross_entropy", output="aux_logits_spec"),
        "table": ft.term("cross_entropy", output="aux_logits_tab"),
        "contrast": ft.contrastive("spec_projection", "tab_projection", temperature=0.2),
    },
    {"spectra": 0.3, "table": 0.3, "contrast": ft.schedules.warmup(ft.schedules.constant(0.1), 40)},
)


def train(fold, folder=None, seed=0):
    """A model that has not seen a fifth of the spectra, and these, each measured once."""
    loader = ft.data.Loader(ft.data.coffee("train", scans=3, bands=BANDS, fold=fold, seed=seed), 16)
    held_out = ft.data.Loader(ft.data.coffee("val", bands=BANDS, fold=fold, seed=seed), 12, shuffle=False)
    torch.manual_seed(seed)
    model = TFTMultimodal(len(COLUMNS), BANDS, 32, 16, len(ORIGINS), 32, dropout=0.2, attention_weights=True)
    schedule = ft.schedules.cosine(2e-3, total_steps=EPOCHS * len(loader), warmup_steps=20)
    optimizer = ft.optim.adamw(schedule, weight_decay=0.05, weight_decay_mask=ft.optim.no_decay_1d)
    state = ft.init_state(model, objective, optimizer, seed=seed, clip_norm=1.0)
    run_dir = folder and f"{folder}/fold-{fold}"
    return ft.fit(state, loader, epochs=EPOCHS, run_dir=run_dir, compile=False, progress=False).state, held_out


if __name__ == "__main__":
    folder = sys.argv[1] if len(sys.argv) > 1 else "multimodal"
    right = 0
    for fold in range(5):
        state, held_out = train(fold, folder)
        right += int((ft.predict(state, held_out)["logits"].argmax(1) == held_out.dataset.targets).sum())
    print(f"cross-validation: {right} of 60 spectra right, test accuracy {right / 60:.1%}")

    test = ft.data.Loader(ft.data.coffee("val", scans=3, bands=BANDS, fold=4), 12, shuffle=False)
    found = ft.evaluate(state, test, metrics=["accuracy", "modality_consistency", "attention_entropy"])
    print(", ".join(f"{name} {found[name]:.3f}" for name in ("accuracy", "modality_consistency", "attention_entropy")))
    ft.write_report(ft.evaluation_report(state, test, labels=ORIGINS), folder, title="Origin of coffee")
    everything = ft.data.Loader(ft.data.coffee("train", scans=3, bands=BANDS, fold=4), 48, shuffle=False)
    ft.write_observed(ft.observe(state, everything), folder, names=COLUMNS, labels=ORIGINS, with_tsne=True)
    ft.write_explanation(ft.explain(state, next(iter(test)), max_evaluations=200), folder, names=COLUMNS)
    gates = ft.predict(state, everything)["gates"]
    for name, gate in zip(COLUMNS, gates["features"].T, strict=True):
        print(f"gate of {name}: {gate.mean():.2f}, from {gate.min():.2f} to {gate.max():.2f}")
    print(
        f"gate of the spectra: {gates['fusion'].mean():.2f}, a part {(gates['fusion'] > 0.5).float().mean():.0%} open"
    )
