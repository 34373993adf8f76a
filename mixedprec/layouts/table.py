"""The layouts that are read, by the quantization method that config.json names."""

from collections.abc import Mapping

from awqscope.mixedprec.layouts.autoround import AUTOROUND
from awqscope.mixedprec.layouts.awq import AWQ
from awqscope.mixedprec.layouts.bitsandbytes import BITSANDBYTES
from awqscope.mixedprec.layouts.compressed import COMPRESSED
from awqscope.mixedprec.layouts.gptq import GPTQ
from awqscope.mixedprec.layouts.hqq import HQQ
from awqscope.mixedprec.layouts.layout import Layout
from awqscope.mixedprec.layouts.modelopt import MODELOPT
from awqscope.mixedprec.layouts.quark import QUARK
from awqscope.mixedprec.layouts.mlx import MLX
from awqscope.mixedprec.layouts.torchao import TORCHAO

LAYOUTS: Mapping[str, Layout] = {
    "awq": AWQ,
    "gptq": GPTQ,
    "auto-round": AUTOROUND,
    "compressed-tensors": COMPRESSED,
    "modelopt": MODELOPT,
    "quark": QUARK,
    "bitsandbytes": BITSANDBYTES,
    "mlx": MLX,
    "hqq": HQQ,
    "torchao": TORCHAO,
}
