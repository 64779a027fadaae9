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
