"""All models of the zoo, by name."""

import adapted_models
import graph_models
import transformers_models
import vision_models
from measuring import Case

CASES: dict[str, Case] = {
    **adapted_models.cases(),
    **vision_models.cases(),
    **transformers_models.cases(),
    **graph_models.cases(),
}

# Small ones of every library and kind: inductor takes a minute for each.
BY_INDUCTOR = [
    "torch_geometric GraphSAGE",
    "OPTForCausalLM",
    "torchvision VisionTransformer",
    "torch_geometric GIN",
    "CamembertForMaskedLM",
    "torch_geometric TransformerConv",
    "DogeForCausalLM",
    "timm vit_tiny_patch16_224",
    "torch_geometric GraphConv",
    "GPTNeoXForCausalLM",
    "DeiTForImageClassification",
    "torch_geometric EdgeCNN",
    "BloomForCausalLM",
    "torchvision ConvNeXt",
    "torch_geometric GENConv",
    "GemmaForCausalLM",
    "ElectraForSequenceClassification",
    "torch_geometric ARMAConv",
    "MptForCausalLM",
    "torchvision FCN",
    "BartForCausalLM",
    "FalconForCausalLM",
    "XLNetLMHeadModel",
    "MixtralForCausalLM",
    "peft LoRA of Llama",
    "BertForSequenceClassification",
    "LlamaForCausalLM",
    "GPT2LMHeadModel",
    "T5ForConditionalGeneration",
    "MambaForCausalLM",
]
