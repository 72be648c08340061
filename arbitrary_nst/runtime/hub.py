"""Weights from and to the Hugging Face hub: the file model.safetensors of a repository, and its model card."""

import re
from functools import cache
from pathlib import Path
from typing import Any

from arbitrary_nst.errors import HubError, WeightsNotFoundError

FILE, CARD = "model.safetensors", "README.md"

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[^@\s]+)?")
_FILES = (".safetensors", ".onnx", ".pt", ".pth", ".ckpt", ".bin", ".zip")


def is_repository(source: str) -> bool:
    """Return True if a text can name a repository: OWNER/NAME or OWNER/NAME@REVISION, and does not look like a file."""
    return _REPOSITORY.fullmatch(source) is not None and not source.partition("@")[0].lower().endswith(_FILES)


@cache
def download(source: str) -> Path:
    """The model file of a repository, from the hub's cache (`HF_HOME`) or else downloaded into it.

    A process asks the hub once. Without a network the cached file is taken.

    Args:
        source: OWNER/NAME, or OWNER/NAME@REVISION with a branch, a tag or a commit.

    Raises WeightsNotFoundError, naming the repository and what to do.
    """
    from huggingface_hub import errors as hub
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    name, _, revision = source.partition("@")
    place: dict[str, Any] = {"repo_id": name, "filename": FILE, "revision": revision or None}
    try:
        if not isinstance(try_to_load_from_cache(**place), str):
            get_hf_file_metadata(hf_hub_url(**place))  # fails at once where hf_hub_download retries for 23 seconds
        return Path(hf_hub_download(**place))
    except hub.GatedRepoError as error:
        reason = "access to it must be granted on its page, then log in with `hf auth login`"
        raise WeightsNotFoundError(f"{source}: {reason}") from error
    except hub.RepositoryNotFoundError as error:
        reason = "no such file or folder here, and no such repository on the Hugging Face hub; check the name"
        raise WeightsNotFoundError(f"{source}: {reason}, or log in with `hf auth login` if it is private") from error
    except hub.RevisionNotFoundError as error:
        raise WeightsNotFoundError(f"{source}: the repository has no revision '{revision}'; check it") from error
    except hub.RemoteEntryNotFoundError as error:
        reason = f"the repository has no {FILE}, and other files of weights are not loaded"
        raise WeightsNotFoundError(f"{source}: {reason}") from error
    except Exception as error:  # no network, of which every library has its own kinds
        raise WeightsNotFoundError(
            f"{source}: no such file or folder here, and {FILE} is neither in the Hugging Face cache nor can be "
            f"downloaded ({_cause(error)}); connect to the network once, or set HF_HOME to a cache that has it"
        ) from error


def upload(file: Path, card: str, source: str) -> str:
    """Put a model file and its card into a repository, in one commit, and return the address of the commit.

    The repository is made if there is none; it is public then.

    Args:
        file: the model; its name in the repository is model.safetensors.
        card: Markdown, which becomes README.md.
        source: OWNER/NAME, or OWNER/NAME@BRANCH.

    Raises HubError where the hub cannot be reached or refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    name, _, branch = source.partition("@")
    operations: list[Any] = [CommitOperationAdd(FILE, str(file)), CommitOperationAdd(CARD, card.encode())]
    try:
        api = HfApi()
        api.create_repo(name, exist_ok=True)
        if branch:
            api.create_branch(name, branch=branch, exist_ok=True)
        return api.create_commit(
            name, operations, commit_message="Model and card from arbitrary_nst", revision=branch or None
        ).commit_url
    except Exception as error:
        raise HubError(
            f"--hub {source}: cannot be uploaded ({_cause(error)}); log in with `hf auth login` or set HF_TOKEN to a "
            "token that may write there, and check the network"
        ) from error


def _cause(error: BaseException) -> str:
    """The kind and the first words of the innermost error, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:200]}" if words else type(error).__name__
