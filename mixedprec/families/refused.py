"""Model types that autoawq names, or that are often asked for, and that awqscope refuses."""

_REMOTE = (
    "needs code from its own directory, which is never run",
    "use a model that transformers knows itself",
)
_MANY_SENSES = (
    "sees or hears as well as reads, which is not measured here",
    "use a text model; one saved on its own has a config.json of its own",
)
_FIRST_DENSE = (
    "mixes dense blocks with mixtures of experts, and compresses its keys and values",
    "use a model whose blocks are all alike",
)
# Model type -> why it is refused, and the remedy.
REFUSED = {
    "Yi": (_REMOTE[0], "take today's revision of Yi, which is a llama"),
    "RefinedWeb": (_REMOTE[0], "take today's revision of Falcon, which transformers knows"),
    "RefinedWebModel": (_REMOTE[0], "take today's revision of Falcon, which transformers knows"),
    **dict.fromkeys(
        ("aquila", "baichuan", "exaone", "internlm2", "minicpm", "phi3_v", "qwen"), _REMOTE
    ),
    **dict.fromkeys(
        (
            "gemma3",
            "llava",
            "llava_next",
            "mistral3",
            "phi4_multimodal",
            "qwen2_5_omni",
            "qwen2_5_vl",
            "qwen2_vl",
            "qwen3_vl",
        ),
        _MANY_SENSES,
    ),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3"), _FIRST_DENSE),
}
