"""What an emitter is: a tool to write for, what it can hold, and the function that writes."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import yaml

from awqscope.mixedprec.recipes.recipe import Recipe
from awqscope.mixedprec.scheme import GROUP_SIZES, Scheme, Width, sort_widths


@dataclass(frozen=True)
class Emitter:
    """A tool that a recipe can be written for.

    name: as on the command line. purpose: one line for a person. suffix: of the file, with its dot.
    write: recipe, width -> scheme and family (None if not known) to the file's text; only `emit`
    calls it, after its checks. holds: the schemes that the tool can be given; 16 bits can be given
    to every tool. fused_by: servers of its checkpoints that fuse q/k/v and gate/up, empty where
    none does. alike: what linears that read one input must have in common, "" where nothing.
    """

    name: str
    purpose: str
    suffix: str
    write: Callable[[Recipe, Mapping[Width, Scheme], str | None], str]
    holds: frozenset[Scheme]
    fused_by: tuple[str, ...]
    alike: Literal["", "width", "group size"] = ""


def combine(
    bits: Iterable[int],
    group_sizes: Iterable[int] = GROUP_SIZES,
    symmetric: Iterable[bool] = (True, False),
) -> frozenset[Scheme]:
    """Every scheme of these widths, group sizes and symmetries."""
    return frozenset(Scheme(*values) for values in product(bits, group_sizes, symmetric))


def quantized_widths(recipe: Recipe, schemes: Mapping[Width, Scheme]) -> dict[Width, Scheme]:
    """The schemes that the recipe uses, narrowest first; 16 bits left out."""
    used = set(recipe.widths.values())
    return {width: schemes[width] for width in sort_widths(schemes) if width in used}


def describe_source(recipe: Recipe) -> str:
    """One line on where the text is from. The model's name is quoted as JSON quotes it, so that
    nothing in it can end a comment."""
    return (
        f"Written by awqscope from its {json.dumps(recipe.kind)} recipe"
        f" of {json.dumps(recipe.model)}."
    )


def describe_scheme(scheme: Scheme) -> str:
    """A scheme in words: "4 bits, asymmetric, groups of 128"."""
    symmetry = "symmetric" if scheme.symmetric else "asymmetric"
    groups = "one group a row" if scheme.group_size == -1 else f"groups of {scheme.group_size}"
    return f"{scheme.bits} bits, {symmetry}, {groups}"


def to_json(value: Mapping[str, Any], indent: str = "") -> str:
    """A JSON object with a line an entry; what holds no further objects or lists is one line."""
    entries = ",\n".join(
        f"{indent}  {json.dumps(key)}: {_inner(held, indent + '  ')}" for key, held in value.items()
    )
    return f"{{\n{entries}\n{indent}}}"


def _inner(value: Any, indent: str) -> str:
    if isinstance(value, list):
        entries = ",\n".join(f"{indent}  {json.dumps(held)}" for held in value)
        return f"[\n{entries}\n{indent}]"
    if isinstance(value, dict) and any(isinstance(held, (dict, list)) for held in value.values()):
        return to_json(value, indent)
    return json.dumps(value)


class OneLine(dict[str, Any]):
    """A mapping that is written on one line of YAML."""


class _Dumper(yaml.SafeDumper):
    """YAML as people write it: what is in a list stands further in than the list's name."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


_Dumper.add_representer(
    OneLine,
    lambda dumper, value: dumper.represent_mapping("tag:yaml.org,2002:map", value, flow_style=True),
)


def to_yaml(value: Mapping[str, Any], comments: Iterable[str]) -> str:
    """A mapping as YAML in its own order, an entry a line but for `OneLine`, under comments."""
    text = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=False, sort_keys=False, width=float("inf")
    )
    return comment(comments) + text


def comment(lines: Iterable[str]) -> str:
    """Lines as YAML and shell comments."""
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)
