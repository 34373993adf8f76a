"""Checkpoints opened whatever they came as, a directory, an id on the hub or a GGUF file: beside
the reference that they were made from, or alone."""

import copy
from pathlib import Path

from awqscope.mixedprec.foreign.candidate import Candidate, fit_candidate, open_candidate
from awqscope.mixedprec.foreign.gguf import open_gguf
from awqscope.mixedprec.gguf.origin import is_gguf
from awqscope.mixedprec.models.opening import frame_model, read_config, resolve_path
from awqscope.mixedprec.models.source import SourceModel


def open_beside(name: str, reference: SourceModel) -> Candidate:
    """Open a checkpoint of the architecture of `reference`. InputError where it cannot be read, or
    is another's."""
    path = Path(name)
    return open_gguf(path, reference) if is_gguf(path) else open_candidate(name, reference)


def open_alone(name: str, *, trust_remote_code: bool = False) -> Candidate:
    """Open a checkpoint by what it says of itself. InputError where it cannot be read.

    trust_remote_code: run the Python that its directory brings, where its config.json names any."""
    if is_gguf(Path(name)):
        return open_gguf(Path(name), None)
    path = resolve_path(name, trust_remote_code=trust_remote_code)
    raw, config = read_config(path, trust_remote_code=trust_remote_code)
    # Making a shell changes what the configuration says.
    said = copy.deepcopy(config)
    frame = frame_model(name, path, said, plain=False, trust_remote_code=trust_remote_code)
    return fit_candidate(name, path, raw, config, frame)
