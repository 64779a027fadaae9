"""Models of PEFT (small additions to a frozen model) and of diffusers."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
import transformers_models
from measuring import Case
from torch import Tensor, nn

import functrain as ft


def peft(kind: str, base: str, make: Callable[[Any], Any]) -> Case:
    """A model of transformers of which PEFT trains a part."""
    whole = transformers_models.case(kind, base)

    def build() -> tuple[nn.Module, Any]:
        import peft

        model, batch = whole.build()
        return peft.get_peft_model(model, make(peft)), batch

    return dataclasses.replace(whole, library="peft", build=build)


def diffusion(make: Callable[[Any], nn.Module], inputs: dict[str, Any]) -> Case:
    """A model of diffusers whose output has the shape of its first input."""

    def build() -> tuple[nn.Module, Any]:
        import diffusers

        return make(diffusers), {"inputs": inputs, "targets": next(iter(inputs.values())) * 0.5}

    return Case(
        library="diffusers",
        build=build,
        objective=ft.regression(output="sample"),
        loss=lambda model, batch: F.mse_loss(model(**batch["inputs"]).sample, batch["targets"]),
    )


def _noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def cases() -> dict[str, Case]:
    """All of them, by name."""
    attention = ["q_proj", "v_proj"]
    time = torch.tensor([1, 7])
    blocks = {"block_out_channels": (16, 16), "layers_per_block": 1, "norm_num_groups": 4}
    return {
        "peft LoRA of Llama": peft(
            "causal",
            "LlamaForCausalLM",
            lambda p: p.LoraConfig(r=4, target_modules=attention, lora_dropout=0.1),
        ),
        "peft DoRA of Llama": peft(
            "causal", "LlamaForCausalLM", lambda p: p.LoraConfig(r=4, target_modules=attention, use_dora=True)
        ),
        "peft LoRA of BERT": peft(
            "classes", "BertForSequenceClassification", lambda p: p.LoraConfig(r=4, task_type="SEQ_CLS")
        ),
        "peft LoRA of T5": peft(
            "sequence-to-sequence",
            "T5ForConditionalGeneration",
            lambda p: p.LoraConfig(r=4, task_type="SEQ_2_SEQ_LM"),
        ),
        "peft IA3 of Llama": peft(
            "causal",
            "LlamaForCausalLM",
            lambda p: p.IA3Config(target_modules=[*attention, "down_proj"], feedforward_modules=["down_proj"]),
        ),
        "peft prompts of GPT2": peft(
            "causal", "GPT2LMHeadModel", lambda p: p.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
        ),
        "diffusers UNet2DModel": diffusion(
            lambda d: d.UNet2DModel(
                sample_size=16,
                down_block_types=("DownBlock2D", "AttnDownBlock2D"),
                up_block_types=("AttnUpBlock2D", "UpBlock2D"),
                attention_head_dim=4,
                **blocks,
            ),
            {"sample": _noise(2, 3, 16, 16), "timestep": time},
        ),
        "diffusers UNet2DConditionModel": diffusion(
            lambda d: d.UNet2DConditionModel(
                sample_size=16,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                cross_attention_dim=16,
                attention_head_dim=4,
                **blocks,
            ),
            {"sample": _noise(2, 4, 16, 16), "timestep": time, "encoder_hidden_states": _noise(2, 5, 16)},
        ),
        "diffusers AutoencoderKL": diffusion(
            lambda d: d.AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, **blocks
            ),
            {"sample": _noise(2, 3, 16, 16)},
        ),
        "diffusers DiTTransformer2DModel": diffusion(
            lambda d: d.DiTTransformer2DModel(
                num_attention_heads=2,
                attention_head_dim=8,
                in_channels=4,
                num_layers=2,
                sample_size=8,
                norm_num_groups=4,
            ),
            {"hidden_states": _noise(2, 4, 8, 8), "timestep": time, "class_labels": time},
        ),
    }
