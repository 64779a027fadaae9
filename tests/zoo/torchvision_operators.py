"""Stand-ins for torchvision's own operators, for where its wheel cannot load them.

The wheel is built against torch with CUDA; beside a torch for CPUs its library of operators does not load, and even the
import of torchvision fails. Defined before that import, these let its models be built and trained.
"""

import importlib.util

import torch
from torch import Tensor

_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")


def define() -> None:
    """Define what is missing. Call it before torchvision, timm or transformers is imported."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.submodule_search_locations is None or _loads(spec.submodule_search_locations[0]):
        return
    for name in ("nms", "qnms"):
        _LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _LIBRARY.impl("nms", _nms, "CPU")
    import torchvision
    from torchvision.ops import roi_align

    torchvision.extension._has_ops = lambda: True  # which its operators ask before each call

    align = roi_align.__globals__  # torchvision compiles its Python version of the operator; plain Python will do
    align["_roi_align"] = getattr(align["_roi_align"], "__wrapped__", align["_roi_align"])


def _loads(folder: str) -> bool:
    try:
        torch.ops.load_library(f"{folder}/_C.so")
    except OSError:
        return False
    return True


def _nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Non-maximum suppression: the best box, then the best of those that do not overlap it too much, and so on."""
    from torchvision.ops import box_iou

    order = scores.argsort(descending=True)
    overlaps = box_iou(boxes, boxes) > iou_threshold
    kept: list[Tensor] = []
    while len(order):
        kept.append(order[0])
        order = order[1:][~overlaps[order[0], order[1:]]]
    return torch.stack(kept) if kept else order
