"""Models on the Hugging Face hub, brought here by its own client, and why one does not come."""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import constants, get_token, snapshot_download
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.untrusted import read_json

# The client, 2.4, keeps files that have come whole; of others it begins again in another process.
GO_ON = "check the network and run it again: whole files that have come are kept"
INDEX = "model.safetensors.index.json"


def download(name: str, wanted: Sequence[str], revision: str | None = None) -> Path:
    """The directory of a model on the hub, its files of the patterns `wanted` downloaded where they
    are not in the cache. revision: a branch, tag or commit; None for the main one. InputError, with
    what mends it, where the hub does not give it."""
    at = "" if revision is None else f" at {revision}"
    try:
        path = Path(snapshot_download(name, revision=revision, allow_patterns=list(wanted)))
    except HFValidationError as error:
        raise InputError(f"there is no model directory {name}", "check the path") from error
    except GatedRepoError as error:
        raise InputError(
            f"{name} is gated on the hub, and this account may not have it",
            f"ask for it at {constants.ENDPOINT}/{name}, then give its account's token as HF_TOKEN",
        ) from error
    except RepositoryNotFoundError as error:
        token = "the token in use may not see it" if get_token() else "give HF_TOKEN if it is"
        raise InputError(
            f"the hub knows no model {name}, or it is private",
            f"check the id; of a private one, {token}",
        ) from error
    except RevisionNotFoundError as error:
        raise InputError(
            f"{name} has no revision {revision}", "give a branch, a tag or a commit of it"
        ) from error
    except DisabledRepoError as error:
        raise InputError(f"the hub has disabled {name}", "give another model") from error
    except IncompleteSnapshotError as error:
        found = Path(error.snapshot_path)
        _check_whole(name, found)
        raise InputError(f"the hub's cache holds a part of {name} only", GO_ON) from error
    except LocalEntryNotFoundError as error:
        # Where the hub does not answer as it should, the client looks into its cache.
        if isinstance(error.__cause__, HfHubHTTPError):
            raise _not_given(f"{name}{at}", error.__cause__) from error
        off = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
        remedy = "unset it" if constants.HF_HUB_OFFLINE else "check the network"
        raise InputError(
            f"{name}{at} is neither a local directory nor in the hub's cache, and {off}",
            f"{remedy}, or give the directory of a model",
        ) from error
    except HfHubHTTPError as error:
        raise _not_given(f"{name}{at}", error) from error
    except OSError as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"the download of {name}{at} broke off ({said})", GO_ON) from error
    _check_whole(name, path)
    return path


def _not_given(what: str, error: HfHubHTTPError) -> InputError:
    status = getattr(error.response, "status_code", "no answer")
    return InputError(f"the hub did not give {what} (HTTP {status})", GO_ON)


def _check_whole(name: str, path: Path) -> None:
    """Raise InputError for a directory in the cache of which a part has not come: without a network
    the client gives what there is."""
    missing = [] if (path / "config.json").exists() else ["config.json"]
    try:
        index = read_json(path / INDEX)
        shards = sorted({str(shard) for shard in index["weight_map"].values()})
    except (OSError, LookupError, AttributeError, TypeError, ValueError):
        # Whoever reads the weights says what is wrong with an index.
        shards = []
    missing += [shard for shard in shards if not (path / shard).exists()]
    if not shards and not any(path.glob("*.safetensors")):
        missing.append("the weights (safetensors)")
    if missing:
        listed = missing[0] if len(missing) == 1 else f"{missing[0]} and {len(missing) - 1} more"
        raise InputError(
            f"the hub's cache holds a part of {name} only: {listed} did not come", GO_ON
        )
