"""Readers against made-up inputs: whatever a file holds, a reader gives a value or the one error
that it documents; no other exception, no hang, no allocation that the file does not pay for.

`make test` makes up some hundreds of inputs, `make test-faults` nearly a hundred thousand, always
the same ones.
"""

import copy
import json
import resource
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save, save_file

from awqscope.app.report.contents import read_findings
from awqscope.app.terminal.run import show_run
from awqscope.diagnose.gate.policy import DEFAULT_PATH, load_policy, parse_policy
from awqscope.diagnose.gate.verdict import judge_run
from awqscope.diagnose.runs.directory import RunDirectory, reads_run
from awqscope.diagnose.runs.scores import read_scores
from awqscope.mixedprec.awq.arithmetic import quantize
from awqscope.mixedprec.awq.choices import load_search
from awqscope.mixedprec.checkpoints.packing import (
    from_compressed_tensors,
    from_gemm,
    to_compressed_tensors,
    to_gemm,
)
from awqscope.mixedprec.checkpoints.reader import open_checkpoint
from awqscope.mixedprec.checkpoints.writer import examine_serving
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.table import FAMILIES
from awqscope.mixedprec.files.header import read_header
from awqscope.mixedprec.foreign.candidate import open_candidate
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.recipes.recipe import (
    check_fits,
    load_recipe,
    make_recipe,
    recipe_json,
    save_recipe,
)
from awqscope.mixedprec.scheme import Scheme
from tests.help.runs import SAMPLE, write_run

MakeModel = Callable[..., Path]
TALLY: Counter[str] = Counter()
MOST_BYTES = 400 * 2**20
# Of the processor, for one input: what else the machine does counts for nothing.
MOST_SECONDS = 5.0

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**30, 10**39, -(2**70)])
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["\x1b[31m", "\u202e", "\ud800", "../x", "llama", "4", "\x00"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def mutate(draw: st.DrawFn, valid: Any, times: int = 2) -> Any:
    """`valid`, JSON, with up to so many entries anywhere in it changed, taken away or added."""
    whole = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, times))):
        place = whole
        while isinstance(place, dict | list) and place:
            keys = sorted(place, key=str) if isinstance(place, dict) else range(len(place))
            key = draw(st.sampled_from(list(keys)))
            inside = place[key]
            if isinstance(inside, dict | list) and inside and draw(st.integers(0, 3)):
                place = inside
                continue
            what = draw(st.sampled_from(["change", "change", "remove", "number"]))
            if what == "remove":
                del place[key]
            elif what == "number":
                place[key] = draw(st.sampled_from([0, -1, 1, 3, 2**31, 10**9, 1e308, 0.5]))
            else:
                place[key] = draw(values)
            break
    return whole


@st.composite
def texts_like(draw: st.DrawFn, valid: Any) -> bytes:
    """A JSON text with some entries changed, and sometimes bytes of it."""
    text = json.dumps(mutate(draw, valid)).encode()
    return draw(bytes_like(text)) if draw(st.integers(0, 4)) == 0 else text


@st.composite
def bytes_like(draw: st.DrawFn, valid: bytes) -> bytes:
    """A file with bytes changed, cut off, put in, or repeated."""
    content = bytearray(valid)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        what = draw(st.sampled_from(["byte", "cut", "insert", "repeat"]))
        if what == "byte" and content:
            content[at] = draw(st.integers(0, 255))
        elif what == "cut":
            del content[at : at + draw(st.integers(1, 4096))]
        elif what == "insert":
            content[at:at] = draw(st.binary(max_size=16))
        else:
            content[at:at] = content[max(0, at - 20) : at] * draw(st.integers(1, 50))
    return bytes(content)


def fuzz(name: str, count: int, strategy: st.SearchStrategy, check: Callable[[Any], bool]) -> None:
    """Give `check` so many inputs; it says whether an input was taken. What it raises fails."""

    def counted(value: Any) -> None:
        TALLY[name] += 1
        began = time.process_time()
        TALLY["of them taken"] += check(value)
        assert time.process_time() - began < MOST_SECONDS

    settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )(given(strategy)(counted))()


def taken(read: Callable[[], object], *errors: type[Exception]) -> bool:
    """Whether `read` gives a value; False where it raises InputError or one of `errors`."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        read()
    except (InputError, *errors) as error:
        assert str(error)
        return False
    finally:
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown * 1024 < MOST_BYTES, f"{grown / 1024:.0f} MiB were taken"
    return True


def examples(few: int, many: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("count", [few, pytest.param(many, marks=pytest.mark.faults)])


@st.composite
def safetensors_files(draw: st.DrawFn) -> bytes:
    """A safetensors file, its header changed in what it says or in its bytes, or anything."""
    kind = draw(st.sampled_from(["entries", "entries", "bytes", "length", "anything"]))
    if kind == "anything":
        return draw(st.binary(max_size=64))
    shapes = {"a": (2, 3), "b.weight": (4,), "c": (0, 2), "d": ()}
    content = save({name: torch.zeros(shape) for name, shape in shapes.items()}, {"format": "pt"})
    length = int.from_bytes(content[:8], "little")
    if kind == "bytes":
        return draw(bytes_like(content))
    if kind == "length":
        size = draw(st.sampled_from([0, 1, length - 1, length + 1, 2**31, 2**63, 2**64 - 1]))
        return size.to_bytes(8, "little") + content[8:]
    header = json.dumps(mutate(draw, json.loads(content[8 : 8 + length]))).encode()
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


@examples(300, 20_000)
def test_safetensors_headers(count: int, tmp_path: Path) -> None:
    """What is taken, the library reads too, and finds the same in it."""
    path = tmp_path / "file.safetensors"

    def check(content: bytes) -> bool:
        path.write_bytes(content)
        if not taken(lambda: read_header(path), ValueError):
            return False
        header = read_header(path)
        try:
            with safe_open(path, framework="pt") as file:
                assert set(file.keys()) == set(header.tensors)
                for name, tensor in header.tensors.items():
                    assert file.get_slice(name).get_shape() == list(tensor.shape)
        except SafetensorError as error:
            # Types that this version of the library does not know are refused by it later.
            assert "dtype" in str(error) or "variant" in str(error), error
        return True

    fuzz("safetensors headers", count, safetensors_files(), check)


RECIPE = recipe_json(make_recipe("m", FAMILIES["llama"], 2, 4, changed={"1.qkv": 8}))


@examples(200, 20_000)
def test_recipes(count: int, tmp_path: Path) -> None:
    """What is taken can be written again, and fits the model or is refused for it."""
    path, copied = tmp_path / "recipe.json", tmp_path / "again.json"

    def check(content: bytes) -> bool:
        path.write_bytes(content)
        if not taken(lambda: load_recipe(path)):
            return False
        recipe = load_recipe(path)
        save_recipe(copied, recipe)
        assert load_recipe(copied) == recipe
        taken(lambda: check_fits(recipe, FAMILIES["llama"], 2))
        return True

    fuzz("recipes", count, texts_like(RECIPE), check)


POLICY = DEFAULT_PATH.read_bytes()
LINES = st.sampled_from(
    [
        *("subject = 'uniform'", "[limits]", "[drift]", "max_kl = 0.1", "max_kl = 1e999"),
        *("max_kl = nan", "optional = true", "require_proof = true", "max_kl_ratio = 1"),
        *("limits = 1", "[[limits]]", "limits.max_kl = 3", "x" * 50 + ".y" * 40 + " = 1"),
        *("max_kl = " + "9" * 5000, "a = " + "[" * 3000, "[limits.max_kl]", "max_kl = 1979-05-27"),
    ]
)


@examples(200, 20_000)
def test_policies(count: int, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    contents = bytes_like(POLICY) | st.lists(LINES, max_size=6).map(
        lambda lines: "\n".join(lines).encode()
    )

    def check(content: bytes) -> bool:
        path.write_bytes(content)
        return taken(lambda: load_policy(path))

    fuzz("policies", count, contents, check)


def read_all(run: RunDirectory) -> None:
    """A run as `show`, `gate`, `report` and `recipe` read it."""
    with reads_run(run.path):
        show_run(run, Console(file=open("/dev/null", "w"), width=150))  # noqa: SIM115
    with reads_run(run.path):
        judge_run(run, parse_policy("[limits]\nmax_block_share = 0.5\nmax_size_ratio = 1", "p"))


@examples(60, 5_000)
def test_records_of_runs(count: int, tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path))
    (run.path / "tokens.parquet").unlink()
    valid = json.loads((run.path / "run.json").read_text(encoding="utf-8"))

    def check(content: bytes) -> bool:
        (run.path / "run.json").write_bytes(content)
        return taken(lambda: read_all(run))

    fuzz("run records", count, texts_like(valid), check)


@st.composite
def tables_like(draw: st.DrawFn, name: str) -> bytes | pa.Table:
    """A table of the sample with bytes of its file, a column, or its rows changed."""
    if draw(st.booleans()):
        return draw(bytes_like((SAMPLE / f"{name}.parquet").read_bytes()))
    table = pq.read_table(SAMPLE / f"{name}.parquet")
    at = draw(st.integers(0, table.num_columns - 1))
    what = draw(st.sampled_from(["drop", "nulls", "text", "rows", "nan", "numbers"]))
    if what == "drop":
        return table.drop_columns([table.column_names[at]])
    if what == "rows":
        first = draw(st.integers(0, table.num_rows))
        return table.slice(first, draw(st.integers(0, table.num_rows)))
    column = {
        "nulls": lambda: pa.nulls(table.num_rows, table.column(at).type),
        "text": lambda: pa.array(["\x1b[2J"] * table.num_rows),
        "nan": lambda: pa.array([float("nan")] * table.num_rows),
        "numbers": lambda: pa.array(
            [draw(st.integers(-5, 2**31 - 1))] * table.num_rows, pa.int32()
        ),
    }[what]()
    return table.set_column(at, table.column_names[at], column)


@examples(40, 3_000)
def test_tables_of_runs(count: int, tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path))
    (run.path / "tokens.parquet").unlink()
    names = st.sampled_from(["blocks", "units", "promotions"])

    def check(made: tuple[str, bytes | pa.Table]) -> bool:
        name, content = made
        path = run.path / f"{name}.parquet"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            pq.write_table(content, path)

        def read() -> None:
            read_all(run)
            with reads_run(run.path):
                read_scores(run.path)

        try:
            return taken(read)
        finally:
            shutil.copyfile(SAMPLE / f"{name}.parquet", path)

    strategy = names.flatmap(lambda name: st.tuples(st.just(name), tables_like(name)))
    fuzz("run tables", count, strategy, check)


@examples(4, 400)
def test_reports_of_runs(count: int, tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path))
    valid = json.loads((run.path / "run.json").read_text(encoding="utf-8"))

    def check(content: bytes) -> bool:
        from awqscope.app.report.page import write_page

        (run.path / "run.json").write_bytes(content)

        def read() -> None:
            with reads_run(run.path):
                write_page(read_findings(run.path))

        return taken(read)

    fuzz("reports", count, texts_like(valid), check)


@examples(60, 6_000)
def test_searches(count: int, tmp_path: Path) -> None:
    path = tmp_path / "search.safetensors"
    valid = next((SAMPLE / "awq").glob("*.safetensors")).read_bytes()
    length = int.from_bytes(valid[:8], "little")
    header = json.loads(valid[8 : 8 + length])

    @st.composite
    def contents(draw: st.DrawFn) -> bytes:
        if draw(st.booleans()):
            return draw(bytes_like(valid))
        changed = copy.deepcopy(header)
        name = draw(st.sampled_from(["scheme", "groups"]))
        inside = json.loads(changed["__metadata__"][name])
        changed["__metadata__"][name] = json.dumps(mutate(draw, inside))
        text = json.dumps(changed).encode()
        return len(text).to_bytes(8, "little") + text + valid[8 + length :]

    def check(content: bytes) -> bool:
        path.write_bytes(content)
        return taken(lambda: load_search(path))

    fuzz("searches", count, contents(), check)


DTYPES = [torch.int32, torch.int64, torch.float16, torch.float32, torch.uint8, torch.bool]


@st.composite
def packed(draw: st.DrawFn) -> tuple[str, dict[str, torch.Tensor], Scheme]:
    """The tensors of a packed linear with a type, a shape or a value changed, or one missing."""
    fmt = draw(st.sampled_from(["compressed-tensors", "awq"]))
    bits = draw(st.sampled_from([4] if fmt == "awq" else [2, 3, 4, 5, 8]))
    symmetric = fmt != "awq" and draw(st.booleans())
    weight = quantize(
        torch.linspace(-1, 1, 16 * 64).view(16, 64), Scheme(bits, 32, symmetric), torch.float16
    )
    tensors = (to_gemm if fmt == "awq" else to_compressed_tensors)(weight)
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(sorted(tensors)))
        shape = draw(st.lists(st.integers(0, 20), max_size=3))
        what = draw(st.sampled_from(["remove", "type", "shape", "value"]))
        if what == "remove":
            del tensors[name]
            break
        if what == "type":
            tensors[name] = tensors[name].to(draw(st.sampled_from(DTYPES)))
        elif what == "shape":
            tensors[name] = torch.zeros(shape, dtype=tensors[name].dtype)
        else:
            fill = draw(st.sampled_from([-1, 0, 1]))
            tensors[name] = torch.full_like(tensors[name], fill)
    scheme = Scheme(
        draw(st.sampled_from([bits, bits, 4])),
        draw(st.sampled_from([32, 32, 64, 128, -1])),
        symmetric,
    )
    return fmt, tensors, scheme


@examples(200, 20_000)
def test_packed_linears(count: int) -> None:
    """What is taken has a weight of its codes' shape."""

    def check(made: tuple[str, dict[str, torch.Tensor], Scheme]) -> bool:
        fmt, tensors, scheme = made
        decode = from_gemm if fmt == "awq" else from_compressed_tensors
        if not taken(lambda: decode(tensors, scheme), ValueError):
            return False
        weight = decode(tensors, scheme)
        assert weight.dequantize().shape == weight.codes.shape
        return True

    fuzz("packed linears", count, packed(), check)


@examples(40, 3_000)
def test_checkpoint_configs(count: int, tmp_path: Path) -> None:
    """config.json of a checkpoint of ours: every linear is read, or refused."""
    weight = quantize(
        torch.linspace(-1, 1, 8 * 64).view(8, 64), Scheme(4, 32, False), torch.float16
    )
    name = "model.layers.0.mlp.down_proj"
    tensors = {f"{name}.{part}": value for part, value in to_compressed_tensors(weight).items()}
    save_file(tensors, tmp_path / "model.safetensors")
    weights = {"num_bits": 4, "group_size": 32, "symmetric": False, "type": "int"}
    group = {"targets": [r"re:.*\.layers\.(0)\.(mlp\.down_proj)$"], "weights": weights}
    valid = {
        "quantization_config": {
            "quant_method": "compressed-tensors",
            "config_groups": {"group_0": group},
            "ignore": ["lm_head"],
            "format": "pack-quantized",
        },
        "model_type": "llama",
        "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"},
        "eos_token_id": [0, 1],
    }

    def check(content: bytes) -> bool:
        (tmp_path / "config.json").write_bytes(content)
        return taken(lambda: open_checkpoint(tmp_path).linear(name))

    fuzz("checkpoint configs", count, texts_like(valid), check)


@examples(10, 1_000)
def test_model_configs(count: int, make_model: MakeModel, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(make_model("llama"), model)
    valid = json.loads((model / "config.json").read_text())

    def check(content: bytes) -> bool:
        (model / "config.json").write_bytes(content)
        return taken(lambda: open_model(str(model)))

    fuzz("model configs", count, texts_like(valid), check)


@examples(10, 1_000)
def test_candidates(count: int, make_model: MakeModel, tmp_path: Path) -> None:
    """A checkpoint of autoawq's format with a tensor or its config changed."""
    reference = open_model(str(make_model("llama", num_hidden_layers=1)))
    folder = tmp_path / "candidate"
    shutil.copytree(reference.path, folder)
    plain = load_file(folder / "model.safetensors")
    tensors = dict(plain)
    linears = [name for name in plain if "_proj.weight" in name]
    for name in linears:
        weight = quantize(tensors.pop(name).float(), Scheme(4, 64, False), torch.float16)
        prefix = name.removesuffix(".weight")
        tensors |= {f"{prefix}.{part}": value for part, value in to_gemm(weight).items()}
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "awq",
        "bits": 4,
        "group_size": 64,
        "zero_point": True,
        "version": "gemm",
    }

    @st.composite
    def candidates(draw: st.DrawFn) -> tuple[bytes, dict[str, torch.Tensor]]:
        changed = dict(tensors)
        name = draw(st.sampled_from(sorted(changed)))
        what = draw(st.sampled_from(["remove", "type", "shape", "nan", "nothing"]))
        if what == "remove":
            del changed[name]
        elif what == "type":
            changed[name] = changed[name].to(draw(st.sampled_from(DTYPES)))
        elif what == "shape":
            shape = draw(st.lists(st.integers(0, 20), max_size=3))
            changed[name] = torch.zeros(shape, dtype=changed[name].dtype)
        elif what == "nan" and changed[name].is_floating_point():
            changed[name] = torch.full_like(changed[name], float("nan"))
        inside = config["quantization_config"]
        method = draw(st.sampled_from(["awq", "awq", "gptq", "compressed-tensors"]))
        found = mutate(draw, {**inside, "quant_method": method}) if draw(st.booleans()) else inside
        return json.dumps({**config, "quantization_config": found}).encode(), changed

    def check(made: tuple[bytes, dict[str, torch.Tensor]]) -> bool:
        (folder / "config.json").write_bytes(made[0])
        save_file(made[1], folder / "model.safetensors")

        def read() -> None:
            candidate = open_candidate(str(folder), reference)
            examine_serving(candidate.catalogue, candidate).to_json()
            candidate.read_block(0)

        return taken(read)

    fuzz("candidates", count, candidates(), check)
