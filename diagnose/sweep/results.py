"""The sweep's results on their way to tables: what is kept of each chunk, and the tables made of
all chunks. What is flagged is decided in `statistics/spikes.py`, what is promoted in
`promotions.py`; here is bookkeeping."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from awqscope.diagnose.runs.tables import LIKELIEST, TOKENS, WORST_WINDOWS
from awqscope.diagnose.statistics.likelihood import TOP_TOKENS, TokenScores
from awqscope.diagnose.statistics.spikes import BlockDamage, Thresholds, flag_blocks
from awqscope.diagnose.sweep.branches import REFERENCE, UNIFORM, view_name
from awqscope.diagnose.sweep.surveys import Surveys

VIEWS = ("isolated", "cumulative", "restored")
TOKENS_A_ROW_GROUP = 16384


def reduce_views(scores: dict[str, TokenScores]) -> dict[str, Tensor]:
    """What a chunk keeps of every model: means over its windows' tokens."""
    kept = {}
    for view, found in scores.items():
        kept[f"kl.{view}"] = found.kl.double().mean(1)
        kept[f"nll.{view}"] = found.nll.double().mean(1)
        kept[f"agree.{view}"] = found.agree.double().mean(1)
    return kept


def reduce_trunks(scores: dict[str, TokenScores]) -> dict[str, Tensor]:
    """What a chunk keeps of every model, and of the trunks' tokens."""
    return reduce_views(scores) | {
        "token.nll_reference": scores[REFERENCE].nll,
        "token.nll_uniform": scores[UNIFORM].nll,
        "token.kl_uniform": scores[UNIFORM].kl,
        "token.agree_uniform": scores[UNIFORM].agree,
    }


def reduce_chunk(scores: dict[str, TokenScores], blocks: int) -> dict[str, Tensor]:
    """What a chunk keeps: window means of every view, tokens of the trunks, and the worst windows'
    indices in the chunk, with isolated and restored KL [k, tokens, blocks] and the trunks'
    likeliest tokens [k, tokens, TOP_TOKENS]."""
    kept = reduce_trunks(scores)
    count = min(WORST_WINDOWS, len(scores[UNIFORM].kl))
    # In the order of `join_chunks`, so that how the text is cut into chunks changes nothing.
    worst = kept[f"kl.{UNIFORM}"].argsort(descending=True, stable=True)[:count]
    kept["worst"] = worst
    for view in ("isolated", "restored"):
        by_block = [scores[view_name(view, block)].kl[worst] for block in range(blocks)]
        kept[f"worst.{view}"] = torch.stack(by_block, dim=-1)
    for trunk in (REFERENCE, UNIFORM):
        kept[f"worst.tokens_{trunk}"] = scores[trunk].top_tokens[worst]
        kept[f"worst.probabilities_{trunk}"] = scores[trunk].top_probabilities[worst]
    return kept


def join_chunks(chunks: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The chunks as if they had been one."""

    def join(name: str) -> Tensor:
        return torch.cat([chunk[name] for chunk in chunks])

    joined = {name: join(name) for name in chunks[0] if not name.startswith("worst")}
    if "worst" not in chunks[0]:
        return joined
    offsets = np.cumsum([0] + [len(chunk[f"kl.{UNIFORM}"]) for chunk in chunks])
    indices = torch.cat([c["worst"] + int(o) for c, o in zip(chunks, offsets, strict=False)])
    order = joined[f"kl.{UNIFORM}"][indices].argsort(descending=True, stable=True)[:WORST_WINDOWS]
    worst = {name: join(name)[order] for name in chunks[0] if name.startswith("worst.")}
    return {**joined, "worst": indices[order], **worst}


def block_rows(
    surveys: Surveys, blocks: int, thresholds: Thresholds, floor: float = 0.0
) -> list[dict[str, Any]]:
    """Rows of blocks.parquet: every block and view with intervals, and whether it is flagged.
    floor: the KL up to which damage is noise."""
    rows: list[dict[str, Any]] = []
    for block in range(blocks):
        for view in VIEWS:
            name = view_name(view, block)
            found = surveys.damage(name)
            rows.append({"block": block, "view": view, **found, "windows": surveys.of(name).count})
    verdicts = flag_blocks(list_damages(rows), thresholds, floor)
    for row in rows:
        verdict = verdicts[row["block"]]
        row |= {"flagged": verdict.flagged, "z": verdict.z, "reason": verdict.reason}
    return rows


def list_damages(rows: Sequence[Mapping[str, Any]]) -> list[BlockDamage]:
    """What flags are told from, of the rows of blocks.parquet."""
    return [
        BlockDamage(row["block"], row["kl"], row["kl_low"], row["delta_ppl"])
        for row in rows
        if row["view"] == "isolated"
    ]


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

    worst, order = scores["worst"].sort()

    def ordered(name: str) -> np.ndarray:
        """Values of the worst windows' tokens in reading order."""
        return scores[f"worst.{name}"][order].flatten().numpy()

    def lists(values: pa.Array, size: int) -> pa.Array:
        """`size` of `values` at every scored token of the worst windows, null elsewhere."""
        sizes = np.zeros((count, length), dtype=np.int32)
        sizes[worst.numpy(), 1:] = size
        offsets = np.concatenate([[0], sizes.cumsum()])
        mask = pa.array(sizes.ravel() == 0)
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, mask=mask)

    def by_block(view: str) -> pa.Array:
        values = pa.array(ordered(view), pa.float32())
        return lists(values, scores[f"worst.{view}"].shape[-1])

    def likeliest(trunk: str) -> pa.Array:
        tokens = ordered(f"tokens_{trunk}")
        fields = [
            pa.array(tokens, pa.int32()),
            pa.array([texts[token] for token in tokens], pa.string()),
            pa.array(ordered(f"probabilities_{trunk}"), pa.float32()),
        ]
        return lists(pa.StructArray.from_arrays(fields, fields=list(LIKELIEST)), TOP_TOKENS)

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
        "block_kl": by_block("isolated"),
        "restored_kl": by_block("restored"),
        "top_reference": likeliest(REFERENCE),
        "top_uniform": likeliest(UNIFORM),
    }
    return pa.table(columns, schema=TOKENS)
