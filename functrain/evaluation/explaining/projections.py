"""Embeddings in two dimensions: principal components, and t-SNE."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
PERPLEXITY = 30.0
LEAST = 4  # examples of t-SNE


class Projection(NamedTuple):
    """Points and what they show of the whole.

    Attributes:
        points: `[N, components]`.
        explained: of each component, its part of the variance, from the largest on; empty for t-SNE.
    """

    points: Numbers
    explained: Numbers


def pca(embedding: Numbers, components: int = 2) -> Projection:
    """Principal components, from the singular values of the centred embedding.

    The sign of a component is such that its largest weight is positive.

    Args:
        embedding: `[N, D]`.
        components: how many; the parts of the variance are of all there are.

    Raises:
        ValueError: for less than two examples, fewer dimensions than components, or values that are not finite.

    Example:
        >>> found = pca(np.array([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]]), 1)
        >>> found.points.round(3).ravel().tolist(), found.explained.round(3).tolist()
        ([-2.236, 0.0, 2.236], [1.0, 0.0])
    """
    _check(embedding, 2)
    if not 1 <= components <= embedding.shape[1]:
        raise ValueError(f"components must be 1 to {embedding.shape[1]}, the embedding's size; got {components}")
    centred = embedding.astype(np.float64) - embedding.mean(0, dtype=np.float64)
    left, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    largest = directions[np.arange(len(directions)), np.abs(directions).argmax(1)]
    points = left * sizes * np.where(largest < 0, -1.0, 1.0)
    variance = sizes**2
    total = variance.sum()
    if points.shape[1] < components:  # of few examples
        points = np.pad(points, ((0, 0), (0, components - points.shape[1])))
    return Projection(points[:, :components], variance / total if total else np.zeros_like(variance))


def tsne(embedding: Numbers, *, perplexity: float | None = None, seed: int = 0) -> Projection:
    """t-SNE, begun with the principal components.

    Args:
        embedding: `[N, D]`.
        perplexity: about the number of neighbours that count, below N; default: 30, and of fewer than 91 examples
            (N - 1) / 3.
        seed: of the optimisation.

    Raises:
        ValueError: for fewer than 4 examples, a perplexity that does not fit, or values that are not finite.
        ModuleNotFoundError: without scikit-learn.

    References:
        van der Maaten and Hinton 2008, "Visualizing Data using t-SNE".
    """
    _check(embedding, LEAST)
    if perplexity is None:
        perplexity = min(PERPLEXITY, (len(embedding) - 1) / 3)
    if not 0 < perplexity < len(embedding):
        raise ValueError(f"perplexity must be above 0 and below {len(embedding)}, the examples; got {perplexity}")
    make = _tsne_class()
    init = "pca" if embedding.shape[1] >= 2 else "random"
    found = make(2, perplexity=perplexity, init=init, random_state=seed).fit_transform(embedding.astype(np.float32))
    return Projection(found.astype(np.float64), np.empty(0))


def _tsne_class() -> Any:
    """scikit-learn's t-SNE.

    Raises:
        ModuleNotFoundError: if it is not installed.
    """
    try:
        from sklearn.manifold import TSNE
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "t-SNE is scikit-learn's, which is not installed. Run: pip install 'functrain[embeddings]'"
        ) from error
    return TSNE


def check_tsne() -> None:
    """Refuse t-SNE without scikit-learn, before the work that it would show is done.

    Raises:
        ModuleNotFoundError: without it.
    """
    _tsne_class()


def _check(embedding: Numbers, least: int) -> None:
    if embedding.ndim != 2 or len(embedding) < least:
        raise ValueError(f"an embedding of at least {least} examples, [N, D], is needed; got {list(embedding.shape)}")
    if not np.isfinite(embedding).all():
        raise ValueError("the embedding has values that are not finite, so nothing can be made of it")
