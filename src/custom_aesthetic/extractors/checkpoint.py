"""Open a checkpoint by name, a local folder or a hub repository: its configuration, weights and fingerprint."""

import hashlib
import json
import logging
import queue
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from custom_aesthetic.base.errors import UserError

HUB_ANSWER_SECONDS = 5.0
"""Timeout of one request to the hub."""

HUB_DEADLINE_SECONDS = 12.0
"""Time after which a small file counts as unreachable, even if a name server or proxy is still waiting."""

CHOICES = (
    "give the path of a local folder that holds the model, or use the packaged `efficientnet-lite2`, "
    "which needs no download"
)

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Names of weight files, in order of preference; an index lists several files."""

MOST_JSON_BYTES = 16 * 2**20
"""A larger configuration or index of weight files is not read."""

MOST_NAME_LETTERS = 1000

SAMPLE_BYTES = 64 * 1024
N_SAMPLES = 64

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose configuration has been read; its weights may not be downloaded yet."""

    name: str
    folder: Path | None
    """The local folder; None for a hub repository."""
    commit: str | None
    """The commit of the hub repository; None for a local folder."""
    config: dict[str, Any]
    online: bool = False
    """Whether the hub has answered; if not, only files in the hub's cache are used."""
    offline: bool = False
    """Whether the hub must never be asked, also for other checkpoints that this one needs."""


def open_checkpoint(name: str, *, offline: bool = False) -> Checkpoint:
    """Return the checkpoint of a local folder or hub repository; UserError if there is none.

    With `offline` the hub is never asked for this checkpoint, now or later: only folders and the hub's cache are used.
    """
    folder = named_folder(name)
    if folder.is_dir():
        config = _file_in(folder, "config.json", name)
        if config is None:
            raise UserError(f"feature extractor {name}: the folder holds no config.json; {CHOICES}")
        return Checkpoint(name, folder, None, _read_config(config, name), offline=offline)
    if is_path(name):
        found = "is a file" if folder.is_file() else "does not exist"
        raise UserError(f"feature extractor {name}: the folder {found}; {CHOICES}")
    return _open_cached(name) if offline else _open_hub(name)


def named_folder(name: str) -> Path:
    """Return the name as a path; UserError if it cannot be the name of a folder or a model."""
    try:
        if len(name) > MOST_NAME_LETTERS:
            raise ValueError
        folder = Path(name).expanduser()
        if not folder.exists() and not name.isprintable():
            raise ValueError
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "this cannot be the name of a folder or a model"
        raise UserError(f"feature extractor {name[:80]!r}: {reason}; {CHOICES}") from None
    return folder


def optional_json(checkpoint: Checkpoint, filename: str) -> dict[str, Any] | None:
    """Return the content of a small JSON file of the checkpoint, None if it has no such file.

    If the hub cannot be reached, a file that is not in its cache counts as missing.
    """
    path = _file(checkpoint, filename, hurry=True)
    return None if path is None else _read_json(path, checkpoint.name)


def weights_files(checkpoint: Checkpoint) -> list[Path]:
    """Return the checkpoint's weight files on this machine, after downloading them if needed (this may take long)."""
    for filename in WEIGHTS:
        path = _file(checkpoint, filename, hurry=False)
        if path is None:
            continue
        if not filename.endswith(".index.json"):
            return [path]
        shards = _shard_names(_read_json(path, checkpoint.name), filename, checkpoint.name)
        paths = [_file(checkpoint, shard, hurry=False) for shard in shards]
        missing = [shard for shard, shard_path in zip(shards, paths, strict=True) if shard_path is None]
        if missing or not shards:
            raise UserError(
                f"feature extractor {checkpoint.name}: {filename} names {missing or 'no files'}, which are missing"
            )
        return [shard_path for shard_path in paths if shard_path is not None]
    raise UserError(
        f"feature extractor {checkpoint.name}: none of {', '.join(WEIGHTS)} was found"
        f"{'' if checkpoint.folder or checkpoint.online else ' (the hub is out of reach)'}; {CHOICES}"
    )


def _shard_names(index: dict[str, Any], filename: str, name: str) -> list[str]:
    """Return the weight files that an index lists; UserError unless all of them are inside the checkpoint's folder."""
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise UserError(f"feature extractor {name}: the weight_map of {filename} names no files; get the file again")
    shards = sorted(set(weight_map.values()))
    for shard in shards:
        parts = re.split(r"[/\\]", shard)
        if not re.fullmatch(r"[\w.,+@ /\\-]{1,255}", shard) or {"", ".", ".."} & set(parts):
            raise UserError(
                f"feature extractor {name}: {filename} names the weight file {shard[:80]!r}, which does not lie in the "
                "checkpoint's folder and is not opened; get the checkpoint from another place"
            )
    return shards


def checkpoint_fingerprint(checkpoint: Checkpoint) -> str:
    """Return text that changes whenever the weights or the configuration change.

    For a hub repository it is the commit. For a local folder it is a hash of `config.json` and, for each weight file,
    of its size and of 64 samples of 64 KiB spread over it, including its beginning (with the safetensors header) and
    end. A file of up to 4 MiB is hashed completely. File times and the place of the folder do not matter.
    """
    if checkpoint.commit is not None:
        return f"commit={checkpoint.commit}"
    digest = hashlib.sha256(json.dumps(checkpoint.config, sort_keys=True).encode())
    for path in weights_files(checkpoint):
        digest.update(f"{path.name} {path.stat().st_size}".encode())
        _hash_samples(path, digest.update)
    return f"sha256={digest.hexdigest()[:32]}"


def _hash_samples(path: Path, update: Callable[[bytes], None]) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= N_SAMPLES * SAMPLE_BYTES:
            update(file.read())
            return
        for i in range(N_SAMPLES):
            file.seek((size - SAMPLE_BYTES) * i // (N_SAMPLES - 1))
            update(file.read(SAMPLE_BYTES))


def is_path(name: str) -> bool:
    """Return whether the name is meant as a path: hub names have the form `name` or `owner/name`."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", name) is None or Path(name).exists()


def _file_in(folder: Path, filename: str, name: str) -> Path | None:
    """Return a file of a local checkpoint, None if it has none; UserError for a link that leads out of the folder.

    Links to blobs are allowed in a folder of the hub's cache, which consists of such links.
    """
    path = folder / filename
    if not path.is_file():
        return None
    real, home = path.resolve(), folder.resolve()
    blobs = home.parent.parent / "blobs"
    if home in real.parents or (home.parent.name == "snapshots" and real.parent == blobs):
        return path
    raise UserError(
        f"feature extractor {name}: {filename} is a link that leads out of the folder, to {real}, and is not opened; "
        "put the file itself into the folder"
    )


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        if path.stat().st_size > MOST_JSON_BYTES:
            raise ValueError(f"it is larger than {MOST_JSON_BYTES // 2**20} MiB")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        json.dumps(content)  # raises RecursionError now rather than later
    except RecursionError:
        raise UserError(f"feature extractor {name}: {path.name} is nested too deep; get the file again") from None
    except (ValueError, OSError) as error:
        raise UserError(f"feature extractor {name}: cannot read {path.name} ({error}); get the file again") from error
    if not isinstance(content, dict):
        raise UserError(f"feature extractor {name}: {path.name} is not a JSON object; get the file again")
    return content


def _read_config(path: Path, name: str) -> dict[str, Any]:
    """Return the configuration; UserError if `vision_config` or `model_type` has the wrong type."""
    config = _read_json(path, name)
    for key, kind, called in (("vision_config", dict, "an object"), ("model_type", str, "text")):
        if config.get(key) is not None and not isinstance(config[key], kind):
            raise UserError(f"feature extractor {name}: {key} of config.json is not {called}; get the file again")
    return config


def _open_cached(name: str) -> Checkpoint:
    """Return the checkpoint from the hub's cache on this machine; UserError if it is not in it."""
    cached = _cached(name, "config.json", None)
    if cached is None:
        raise UserError(
            f"feature extractor {name}: neither a local folder nor downloaded before, and --offline forbids asking the "
            f"hub; {CHOICES}"
        )
    return Checkpoint(name, None, cached.parent.name, _read_config(cached, name), offline=True)


def _open_hub(name: str) -> Checkpoint:
    from huggingface_hub import constants
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError

    logger.info("%s: asking %s for this model, as no local folder has that name", name, constants.ENDPOINT)
    try:
        commit, path = within(HUB_DEADLINE_SECONDS, lambda: _hub_config(name))
    except Exception as error:
        if not is_hub_trouble(error):
            raise
        cached = _cached(name, "config.json", None)
        if cached is not None:
            logger.warning("%s: the hub does not answer; using the copy already downloaded", name)
            return Checkpoint(name, None, cached.parent.name, _read_config(cached, name))
        if isinstance(error, GatedRepoError):
            reason = "the hub asks for permission (accept the model's terms there and log in with `hf auth login`)"
        elif isinstance(error, RepositoryNotFoundError):
            reason = "neither a local folder nor a model on the hub"
        elif isinstance(error, EntryNotFoundError):
            reason = "the hub's repository holds no config.json"
        else:
            reason = f"the hub is out of reach ({type(error).__name__})"
        raise UserError(f"feature extractor {name}: {reason}; {CHOICES}") from error
    return Checkpoint(name, None, commit, _read_config(path, name), online=True)


def _hub_config(name: str) -> tuple[str, Path]:
    """Return the newest commit of a hub repository and its config.json."""
    from huggingface_hub import hf_hub_download

    commit = _hub_commit(name)
    cached = _cached(name, "config.json", commit)
    if cached is not None:
        return commit, cached
    # Without a revision, so that the cache records the newest commit, by which it is found again without the hub.
    path = Path(hf_hub_download(name, "config.json", etag_timeout=HUB_ANSWER_SECONDS))
    return path.parent.name, path


def _hub_commit(name: str) -> str:
    """Return the newest commit of a hub repository, with one request and no retries."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import OfflineModeIsEnabled

    if constants.HF_HUB_OFFLINE:
        raise OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
    commit = get_hf_file_metadata(hf_hub_url(name, "config.json"), timeout=HUB_ANSWER_SECONDS).commit_hash
    if commit is None:
        raise OSError("no hub answers at its address")
    return commit


def _file(checkpoint: Checkpoint, filename: str, *, hurry: bool) -> Path | None:
    """Return one file of the checkpoint on this machine, None if it has no such file.

    The file is downloaded if needed. `hurry` limits the time for that to HUB_DEADLINE_SECONDS.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    if checkpoint.folder is not None:
        return _file_in(checkpoint.folder, filename, checkpoint.name)
    cached = _cached(checkpoint.name, filename, checkpoint.commit)
    if cached is not None or not checkpoint.online or checkpoint.offline:
        return cached

    def download() -> str:
        return hf_hub_download(checkpoint.name, filename, revision=checkpoint.commit, etag_timeout=HUB_ANSWER_SECONDS)

    try:
        return Path(within(HUB_DEADLINE_SECONDS, download) if hurry else download())
    except EntryNotFoundError:
        return None
    except Exception as error:
        if not is_hub_trouble(error):
            raise
        raise UserError(
            f"feature extractor {checkpoint.name}: the download of {filename} broke off ({error}); "
            f"run the same command again to go on, or {CHOICES}"
        ) from error


def _cached(name: str, filename: str, commit: str | None) -> Path | None:
    """Return the file in the hub's cache here, None if it is not in it; `commit` None is the newest downloaded."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(name, filename, revision=commit)
    return Path(path) if isinstance(path, str) else None


def is_hub_trouble(error: Exception) -> bool:
    """Return whether an error is caused by the network, the hub or the name, rather than by a bug."""
    from huggingface_hub.errors import HfHubHTTPError

    http_errors = tuple(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")
    return isinstance(error, (OSError, *http_errors)) or type(error).__module__ == "huggingface_hub.errors"


def within(seconds: float, call: Callable[[], Result]) -> Result:
    """Return the result of `call` or raise its error; TimeoutError after `seconds`.

    After a timeout the call goes on in its thread and its result is ignored.
    """
    answers: queue.Queue[tuple[Result | None, Exception | None]] = queue.Queue()

    def run() -> None:
        try:
            answers.put((call(), None))
        except Exception as error:  # raised again in the waiting thread
            answers.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        result, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} seconds") from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]
