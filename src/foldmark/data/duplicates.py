"""The same picture under two names: byte for byte, or alike to the eye."""

import numpy as np

from foldmark.data.inspection import HASH_SIDE, Sight

# Bits of 256 in which two pictures may differ and still count as one photo. On the 5,132 pictures of the 300-W subset all 49
# such pairs were one photo, rescaled, cropped or captioned anew; the first two strangers came at 42.
ALIKE_BITS = 40


def same_bytes(sights: list[Sight]) -> list[tuple[int, int]]:
    """Pairs (first, other) of picture numbers whose files hold the same bytes."""
    first, pairs = {}, []
    for number, sight in enumerate(sights):
        if sight.digest and first.setdefault(sight.digest, number) != number:
            pairs.append((first[sight.digest], number))
    return pairs


def alike(sights: list[Sight]) -> list[tuple[int, int]]:
    """Pairs (lower, higher) of picture numbers that look the same, as they are or mirrored. Blank and damaged pictures look
    like nothing."""
    seen = np.array([number for number, sight in enumerate(sights) if sight.bits is not None and not sight.blank], dtype=int)
    if len(seen) < 2:
        return []
    # As +1 and -1, the product of two hashes counts agreeing bits less differing ones: one matrix product for all pairs.
    plain, mirrored = (
        np.stack([getattr(sights[number], name) for number in seen]).astype(np.float32) * 2 - 1
        for name in ("bits", "mirror_bits")
    )
    near = HASH_SIDE**2 - 2 * ALIKE_BITS
    pairs = []
    # In blocks, so that a large set does not need all pairs in memory at once.
    for start in range(0, len(seen), 1024):
        block = plain[start : start + 1024]
        rows, columns = np.nonzero((block @ plain.T >= near) | (block @ mirrored.T >= near))
        later = columns > rows + start
        pairs += zip(seen[rows[later] + start].tolist(), seen[columns[later]].tolist(), strict=True)
    return pairs


def bits_apart(bits: np.ndarray, other: np.ndarray) -> int:
    return int((bits != other).sum())
