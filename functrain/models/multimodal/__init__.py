"""Networks for spectra of several scans together with a table."""

from functrain.models.multimodal.attention_multimodal import AttentionMultimodal as AttentionMultimodal
from functrain.models.multimodal.attention_multimodal import EncodedMultimodal as EncodedMultimodal
from functrain.models.multimodal.attention_multimodal import attention_multimodal as attention_multimodal
from functrain.models.multimodal.fusion import CrossModalAttention as CrossModalAttention
from functrain.models.multimodal.fusion import GatedFusion as GatedFusion
from functrain.models.multimodal.spectra_encoder import SpectraTFTEncoder as SpectraTFTEncoder
from functrain.models.multimodal.table_encoder import TabularStaticEncoder as TabularStaticEncoder
from functrain.models.multimodal.tft_loss import TFTLoss as TFTLoss
from functrain.models.multimodal.tft_multimodal import TFTMultimodal as TFTMultimodal
