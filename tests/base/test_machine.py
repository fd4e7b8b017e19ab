"""The choice of a device."""

import pytest

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.machine import choose_device


@pytest.mark.parametrize("name", ["nonsense", "", "cuda:99", "meta", "xla"])
def test_an_unusable_device_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"--device={name} cannot be used: .*; use auto, cpu, cuda or mps") as refused:
        choose_device(name)
    assert len(str(refused.value)) < 500


def test_the_cpu_can_be_chosen_and_auto_finds_a_device() -> None:
    assert choose_device("cpu:0").type == "cpu"
    assert choose_device("auto").type in ("cuda", "mps", "cpu")
