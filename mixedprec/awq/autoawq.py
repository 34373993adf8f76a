"""The one module that imports autoawq: its registry, its quantizer, and the stock search as oracle.

autoawq is deprecated and pinned (0.2.9). From it come the scale groups of every architecture, the
arithmetic, and `AwqQuantizer`, whose two slow searches `FastQuantizer` replaces with ours. On CPU
the stock quantizer keeps the "originals" it restores after each trial as aliases of the weights it
scales in place, and so corrupts them: `MendedQuantizer` is stock with those originals copied, and
nothing else changed.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from awqscope.mixedprec.awq.choices import BlockSearch, ScaleChoice
from awqscope.mixedprec.awq.clipping import best_clip, group_grams, sample_for_clipping
from awqscope.mixedprec.awq.joint import judge_jointly
from awqscope.mixedprec.awq.losses import list_scalings, lone_losses, second_moment
from awqscope.mixedprec.families.family import ScaleGroup
from awqscope.mixedprec.ranking import least_at
from awqscope.mixedprec.scheme import Scheme

with warnings.catch_warnings(record=True):
    from awq.models.auto import AWQ_CAUSAL_LM_MODEL_MAP
    from awq.quantize.quantizer import AwqQuantizer
    from awq.utils.module import get_op_name

NOT_CLIPPED = ("q_", "k_", "query", "key", "Wqkv")


class _InputNames(dict[str, str]):
    """Stands in for the registry's captured inputs: every input is its own name."""

    def __missing__(self, key: str) -> str:
        return key


def read_scale_groups(model_type: str, block: nn.Module) -> tuple[ScaleGroup, ...]:
    """The scale groups of `block` (a decoder layer of that architecture) in autoawq's registry, as
    they stand there; see `find_scale_groups` for those that can be used."""
    registry = AWQ_CAUSAL_LM_MODEL_MAP[model_type]
    groups = []
    for entry in registry.get_layers_for_scaling(block, _InputNames(), {"mixes": True}):
        linears, inspect = entry["layers"], entry.get("module2inspect")
        lone = inspect is None or inspect is linears[0]
        groups.append(
            ScaleGroup(
                previous=get_op_name(block, entry["prev_op"]),
                linears=tuple(get_op_name(block, linear) for linear in linears),
                inspect=None if lone else get_op_name(block, inspect),
                mixes_tokens=bool(entry.get("kwargs")) and not lone,
            )
        )
    return tuple(groups)


def is_clipped(linear: str) -> bool:
    """Whether autoawq searches a clipping for this linear (not for query and key projections)."""
    return not any(part in linear for part in NOT_CLIPPED)


class MendedQuantizer(AwqQuantizer):
    """Stock autoawq that copies the originals it restores, and keeps its choices in `searches`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.searches: list[BlockSearch] = []
        self._scales: list[ScaleChoice] = []
        super().__init__(*args, **kwargs)

    @property
    def scheme(self) -> Scheme:
        return Scheme(self.w_bit, self.group_size, not self.zero_point)

    def _compute_best_scale(
        self,
        x: Tensor,
        w_mean: Tensor,
        x_mean: Tensor,
        module2inspect: nn.Module,
        linears2scale: list[nn.Linear],
        fp16_output: Tensor,
        kwargs: Mapping[str, Any] = {},
    ) -> Tensor:
        copies = {name: value.clone() for name, value in module2inspect.state_dict().items()}
        module2inspect.state_dict = lambda: copies  # type: ignore[method-assign, assignment]
        try:
            return super()._compute_best_scale(
                x, w_mean, x_mean, module2inspect, linears2scale, fp16_output, kwargs
            )
        finally:
            del module2inspect.state_dict

    def _search_best_scale(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple:
        previous, linears, scales = super()._search_best_scale(module, *args, **kwargs)
        group = ScaleGroup(previous, tuple(linears), None, False)
        self._scales.append(ScaleChoice(group, float("nan"), scales))
        return previous, linears, scales

    def _search_best_clip(self, layer: nn.Module, named_linears: dict, input_feat: dict) -> list:
        clips = super()._search_best_clip(layer, named_linears, input_feat)
        found = {name: maxima.squeeze(-1) for name, maxima in clips}
        self.searches.append(BlockSearch(self.scheme, tuple(self._scales), found))
        self._scales = []
        return clips


class FastQuantizer(MendedQuantizer):
    """autoawq's quantizer with our search in it: `model.quantize(..., quantizer_cls=FastQuantizer)`
    gives autoawq's own users the same choices sooner, on CPU. Sums are taken in float32 whatever
    the model's type."""

    def _compute_best_scale(
        self,
        x: Tensor,
        w_mean: Tensor,
        x_mean: Tensor,
        module2inspect: nn.Module,
        linears2scale: list[nn.Linear],
        fp16_output: Tensor,
        kwargs: Mapping[str, Any] = {},
    ) -> Tensor:
        scalings = list_scalings(
            x_mean.float().view(-1), w_mean.float() if self.duo_scaling else None
        )
        if module2inspect is linears2scale[0]:
            moment = second_moment(x.reshape(-1, x.shape[-1]).float())
            weight = linears2scale[0].weight.data.float()
            losses = lone_losses(weight, moment, scalings, self.scheme)
            return scalings[least_at(losses)]
        # Windows have no padding and share one mask: its first row serves batches of any size.
        shared = {
            name: value[:1] if isinstance(value, Tensor) and len(value) == len(x) else value
            for name, value in kwargs.items()
        }
        best = judge_jointly(
            linears2scale,
            x,
            fp16_output,
            lambda batch: self._module_forward(batch, module2inspect, shared),
            scalings,
            self.scheme,
            mixes_tokens=bool(kwargs),
        )
        return scalings[best]

    @torch.no_grad()
    def _compute_best_clip(
        self, w: Tensor, input_feat: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        grams = group_grams(sample_for_clipping(input_feat).float(), self.scheme.group(w.shape[1]))
        return best_clip(w.float(), grams, self.scheme)[:, :, None].to(w.dtype)


def quantize_with_autoawq(
    model: Any,
    model_type: str,
    windows: Tensor,
    scheme: Scheme,
    quantizer: type[MendedQuantizer] = MendedQuantizer,
) -> list[BlockSearch]:
    """Run autoawq's own flow over a whole model in memory and return its choices, a block each.

    windows: token ids [n, length]. The model is left scaled and clipped, not quantized. Clips are
    in autoawq's basis: of weights whose rows are scaled too.
    """
    registry = AWQ_CAUSAL_LM_MODEL_MAP[model_type]
    # As AutoAWQForCausalLM.from_pretrained does: a cache would grow with every trial of the search.
    model.config.use_cache = False
    wrapper = registry(model, model_type, False, model.config, None, None)
    wrapper.quantize(
        tokenizer=None,
        quant_config={
            "zero_point": not scheme.symmetric,
            "q_group_size": scheme.group_size,
            "w_bit": scheme.bits,
            "version": "GEMM",
        },
        calib_data=windows.tolist(),
        export_compatible=True,
        max_calib_samples=len(windows),
        max_calib_seq_len=windows.shape[1],
        quantizer_cls=quantizer,
    )
    return wrapper.quantizer.searches
