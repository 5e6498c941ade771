"""Which pairs of photographs are worth matching? All of few; of many, those that look alike."""

import itertools

import numpy as np
from jaxtyping import Float, Integer, UInt8

# Up to so many photographs every pair is matched: 3,160 pairs, minutes on two cores.
MAX_EXHAUSTIVE = 80
# Photographs that follow one another by name overlap in films and walks around an object.
_NEIGHBOURS = 8
# Photographs that look most alike, over which loops close.
_NUM_ALIKE = 24
# Visual words, and descriptors that they are learnt from.
_NUM_WORDS = 64
_NUM_LEARNT = 20_000
_LLOYD_STEPS = 8


def pairs_to_match(
    descriptors: list[UInt8[np.ndarray, "_ 128"]], seed: int = 0
) -> list[tuple[int, int]]:
    """Pairs of indices, the smaller first, sorted.

    Args:
        descriptors: SIFT descriptors of each photograph, in the order of the names.
        seed: Of the visual words.
    """
    count = len(descriptors)
    if count <= MAX_EXHAUSTIVE:
        return list(itertools.combinations(range(count), 2))
    likeness = _likeness(_aggregated(descriptors, seed))
    pairs = {(i, j) for i in range(count) for j in range(i + 1, min(count, i + 1 + _NEIGHBOURS))}
    for i in range(count):
        nearest = np.argsort(-likeness[i])[:_NUM_ALIKE].tolist()
        pairs |= {(min(i, j), max(i, j)) for j in nearest}
    return sorted(pairs)


def _likeness(vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n n"]:
    """Cosines, with every photograph most unlike itself."""
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    return cosines


def _aggregated(
    descriptors: list[UInt8[np.ndarray, "_ 128"]], seed: int
) -> Float[np.ndarray, "n d"]:
    """Vectors of locally aggregated descriptors (Jegou et al. 2010), residuals of unit length each.

    The words are learnt from the capture itself, so no vocabulary has to be there.
    """
    generator = np.random.default_rng(seed)
    every = np.concatenate(descriptors)
    chosen = generator.permutation(len(every))[:_NUM_LEARNT]
    words = _words(every[chosen].astype(np.float32))
    vectors = np.zeros((len(descriptors), words.size), np.float32)
    for i, values in enumerate(descriptors):
        if len(values) == 0:
            continue
        values = values.astype(np.float32)
        nearest = _nearest(values, words)
        residuals = values - words[nearest]
        residuals /= np.linalg.norm(residuals, axis=1, keepdims=True).clip(1e-6)
        sums = np.zeros_like(words)
        np.add.at(sums, nearest, residuals)
        sums = np.sign(sums) * np.sqrt(np.abs(sums))
        vectors[i] = (sums / max(float(np.linalg.norm(sums)), 1e-6)).ravel()
    return vectors


def _words(values: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "k d"]:
    """Centres by Lloyd's algorithm, from the first of the values; idle ones stay where they are."""
    words = values[:_NUM_WORDS].copy()
    for _ in range(_LLOYD_STEPS):
        nearest = _nearest(values, words)
        counts = np.bincount(nearest, minlength=len(words))
        sums = np.zeros_like(words)
        np.add.at(sums, nearest, values)
        words = np.where(counts[:, None] > 0, sums / counts.clip(1)[:, None], words)
        words = words.astype(np.float32)
    return words


def _nearest(
    values: Float[np.ndarray, "n d"], words: Float[np.ndarray, "k d"]
) -> Integer[np.ndarray, " n"]:
    return np.argmin((words**2).sum(1) - 2.0 * values @ words.T, axis=1)
