"""The sweep's results on their way to tables: what is kept of each chunk, and the tables made of
all chunks. Decisions are in `spikes.py` and `refine.py`; here is bookkeeping."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from diagnose.bootstrap import Resampler
from diagnose.likelihood import TokenScores
from diagnose.spikes import BlockDamage, Thresholds, flag_blocks
from diagnose.sweep import REFERENCE, UNIFORM, view_name
from diagnose.tables import TOKENS

VIEWS = ("isolated", "cumulative", "restored")
# Windows with the largest uniform KL keep the KL of every block for every token.
WORST_WINDOWS = 8
TOKENS_A_ROW_GROUP = 16384


def reduce_chunk(scores: dict[str, TokenScores], blocks: int) -> dict[str, Tensor]:
    """What a chunk keeps: window means of every view, tokens of the trunks, and the isolated KL by
    token of its worst windows ([k, tokens, blocks], with their indices in the chunk)."""
    kept = {}
    for view, found in scores.items():
        kept[f"kl.{view}"] = found.kl.double().mean(1)
        kept[f"nll.{view}"] = found.nll.double().mean(1)
        kept[f"agree.{view}"] = found.agree.double().mean(1)
    kept["token.nll_reference"] = scores[REFERENCE].nll
    kept["token.nll_uniform"] = scores[UNIFORM].nll
    kept["token.kl_uniform"] = scores[UNIFORM].kl
    kept["token.agree_uniform"] = scores[UNIFORM].agree
    count = min(WORST_WINDOWS, len(scores[UNIFORM].kl))
    worst = scores[UNIFORM].kl.mean(1).topk(count).indices
    kept["worst"] = worst
    kept["worst.kl"] = torch.stack(
        [scores[view_name("isolated", block)].kl[worst] for block in range(blocks)], dim=-1
    )
    return kept


def join_chunks(chunks: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The chunks as if they had been one."""
    joined = {
        name: torch.cat([chunk[name] for chunk in chunks])
        for name in chunks[0]
        if not name.startswith("worst")
    }
    offsets = np.cumsum([0] + [len(chunk[f"kl.{UNIFORM}"]) for chunk in chunks])
    indices = torch.cat([c["worst"] + int(o) for c, o in zip(chunks, offsets, strict=False)])
    kl = torch.cat([chunk["worst.kl"] for chunk in chunks])
    order = joined[f"kl.{UNIFORM}"][indices].argsort(descending=True, stable=True)[:WORST_WINDOWS]
    return {**joined, "worst": indices[order], "worst.kl": kl[order]}


def block_rows(
    scores: dict[str, Tensor], blocks: int, thresholds: Thresholds, seed: int
) -> list[dict[str, Any]]:
    """Rows of blocks.parquet: every block and view with intervals, and whether it is flagged."""
    resampler = Resampler(len(scores[f"kl.{UNIFORM}"]), seed)
    reference = scores[f"nll.{REFERENCE}"].numpy()
    rows = []
    for block in range(blocks):
        for view in VIEWS:
            name = view_name(view, block)
            nll = scores[f"nll.{name}"].numpy()
            estimates = {
                "delta_nll": resampler.mean(nll - reference),
                "delta_ppl": resampler.ppl_difference(reference, nll),
                "kl": resampler.mean(scores[f"kl.{name}"].numpy()),
            }
            row: dict[str, Any] = {"block": block, "view": view}
            for column, estimate in estimates.items():
                row[column] = estimate.value
                row[f"{column}_low"] = estimate.low
                row[f"{column}_high"] = estimate.high
            row["top1_agreement"] = float(scores[f"agree.{name}"].mean())
            rows.append(row)
    damages = [
        BlockDamage(row["block"], row["kl"], row["kl_low"], row["delta_ppl"])
        for row in rows
        if row["view"] == "isolated"
    ]
    verdicts = flag_blocks(damages, thresholds)
    for row in rows:
        verdict = verdicts[row["block"]]
        row |= {"flagged": verdict.flagged, "z": verdict.z, "reason": verdict.reason}
    return rows


def token_table(
    windows: Tensor,
    texts: Sequence[str],
    scores: dict[str, Tensor],
    mixed: dict[str, Tensor] | None = None,
) -> pa.Table:
    """tokens.parquet: a row a token, in reading order. A window's first token has no scores.

    texts: what each token id reads as, by id. mixed: nll, kl and agree [n, length − 1] of the
    checkpoint, once proved.
    """
    count, length = windows.shape

    def column(values: Tensor | None, kind: pa.DataType) -> pa.Array:
        if values is None:
            return pa.nulls(count * length, kind)
        padded = np.zeros((count, length), dtype=values.numpy().dtype)
        padded[:, 1:] = values.numpy()
        missing = np.zeros((count, length), dtype=bool)
        missing[:, 0] = True
        return pa.array(padded.ravel(), type=kind, mask=missing.ravel())

    by_block: list[list[float] | None] = [None] * (count * length)
    for window, kl in zip(scores["worst"].tolist(), scores["worst.kl"], strict=True):
        for position, values in enumerate(kl.tolist(), start=1):
            by_block[window * length + position] = values
    ids = windows.flatten().tolist()
    mixed = mixed or {}
    columns = {
        "window": np.repeat(np.arange(count), length),
        "position": np.tile(np.arange(length), count),
        "token": ids,
        "text": [texts[token] for token in ids],
        "nll_reference": column(scores["token.nll_reference"], pa.float32()),
        "nll_uniform": column(scores["token.nll_uniform"], pa.float32()),
        "nll_mixed": column(mixed.get("nll"), pa.float32()),
        "kl_uniform": column(scores["token.kl_uniform"], pa.float32()),
        "kl_mixed": column(mixed.get("kl"), pa.float32()),
        "agree_uniform": column(scores["token.agree_uniform"], pa.bool_()),
        "agree_mixed": column(mixed.get("agree"), pa.bool_()),
        "block_kl": pa.array(by_block, type=TOKENS.field("block_kl").type),
    }
    return pa.table(columns, schema=TOKENS)
