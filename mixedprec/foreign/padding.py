"""Vocabularies that a tool rounded up for faster kernels: tokens that no text ever has."""

LEAST_ROUNDING, MOST_PADDING = 8, 512


def count_padding(reference: int, candidate: int) -> int:
    """Tokens by which a candidate's vocabulary was rounded up from its reference's; 0 for one that
    is the same, or that has other tokens."""
    more = candidate - reference
    return more if 0 < more < MOST_PADDING and candidate % LEAST_ROUNDING == 0 else 0


def write_padding(padding: int) -> str:
    """What is said of a candidate that has `padding` more tokens than its reference."""
    if padding == 1:
        return "its vocabulary has a token that the reference lacks, which is left out"
    return f"its vocabulary has {padding} tokens that the reference lacks, which are left out"
