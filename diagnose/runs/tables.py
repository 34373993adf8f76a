"""The columns of a run's Parquet tables (reports/README.md says what each holds)."""

import pyarrow as pa

# What reading a damaged table may raise.
DAMAGES = (ArithmeticError, LookupError, OSError, TypeError, ValueError, pa.ArrowException)
QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)

# Windows with the largest uniform KL keep, for every token, the KL of every block and what is
# likeliest in its place.
WORST_WINDOWS = 8

_INTERVALS = [
    (f"{name}{suffix}", pa.float64())
    for name in ("delta_nll", "delta_ppl", "kl")
    for suffix in ("", "_low", "_high")
]

BLOCKS = pa.schema(
    [
        ("block", pa.int32()),
        ("view", pa.string()),
        *_INTERVALS,
        ("top1_agreement", pa.float64()),
        ("windows", pa.int32()),
        ("flagged", pa.bool_()),
        ("z", pa.float64()),
        ("reason", pa.string()),
    ]
)

UNITS = pa.schema(
    [
        ("unit", pa.string()),
        ("block", pa.int32()),
        ("kind", pa.string()),
        ("bits", pa.int32()),
        ("bytes", pa.int64()),
        ("estimated_kl", pa.float64()),
        ("estimated_kl_low", pa.float64()),
        ("estimated_kl_high", pa.float64()),
        ("exact_kl", pa.float64()),
        ("exact_kl_low", pa.float64()),
        ("exact_kl_high", pa.float64()),
    ]
)

GROUPS = pa.schema(
    [
        ("unit", pa.string()),
        ("block", pa.int32()),
        ("kind", pa.string()),
        ("bits", pa.int32()),
        ("group_size", pa.int32()),
        ("bytes", pa.int64()),
        ("estimated_kl", pa.float64()),
        ("estimated_kl_low", pa.float64()),
        ("estimated_kl_high", pa.float64()),
        ("own_kl", pa.float64()),
    ]
)

LINEARS = pa.schema(
    [
        ("linear", pa.string()),
        ("unit", pa.string()),
        ("block", pa.int32()),
        ("bits", pa.int32()),
        ("bytes", pa.int64()),
        ("estimated_kl", pa.float64()),
        ("estimated_kl_low", pa.float64()),
        ("estimated_kl_high", pa.float64()),
    ]
)

PROMOTIONS = pa.schema(
    [
        ("block", pa.int32()),
        ("units", pa.list_(pa.string())),
        ("kl", pa.float64()),
        ("given_back", pa.float64()),
        ("extra_bytes", pa.int64()),
        ("chosen", pa.bool_()),
    ]
)

WEIGHTS = pa.schema(
    [
        ("block", pa.int32()),
        ("unit", pa.string()),
        ("linear", pa.string()),
        ("bits", pa.int32()),
        ("relative_error", pa.float64()),
        ("squared_error", pa.float64()),
        ("worst_rows", pa.list_(pa.int32())),
        ("worst_groups", pa.list_(pa.int32())),
        ("worst_errors", pa.list_(pa.float32())),
    ]
)

ACTIVATIONS = pa.schema(
    [
        ("block", pa.int32()),
        ("site", pa.string()),
        ("model", pa.string()),
        ("abs_max", pa.float64()),
        ("mean", pa.float64()),
        ("rms", pa.float64()),
        ("kurtosis", pa.float64()),
        *[(f"q{quantile:g}", pa.float64()) for quantile in QUANTILES],
        ("channel_median", pa.float64()),
        ("outlier_channels", pa.list_(pa.int32())),
        ("outlier_values", pa.list_(pa.float32())),
        ("sqnr", pa.float64()),
        ("cosine", pa.float64()),
        ("relative_mse", pa.float64()),
    ]
)

RANGES = pa.schema(
    [
        ("block", pa.int32()),
        ("site", pa.string()),
        ("part", pa.string()),
        ("model", pa.string()),
        ("largest", pa.float64()),
    ]
)

LIKELIEST = pa.struct([("token", pa.int32()), ("text", pa.string()), ("probability", pa.float32())])

TOKENS = pa.schema(
    [
        ("window", pa.int32()),
        ("position", pa.int32()),
        ("token", pa.int32()),
        ("text", pa.string()),
        ("nll_reference", pa.float32()),
        ("nll_uniform", pa.float32()),
        ("nll_mixed", pa.float32()),
        ("kl_uniform", pa.float32()),
        ("kl_mixed", pa.float32()),
        ("agree_uniform", pa.bool_()),
        ("agree_mixed", pa.bool_()),
        ("block_kl", pa.list_(pa.float32())),
        ("restored_kl", pa.list_(pa.float32())),
        ("top_reference", pa.list_(LIKELIEST)),
        ("top_uniform", pa.list_(LIKELIEST)),
    ]
)

TABLES = {
    "blocks": BLOCKS,
    "units": UNITS,
    "groups": GROUPS,
    "linears": LINEARS,
    "promotions": PROMOTIONS,
    "weights": WEIGHTS,
    "activations": ACTIVATIONS,
    "ranges": RANGES,
    "tokens": TOKENS,
}
