"""Which families the tools take: what is refused, what is offered instead, and the mappings that
are written where a tool has none."""

import re

import pytest
import torch
from transformers import AutoModelForCausalLM

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.table import FAMILIES
from awqscope.mixedprec.recipes.emitters import EMITTERS, emit
from awqscope.mixedprec.recipes.emitters.coverage import (
    GAPS,
    RELEASES,
    SHARED_INPUTS,
    guess_family,
)
from awqscope.mixedprec.recipes.emitters.llm_compressor import MAPPINGS
from awqscope.mixedprec.recipes.recipe import make_recipe
from awqscope.mixedprec.scheme import Scheme
from tests.help.root import ROOT
from tests.help.tiny import VOCABULARY, tiny_config


@pytest.mark.parametrize(("target", "family"), [(t, f) for t, held in GAPS.items() for f in held])
def test_families_that_a_target_does_not_take(target: str, family: str) -> None:
    """The line says why and by which release, and every target that it names takes the recipe."""
    recipe = make_recipe("m", FAMILIES[family], 2, 4)
    scheme = {4: Scheme(4, 128, True)}
    with pytest.raises(InputError) as refused:
        emit(target, recipe, scheme, family)
    package, version = RELEASES[target]
    assert refused.value.what == (
        f"{target} takes no models of type {family}: {GAPS[target][family]} "
        f"(seen with {package} {version})"
    )
    names = refused.value.remedy.removeprefix("emit for ").split(", ")
    assert names and target not in names
    for name in names:
        assert emit(name, recipe, scheme, family)


def test_a_family_that_is_not_told_is_taken_from_names_where_one_has_them() -> None:
    def names(family: str) -> list[str]:
        return list(make_recipe("m", FAMILIES[family], 2, 4).linear_widths())

    unique = ["glm4", "gpt_bigcode", "gpt_neox", "gptj", "minicpm3", "mpt", "opt", "starcoder2"]
    for family in unique:
        assert guess_family(names(family)) == family
    for family in ("llama", "olmo2", "bloom", "falcon"):
        assert guess_family(names(family)) is None
    assert guess_family([]) is guess_family(["lm_head"]) is None
    with pytest.raises(InputError, match="mlx-lm takes no models of type opt"):
        emit("mlx-lm", make_recipe("m", FAMILIES["opt"], 2, 4), {4: Scheme(4, 128, True)})


@pytest.mark.parametrize("family", SHARED_INPUTS)
@pytest.mark.parametrize("target", ["modelopt", "llm-compressor"])
def test_linears_of_one_input_are_as_alike_as_the_target_needs(target: str, family: str) -> None:
    first, second = SHARED_INPUTS[family]
    schemes = {4: Scheme(4, 32, True), 8: Scheme(8, 64, True)}
    alike = make_recipe("m", FAMILIES[family], 2, 4, changed={f"1.{first}": 8, f"1.{second}": 8})
    assert emit(target, alike, schemes, family)
    apart = make_recipe("m", FAMILIES[family], 2, 4, changed={f"1.{first}": 8})
    need = {"modelopt": "width", "llm-compressor": "group size"}[target]
    with pytest.raises(InputError) as refused:
        emit(target, apart, schemes, family)
    assert refused.value.what == (
        f"1.{first} and 1.{second} read one input, and {target} needs such linears at one {need}"
    )
    start, _, listed = refused.value.remedy.partition("emit for ")
    assert start == f"give them one {need}, or "
    for name in listed.split(", "):
        assert emit(name, apart, schemes, family)
    if target == "llm-compressor":
        assert emit(target, apart, {4: schemes[4], 8: Scheme(8, 32, True)}, family)


def test_releases_are_those_that_are_installed_for_the_targets() -> None:
    pinned = (ROOT / "constraints-targets.txt").read_text(encoding="utf-8").splitlines()
    assert set(RELEASES) == set(EMITTERS)
    for package, version in RELEASES.values():
        assert f"{package}=={version}" in pinned


@pytest.mark.parametrize("family", MAPPINGS)
def test_mappings_scale_one_module_of_each_block_and_leave_the_function_as_it_is(
    family: str,
) -> None:
    """Scales at random, as llm-compressor puts them in: into the last rows of a linear."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(tiny_config(family)).double().eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    tokens = torch.randint(VOCABULARY, (2, 16))
    with torch.no_grad():
        before = model(tokens).logits
        for scaled, balanced in MAPPINGS[family].items():
            for block in (0, 1):
                start = rf"{re.escape(FAMILIES[family].blocks)}\.{block}\."
                (source,) = find_modules(model, scaled, start)
                linears = [m for name in balanced for m in find_modules(model, name, start)]
                assert len(linears) == len(balanced)
                scales = torch.exp(0.3 * torch.randn(linears[0].in_features).double())
                for parameter in source.parameters(recurse=False):
                    rows = parameter[-len(scales) :]
                    rows.div_(scales if parameter.ndim == 1 else scales[:, None])
                for linear in linears:
                    linear.weight.mul_(scales)
            elsewhere = find_modules(model, scaled, "")
            assert len(elsewhere) == 2
        torch.testing.assert_close(model(tokens).logits, before, rtol=1e-7, atol=1e-7)


def find_modules(model: torch.nn.Module, end: str, start: str) -> list[torch.nn.Module]:
    """Modules that llm-compressor's pattern for `end` finds, of those whose names begin so."""
    return [
        module
        for name, module in model.named_modules()
        if re.match(rf".*\.{end}$", name) and re.match(start, name)
    ]
