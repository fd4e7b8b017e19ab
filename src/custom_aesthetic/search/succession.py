"""Choice of the study for a search: the study of that name, or a successor `NAME-2` if pictures or scores changed."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage

from custom_aesthetic.base import interrupts
from custom_aesthetic.base.database_urls import shown_url
from custom_aesthetic.base.errors import UserError
from custom_aesthetic.search.space import clipped_parameters, searched_parameters
from custom_aesthetic.search.storage import (
    close_storage,
    is_there,
    open_storage,
    patiently,
    refuse_journal_behind_proxy,
)
from custom_aesthetic.search.study import IDENTITY, complete_trials
from custom_aesthetic.settings.head_parameters import INTEGER_PARAMETERS, SearchSpace

log = logging.getLogger(__name__)

SERIES = "series"
"""User attribute of a successor: the study name given by the user."""

DATA = ("images", "scores", "split", "weights", "table")
"""Parts of a study's identity that change when a user scores more pictures; all others are settings."""

N_SEEDS = 5
"""A successor starts with the parameters of this many of the best trials."""

IDENTITY_SECONDS = 10
"""How long to wait for the process that creates a study to write its identity, before another one writes it."""


@dataclass(frozen=True)
class Wanted:
    """The study that a search needs."""

    name: str
    maximize: bool
    identity: Mapping[str, str]
    """Everything that the scores of its trials depend on, by name."""
    space: SearchSpace
    weighs_states: bool
    """Whether heads have trained hidden-state weights."""
    place: str
    """The database as shown in messages, without passwords."""


def open_study(storage: BaseStorage, wanted: Wanted, database: str) -> optuna.Study:
    """Return the newest study on the same data, out of the study of that name and its successors, or a new one.

    Raises UserError if the newest study has other settings, because the scores would not be comparable. Processes that
    start at the same moment agree on one study, because study names are unique.
    """
    while True:
        names = _names(storage)
        known = _series(storage, wanted.name, names)
        for study in reversed(known):
            if not _differing(study, wanted.identity):
                refuse_journal_behind_proxy(storage, database)
                _say_bounds(study, wanted)
                return study
        if known:
            _check_settings(known[-1], wanted)
        number = max([1, *(_number(name, wanted.name) for name in names)]) + 1
        created = _create(storage, wanted, known, f"{wanted.name}-{number}" if known else wanted.name)
        if created is not None:
            refuse_journal_behind_proxy(storage, database)
            return created


def check_newest(database: str, name: str, settings: Mapping[str, str]) -> None:
    """Raise UserError where all studies of that name and its successors were made with other settings than these.

    `settings` is the part of the identity that is known before the features are computed; it lacks their number of
    columns. This check saves the time of computing features for a search that would then be refused.
    """
    if not database or not is_there(database):
        return
    storage = open_storage(database)
    try:
        recorded = [study.user_attrs.get(IDENTITY) for study in _series(storage, name, _names(storage), patient=False)]
    finally:
        close_storage(storage)
    known = [identity for identity in recorded if identity is not None]
    if not known or any(not _differing_settings(identity, settings) for identity in known):
        return
    _refuse(name, shown_url(database), known[-1], settings, _differing_settings(known[-1], settings))


def _names(storage: BaseStorage) -> list[str]:
    return patiently(optuna.get_all_study_names, storage)


def _differing_settings(recorded: Mapping[str, str], settings: Mapping[str, str]) -> list[str]:
    before = {**recorded, "features": recorded.get("features", "").rpartition("; ")[0]}
    return [key for key in dict.fromkeys((*settings, "folds", "prior")) if before.get(key) != settings.get(key)]


def newest_name(storage: BaseStorage, name: str) -> str:
    """Return the name of the newest successor of the study of that name, or the name itself if it has none."""
    return _series(storage, name, _names(storage))[-1].study_name


def _series(storage: BaseStorage, name: str, names: Sequence[str], *, patient: bool = True) -> list[optuna.Study]:
    """Return the study of that name and its successors, oldest first; `names` are all studies in the storage.

    `patient` waits for the identity of a study that is just being created.
    """
    numbers = {known: 1 if known == name else _number(known, name) for known in names}
    found = []
    for candidate in sorted(filter(numbers.get, names), key=lambda known: numbers[known]):
        study = patiently(optuna.load_study, study_name=candidate, storage=storage)
        is_recorded = candidate == name or not patient or _recorded(study) is not None
        if candidate == name or (is_recorded and study.user_attrs.get(SERIES) == name):
            found.append(study)
    return found


def _number(known: str, name: str) -> int:
    """Return 2 for `NAME-2` and so on; 0 for any other name."""
    number = known.removeprefix(f"{name}-")
    is_number = known.startswith(f"{name}-") and number.isascii() and number.isdecimal() and len(number) < 10
    return int(number) if is_number and int(number) > 1 else 0


def _recorded(study: optuna.Study) -> Mapping[str, str] | None:
    """Return a study's identity, after waiting for it if the study is just being created; None if it has none."""
    for _ in range(IDENTITY_SECONDS * 10):
        if IDENTITY in study.user_attrs or patiently(study.get_trials, deepcopy=False):
            return study.user_attrs.get(IDENTITY)  # read after the trials, because it is written before them
        interrupts.wait(0.1)
    return None


def _differing(study: optuna.Study, identity: Mapping[str, str]) -> list[str]:
    """Return the names of the parts of the identity that differ; adopts a study whose creator has died."""
    recorded = _recorded(study)
    if recorded is None and not patiently(study.get_trials, deepcopy=False):
        patiently(study.set_user_attr, IDENTITY, dict(identity))
        recorded = identity
    if recorded is None:
        raise UserError(f"study {study.study_name} was not created by this program; choose another --name")
    return [key for key in {**recorded, **identity} if recorded.get(key) != identity.get(key)]


def _check_settings(study: optuna.Study, wanted: Wanted) -> None:
    """Raise UserError if a study has other settings, apart from the data."""
    differing = _differing(study, wanted.identity)
    data = [*DATA, "accuracy_divider"] if "scores" in differing else DATA  # the divider defaults to the median score
    settings = [key for key in differing if key not in data]
    if settings:
        _refuse(study.study_name, wanted.place, study.user_attrs[IDENTITY], wanted.identity, settings)


def _refuse(
    name: str, place: str, recorded: Mapping[str, str], wanted: Mapping[str, str], differing: Sequence[str]
) -> NoReturn:
    named = ", ".join(f"{key} ({recorded.get(key, 'none')}; now {wanted.get(key, 'none')})" for key in differing)
    raise UserError(
        f"study {name} in {place} was made with other {named}; use the earlier settings, or choose another "
        "--name for a new study"
    )


def _create(storage: BaseStorage, wanted: Wanted, known: list[optuna.Study], name: str) -> optuna.Study | None:
    """Return a new study that starts from the best trials of the known ones; None if another process created it."""
    direction = "maximize" if wanted.maximize else "minimize"
    try:
        study = patiently(optuna.create_study, study_name=name, storage=storage, direction=direction)
    except DuplicatedStudyError:
        return None
    if known:
        patiently(study.set_user_attr, SERIES, wanted.name)
    patiently(study.set_user_attr, IDENTITY, dict(wanted.identity))
    if known:
        n_seeds = _seed(study, known, wanted)
        changed = ", ".join(key for key in _differing(known[-1], wanted.identity) if key in DATA)
        log.info(
            "%s changed since study %s: the new study %s starts from the parameters of its %d best trials",
            changed, known[-1].study_name, name, n_seeds,
        )  # fmt: skip
    return study


def _seed(study: optuna.Study, known: list[optuna.Study], wanted: Wanted) -> int:
    """Queue the parameters of the best trials of the newest study that has complete ones; return how many."""
    for former in reversed(known):
        best = complete_trials(former)[:N_SEEDS]
        for trial in best:
            values = clipped_parameters(
                {**trial.user_attrs, **trial.params}, wanted.space, weighs_states=wanted.weighs_states
            )
            patiently(study.enqueue_trial, values, skip_if_exists=True)
        if best:
            return len(best)
    return 0


def _say_bounds(study: optuna.Study, wanted: Wanted) -> None:
    """Log a warning that names the bounds that differ from those of the study's last trial, if any."""
    trials = complete_trials(study)
    if not trials:
        return
    last = max(trials, key=lambda trial: trial.number)
    changed = []
    for name, bounds in searched_parameters(wanted.space, weighs_states=wanted.weighs_states).items():
        before = _bounds(name, last.distributions.get(name), last.user_attrs)
        pairs = zip(("min", "max"), before, (bounds.low, bounds.high), strict=True) if before else ()
        changed += [f"--{end}_{name}={now:g} (was {then:g})" for end, then, now in pairs if then != now]
    if changed:
        log.warning(
            "study %s was searched within other bounds: now %s; its trials count, and new trials use the new bounds; "
            "choose another --name to search only these",
            study.study_name, ", ".join(changed),
        )  # fmt: skip


def _bounds(
    name: str, distribution: BaseDistribution | None, attributes: Mapping[str, float]
) -> tuple[float, float] | None:
    """Return the bounds that a parameter of a trial was drawn from; None if the trial does not record them."""
    if distribution is not None:
        return getattr(distribution, "low"), getattr(distribution, "high")  # noqa: B009 - the base class has neither
    value = attributes.get(name)
    if value is None:
        return None
    return (int(value), int(value)) if name in INTEGER_PARAMETERS else (value, value)
