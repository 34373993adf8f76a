"""Model directories and files made in bad faith are refused before a library is let at them."""

import json
import os
import pickle
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from awqscope.diagnose.inputs.corpora import load_tokenizer
from awqscope.mixedprec.checkpoints.reader import checkpoint_bytes, open_checkpoint
from awqscope.mixedprec.checkpoints.writer import examine_serving
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.untrusted import (
    check_directory,
    check_pattern,
    parse_json,
    read_json,
    read_text,
)
from awqscope.mixedprec.models.catalogue import open_catalogue
from awqscope.mixedprec.models.opening import open_model
from tests.help.root import ROOT

MakeModel = Callable[..., Path]


@pytest.fixture
def folder(make_model: MakeModel, tmp_path: Path) -> Path:
    """A copy of a good model, to be made a bad one."""
    return Path(shutil.copytree(make_model("llama"), tmp_path / "model"))


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a": NaN}', "NaN is no number"),
        ("[Infinity]", "Infinity is no number"),
        ("1e999", "is too large"),
        ("9" * 5000, "has 5,000 digits"),
        (r'["\ud800"]', "surrogates not allowed"),
        ("{", "Expecting"),
        ("", "Expecting"),
    ],
)
def test_json_that_is_refused(text: str, wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        parse_json(text)


def test_json_that_is_taken() -> None:
    text = r'{"a": [1, -2.5e3, true, null, "\ud83d\ude00"], "b": 1000000000000000019884624838656}'
    assert parse_json(text) == json.loads(text)
    assert parse_json('{"a": 1, "a": 2}') == {"a": 2}
    with pytest.raises(ValueError, match="'a' is there twice"):
        parse_json('{"a": 1, "a": 2}', unique=True)
    names = [f'"{number}": 0' for number in range(30_000)]
    began = time.process_time()
    with pytest.raises(ValueError, match="'29999' is there twice"):
        parse_json("{" + ", ".join([*names, names[-1]]) + "}", unique=True)
    assert time.process_time() - began < 1


def test_files_that_are_endless_or_no_files(tmp_path: Path) -> None:
    (tmp_path / "long").write_text(" " * 101)
    with pytest.raises(ValueError, match="longer than 100 bytes"):
        read_json(tmp_path / "long", 100)
    with pytest.raises(ValueError, match="longer than 1,000 bytes"):
        read_text(Path("/dev/zero"), 1000)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="no regular file"):
        read_json(tmp_path / "pipe")
    with pytest.raises(OSError):
        read_json(tmp_path)


def test_links_out_of_the_directory(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "secret.json"
    outside.write_text("{}")
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "generation_config.json").symlink_to(outside)
    with pytest.raises(InputError, match="is a link out of its directory"):
        open_model(str(folder))
    (folder / "generation_config.json").unlink()
    weights = folder / "model.safetensors"
    weights.rename(tmp_path / "elsewhere.safetensors")
    weights.symlink_to("../elsewhere.safetensors")
    with pytest.raises(InputError, match=r"model\.safetensors is a link out of"):
        open_model(str(folder))


def test_links_of_directories_and_links_to_nowhere(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (folder / "additional_chat_templates").symlink_to(tmp_path / "templates")
    with pytest.raises(InputError, match="additional_chat_templates is a link out of"):
        check_directory(folder)
    (folder / "additional_chat_templates").unlink()
    (folder / "a.json").symlink_to("b.json")
    (folder / "b.json").symlink_to("a.json")
    with pytest.raises(InputError, match="leads nowhere"):
        check_directory(folder)


def test_links_that_stay_inside_are_followed(folder: Path, tmp_path: Path) -> None:
    """A link inside of the directory, a directory reached by a link, and hidden files."""
    (folder / "model.safetensors").rename(folder / "weights-of-it")
    (folder / "model.safetensors").symlink_to("weights-of-it")
    (folder / ".git").symlink_to("/")
    linked = tmp_path / "linked"
    linked.symlink_to(folder)
    assert open_model(str(linked)).blocks == 2


def test_links_to_directories_that_are_looked_through(folder: Path, tmp_path: Path) -> None:
    (folder / "checkpoint-500").mkdir()
    (folder / "latest").symlink_to("checkpoint-500")
    check_directory(folder)
    (folder / "checkpoint-500" / "config.json").symlink_to(tmp_path / "..")
    with pytest.raises(InputError, match=r"checkpoint-500/config\.json is a link out of"):
        check_directory(folder)
    (folder / "checkpoint-500" / "config.json").unlink()
    (folder / ".hidden").mkdir()
    (folder / "other").symlink_to(".hidden")
    with pytest.raises(InputError, match="other is no regular file"):
        check_directory(folder)


def test_hidden_files_are_not_read(folder: Path, tmp_path: Path) -> None:
    """They are not checked: they may be links out of the directory."""
    (tmp_path / "outside").write_bytes(b"no safetensors")
    (folder / ".x.safetensors").symlink_to(tmp_path / "outside")
    (folder / ".x.py").symlink_to(tmp_path / "outside")
    model = open_model(str(folder))
    assert set(replace(model, trust_remote_code=True).hash()) == {
        "config.json",
        "model.safetensors",
    }
    change_config(folder, quantization_config={"quant_method": "awq", "bits": 4, "group_size": 64})
    checkpoint = open_checkpoint(folder)
    assert {held.path for held in checkpoint.tensors.values()} == {folder / "model.safetensors"}
    assert checkpoint_bytes(folder) < (folder / "model.safetensors").stat().st_size
    assert examine_serving(open_catalogue(folder), model).faults
    change_config(folder, quantization_config=None)
    (folder / "model.safetensors").rename(folder / ".model.safetensors")
    with pytest.raises(InputError, match="holds no safetensors file"):
        open_model(str(folder))


def test_tables_that_a_config_computes(make_model: MakeModel, tmp_path: Path) -> None:
    """GPTBigCode's mask over all pairs of positions would take 16 GiB."""
    folder = Path(shutil.copytree(make_model("gpt_bigcode"), tmp_path / "model"))
    change_config(folder, n_positions=2**17)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"means tables of 17,\d+,\d+,\d+ bytes"):
        open_model(str(folder))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20
    change_config(folder, n_positions=256)
    with pytest.raises(InputError, match=r"transformer\.wpe\.weight has shape"):
        open_model(str(folder))
    change_config(folder, n_positions=10**9)
    with pytest.raises(InputError, match="n_positions = 1000000000, which no model has"):
        open_model(str(folder))


@pytest.mark.parametrize(("layers", "stacked"), [(3, False), (5, False), (3, True), (5, True)])
def test_as_many_experts_as_there_are_tensors_of(
    layers: int, stacked: bool, make_model: MakeModel, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(make_model("qwen3_moe"), tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    for block in range(2):
        prefix = f"model.layers.{block}.mlp.experts"
        parts = {
            name: [tensors.pop(f"{prefix}.{n}.{name}_proj.weight") for n in range(4)]
            for name in ("gate", "up", "down")
        }
        chosen = [number % 4 for number in range(layers)]
        for name, values in parts.items():
            for number, n in enumerate(chosen if not stacked else ()):
                tensors[f"{prefix}.{number}.{name}_proj.weight"] = values[n].clone()
        if stacked:
            gate_up = [torch.cat([parts["gate"][n], parts["up"][n]]) for n in chosen]
            tensors[f"{prefix}.gate_up_proj"] = torch.stack(gate_up)
            tensors[f"{prefix}.down_proj"] = torch.stack([parts["down"][n] for n in chosen])
    save_file(tensors, folder / "model.safetensors")
    wanted = (
        "has no tensor of .*experts.3:"
        if (layers, stacked) == (3, False)
        else (f"is of {layers} experts, config.json says 4")
    )
    with pytest.raises(InputError, match=wanted):
        open_model(str(folder))
    change_config(folder, num_experts=4000)
    with pytest.raises(InputError, match=r"experts, config|has no tensor of .*experts\.\d:"):
        open_model(str(folder))


def test_stacked_experts_of_a_body_alone_in_several_files(
    make_model: MakeModel, tmp_path: Path
) -> None:
    """The file of the experts does not hold the embedding, by whose name a body is known."""
    folder = Path(shutil.copytree(make_model("qwen3_moe"), tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    others: dict[str, torch.Tensor] = {}
    for block in range(2):
        prefix = f"model.layers.{block}.mlp.experts"
        gate, up, down = (
            [tensors.pop(f"{prefix}.{n}.{name}_proj.weight") for n in range(4)]
            for name in ("gate", "up", "down")
        )
        pairs = zip(gate, up, strict=True)
        others[f"layers.{block}.mlp.experts.gate_up_proj"] = torch.stack(
            [torch.cat(pair) for pair in pairs]
        )
        others[f"layers.{block}.mlp.experts.down_proj"] = torch.stack(down)
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    (folder / "model.safetensors").unlink()
    save_file(bare, folder / "model-1.safetensors")
    save_file(others, folder / "model-2.safetensors")
    weight_map = dict.fromkeys(bare, "model-1.safetensors")
    weight_map |= dict.fromkeys(others, "model-2.safetensors")
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    found = open_model(str(folder)).read_block(1).state_dict()
    expected = open_model(str(make_model("qwen3_moe"))).read_block(1).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.uint32, torch.int32])
def test_parameters_that_are_no_floats(dtype: torch.dtype, folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].float().to(dtype)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"tensor model\.norm\.weight is stored as [FUI]\d"):
        open_model(str(folder))


def test_the_hubs_cache_is_read_but_not_another_models(folder: Path, tmp_path: Path) -> None:
    """snapshots/REVISION/FILE -> ../../blobs/HASH, as the hub's client keeps every model."""
    ours, theirs = tmp_path / "models--a--b", tmp_path / "models--c--d"
    snapshot = ours / "snapshots" / "0123abc"
    for place in (snapshot, ours / "blobs", theirs / "blobs"):
        place.mkdir(parents=True)
    for path in folder.iterdir():
        shutil.copyfile(path, ours / "blobs" / f"hash-{path.name}")
        (snapshot / path.name).symlink_to(f"../../blobs/hash-{path.name}")
    assert open_model(str(snapshot)).hub_id == "a/b"
    (theirs / "blobs" / "hash").write_text("{}")
    (snapshot / "vocab.json").symlink_to("../../../models--c--d/blobs/hash")
    with pytest.raises(InputError, match=r"vocab\.json is a link out of"):
        open_model(str(snapshot))


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/etc/passwd", "sub/.x.safetensors", "..", "", ".x.safetensors"]
)
def test_an_index_that_points_outside(name: str, folder: Path) -> None:
    index = {"metadata": {}, "weight_map": {"model.norm.weight": name}}
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="names a file outside of its directory"):
        open_model(str(folder))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_pipes_are_not_waited_for(name: str, folder: Path) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(InputError, match="no regular file"):
        open_model(str(folder))


def test_absurd_sizes_of_text_files(folder: Path) -> None:
    with open(folder / "special_tokens_map.json", "wb") as file:
        file.truncate(2**30)
    with pytest.raises(InputError, match=r"has 1,073,741,824 bytes, more than any model's"):
        open_model(str(folder))


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": -1},
        {"num_hidden_layers": "2"},
        {"num_hidden_layers": True},
        {"hidden_size": 10**9},
        {"head_dim": 10**12},
        {"num_attention_heads": 0},
        {"vocab_size": 2**40},
        {"text_config": {"num_hidden_layers": 10**9}},
        {"max_position_embeddings": 10**18},
    ],
)
def test_absurd_configs_are_refused_at_once(changes: dict[str, Any], folder: Path) -> None:
    change_config(folder, **changes)
    began = time.process_time()
    with pytest.raises(InputError, match="which no model has: use the config"):
        open_model(str(folder))
    assert time.process_time() - began < 2


def test_more_blocks_than_there_are_tensors_of(folder: Path) -> None:
    change_config(folder, num_hidden_layers=4000)
    with pytest.raises(InputError, match=r"tensors of 2 blocks, its config\.json says 4000"):
        open_model(str(folder))


def test_configs_that_nest_for_ever_or_are_no_object(folder: Path) -> None:
    (folder / "config.json").write_text('{"a": ' * 50_000)
    with pytest.raises(InputError, match="nested too deeply"):
        open_model(str(folder))
    (folder / "config.json").write_text("[1]")
    with pytest.raises(InputError, match="holds no JSON object"):
        open_model(str(folder))


def test_tokenizers_that_are_damaged(folder: Path) -> None:
    for content in ("{}", '{"a": ' * 50_000, '{"model": {"type": "BPE", "vocab": 3}}'):
        (folder / "tokenizer.json").write_text(content)
        with pytest.raises(InputError, match="no tokenizer that can be loaded"):
            load_tokenizer(folder)


@pytest.mark.parametrize(
    "pattern",
    [
        *("(a+)+$", "((a+)b?)*c", "(a|a)*b", "(?:x{2,})+y", "(", "[z-a]"),
        *(".*" * 10 + "X$", ".*?" * 10 + "X$", ".{0,9}" * 9 + "X", "a?" * 28 + "a{28}$"),
        *("(a?){28}a{28}$", "(.?){40}X", "(a|a)" * 28 + "b"),
        *(r"(a+[\](]x)+$", "(a+(?#()x)+$", "(?x)(a+#)\n)+$"),
    ],
)
def test_patterns_that_would_not_end(pattern: str) -> None:
    with pytest.raises(ValueError):
        check_pattern(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        *(r".*\.layers\.(0|1)\.(mlp\.down_proj)$", r".*[+*](q|k)_proj$", "Linear"),
        *(r"(a|b)?\(\w+\)*", ".*self_attn.*", ".*mlp.gate$", ".*layers.*attn.*(q|k)_proj.*"),
        r".*\.layers\.(" + "|".join(map(str, range(126))) + r")\.(q|k|v|qkv)_proj$",
        r".*\.mlp\.experts\.\d+\.(gate|up|down)_proj$",
        r"model\.layers\.(\d|[12]\d)\.(?:self_attn|mlp)\..*_proj",
    ],
)
def test_patterns_that_servers_use(pattern: str) -> None:
    check_pattern(pattern)


@pytest.mark.parametrize("pattern", [".*" * 5 + "X$", "a?" * 20 + "a*X$", "(a|a)" * 16 + ".*.*X$"])
def test_patterns_that_pass_end_soon(pattern: str) -> None:
    check_pattern(pattern)
    began = time.process_time()
    assert not re.match(pattern, "a" * 60)
    assert time.process_time() - began < 5


CONFIGURATION = """
from pathlib import Path
from transformers import LlamaConfig
Path({mark!r}).touch()
class OwnConfig(LlamaConfig):
    model_type = "llama"
"""
MODELING = """
from transformers import LlamaForCausalLM
from .configuration_own import OwnConfig
class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def own_code(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A model that brings Python, and the file that this Python makes when it is run."""
    mark = tmp_path / "it-was-run"
    (folder / "configuration_own.py").write_text(CONFIGURATION.format(mark=str(mark)))
    (folder / "modeling_own.py").write_text(MODELING)
    names = {
        "AutoConfig": "configuration_own.OwnConfig",
        "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
    }
    change_config(folder, model_type="own", auto_map=names)
    cache = str(tmp_path / "modules")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", cache)
    monkeypatch.syspath_prepend(cache)
    for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
        monkeypatch.delitem(sys.modules, name)
    return folder, mark


def test_code_of_a_model_is_not_run(own_code: tuple[Path, Path]) -> None:
    folder, mark = own_code
    with pytest.raises(
        InputError, match="Python of its own, which is not run: give --trust-remote"
    ):
        open_model(str(folder))
    change_config(folder, model_type="llama")
    # transformers has this architecture itself.
    assert type(open_model(str(folder)).shell).__name__ == "LlamaForCausalLM"
    assert not mark.exists()


def test_code_of_a_model_is_run_where_it_is_trusted(own_code: tuple[Path, Path]) -> None:
    folder, mark = own_code
    model = open_model(str(folder), trust_remote_code=True)
    assert mark.exists()
    assert type(model.shell).__name__ == "OwnForCausalLM"
    assert set(model.hash()) >= {"configuration_own.py", "modeling_own.py"}


def test_a_trusted_model_goes_to_another_process(
    own_code: tuple[Path, Path], tmp_path: Path
) -> None:
    """One that knows nothing of the directory's Python yet."""
    model = open_model(str(own_code[0]), trust_remote_code=True)
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(model))
    program = (
        "import pickle, sys; model = pickle.load(open(sys.argv[1], 'rb'));"
        "print(type(model.shell).__name__, model.blocks)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "model.pickle")]
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "others")}
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert printed.stdout.split() == ["OwnForCausalLM", str(model.blocks)]


def test_a_tokenizer_of_its_own_is_not_run(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "it-was-run"
    (folder / "tokenization_own.py").write_text(f"open({str(mark)!r}, 'w')\nclass Own: pass\n")
    config = {
        "tokenizer_class": "Own",
        "auto_map": {"AutoTokenizer": ["tokenization_own.Own", None]},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="comes with Python of its own"):
        load_tokenizer(folder)
    assert not mark.exists()


def test_weights_that_change_or_go_while_they_are_read(folder: Path) -> None:
    model = open_model(str(folder))
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt", "other": "x"})
    with pytest.raises(InputError, match="has changed since the model was opened"):
        model.read_block(0)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="has gone since the model was opened"):
        model.read_block(0)


def test_no_library_is_asked_to_unpickle() -> None:
    """Nothing reads a pickle from a file: torch.load is never called, pickle only carries tasks
    between processes of one run, and transformers is told to take safetensors only."""
    root = ROOT
    texts = {
        path: path.read_text(encoding="utf-8")
        for package in ("mixedprec", "diagnose", "app")
        for path in (root / package).rglob("*.py")
    }
    for path, text in texts.items():
        assert "torch.load(" not in text and "pickle.load(" not in text, path
        assert "import pickle" not in text or path.parent.name == "machine", path
        if "AutoModelForCausalLM.from_pretrained(" in text and path.name != "card.py":
            assert "use_safetensors=True" in text, path
