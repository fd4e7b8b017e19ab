"""Models on a hub: fetch the model file of a repository, publish a folder as one. Uses huggingface_hub."""

import contextlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.extractors.checkpoint import HUB_ANSWER_SECONDS, HUB_DEADLINE_SECONDS, is_hub_trouble, within
from custom_aesthetic.hub.card import FILE

log = logging.getLogger(__name__)

SUFFIX = ".safetensors"
NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


def is_repository_name(text: str) -> bool:
    """Return whether this can be `user/repo` or `user/repo@revision`; names of model files cannot."""
    return NAME.fullmatch(text) is not None and not text.endswith(SUFFIX)


def fetch_model(name: str, *, offline: bool = False) -> Path:
    """Return the model file of `user/repo` or `user/repo@revision`, downloaded unless the hub's cache has it.

    Without an answer from the hub, or with `offline`, it is the folder of the copy downloaded before. UserError if
    there is no such model, or no such copy.
    """
    repository, _, revision = name.partition("@")
    if offline:
        with _explained(f"model {name}", offline=True):
            return _downloaded_before(repository, revision)
    from huggingface_hub import constants, hf_hub_download

    log.info("%s: asking %s for this model, as no file or folder here has that name", name, constants.ENDPOINT)
    with _explained(f"model {name}"):
        try:
            file = within(HUB_DEADLINE_SECONDS, lambda: _find(repository, revision))
        except Exception as error:
            if not is_hub_trouble(error) or _status(error) is not None:
                raise
            with contextlib.suppress(OSError):
                folder = _downloaded_before(repository, revision)
                log.warning("%s: the hub does not answer; using the copy downloaded before", name)
                return folder
            raise
        return Path(hf_hub_download(repository, file, revision=revision or None, etag_timeout=HUB_ANSWER_SECONDS))


def _find(repository: str, revision: str) -> str:
    """Return the name of the model file in a repository, by one request or two.

    UserError if the repository does not hold one model file.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, list_repo_files
    from huggingface_hub.errors import EntryNotFoundError, OfflineModeIsEnabled

    if constants.HF_HUB_OFFLINE:
        raise OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
    wanted = revision or None
    try:
        get_hf_file_metadata(hf_hub_url(repository, FILE, revision=wanted), timeout=HUB_ANSWER_SECONDS)
        return FILE
    except EntryNotFoundError:
        found = [file for file in list_repo_files(repository, revision=wanted) if file.endswith(SUFFIX)]
    if len(found) != 1:
        raise UserError(
            f"model {repository}: the hub's repository should hold one model file, *{SUFFIX}, and holds "
            f"{', '.join(found[:5]) or 'none'}; download the file and name it"
        )
    return found[0]


def _downloaded_before(repository: str, revision: str) -> Path:
    """Return the folder of the files of a repository in the hub's cache; an OSError of the client if there is none."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(repository, revision=revision or None, local_files_only=True))


def publish_folder(folder: Path, repository: str, *, private: bool | None, token: str | None) -> str:
    """Upload the files of a folder as one commit to a repository, made where it is missing; return its address."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with _explained(f"cannot publish {repository}", instead="write the same files to a folder by save_folder"):
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Publish the model and its card")
    return f"{api.endpoint}/{repository}"


@contextlib.contextmanager
def _explained(what: str, *, instead: str = "give a model file", offline: bool = False) -> Iterator[None]:
    """Turn errors of the hub, the network and the name into one line; `instead` is what can be done without a hub."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not is_hub_trouble(error):
            raise
        raise UserError(f"{what}: {_reason(error, instead=instead, offline=offline)}") from error


def _reason(error: Exception, *, instead: str, offline: bool) -> str:
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        LocalTokenNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status = _status(error)
    if isinstance(error, HFValidationError):
        return f"the hub allows no such name ({_first_line(error)})"
    if isinstance(error, GatedRepoError):
        return "the hub asks for permission; accept the model's terms there and log in with `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return "the repository has no such revision; name a branch, tag or commit after the @"
    if isinstance(error, RepositoryNotFoundError) and status != 401:
        return "neither a file or folder here nor a model on the hub that you may read; check the name"
    if status in (401, 403) or isinstance(error, LocalTokenNotFoundError):
        return "the hub does not let you; log in with `hf auth login`, or give a token that may do this"
    if isinstance(error, LocalEntryNotFoundError) and offline:
        return f"not downloaded before, and offline=True forbids asking the hub; {instead}"
    if status is not None:
        return f"the hub refuses ({_first_line(error)})"
    return f"the hub is out of reach ({type(error).__name__}); try again later, or {instead}"


def _status(error: Exception) -> int | None:
    """Return the status of the hub's answer; None without an answer."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
