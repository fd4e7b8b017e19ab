"""What every script does around its work."""

import gc
from collections.abc import Iterator, Sequence

import pytest

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.settings.console import run_script


@pytest.fixture(autouse=True)
def _thawed() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize(
    ("error", "code"), [(None, 0), (KeyboardInterrupt(), 130), (UserError("no pictures"), 2)], ids=str
)
def test_a_script_ends_without_a_final_garbage_collection(error: BaseException | None, code: int) -> None:
    def run(argv: Sequence[str]) -> None:
        if error is not None:
            raise error

    assert run_script(run) == code
    assert gc.get_freeze_count() > 0
