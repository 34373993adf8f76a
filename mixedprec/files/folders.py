"""Directories of models that are either wholly there or not there, and the files that every copy of
a model has beside its weights."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.atomic import FULL
from awqscope.mixedprec.files.locks import take_lock
from awqscope.mixedprec.files.untrusted import list_visible

COPIED = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)


@contextlib.contextmanager
def hold_folder(partial: Path, out: Path) -> Iterator[None]:
    """Make the directory `partial` for what will be `out`, without what a killed process left in
    it, and keep it for this process alone; in the end it is gone. InputError where it cannot be
    made, or another process is writing it."""
    busy = InputError(
        f"{out} is being written by another process", "wait for it, or choose another"
    )
    try:
        partial.mkdir(parents=True, exist_ok=True)
        held = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise InputError(
            f"{out} cannot be made ({error.strerror})", "choose another directory"
        ) from error
    try:
        try:
            take_lock(held)
        except BlockingIOError as error:
            raise busy from error
        # Whoever held it until now may have renamed it since it was opened.
        if not partial.exists() or not os.path.samestat(os.stat(partial), os.fstat(held)):
            raise busy
        try:
            for path in partial.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            yield
        finally:
            if partial.exists() and os.path.samestat(os.stat(partial), os.fstat(held)):
                shutil.rmtree(partial, ignore_errors=True)
    finally:
        os.close(held)


def copy_companions(source: Path, out: Path, code: str | None) -> None:
    """Copy what a model has beside its weights and config.json: tokenizer and generation settings,
    and files that match `code`."""
    others = list_visible(source, code) if code else ()
    for name in (*COPIED, *(path.name for path in others)):
        if (source / name).exists():
            shutil.copyfile(source / name, out / name)
