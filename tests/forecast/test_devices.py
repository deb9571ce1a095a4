"""Devices by name, by memory, and what is refused."""

import pytest

from peftune.errors import LaunchError
from peftune.forecast.devices import GIB, GPUS, device_named


@pytest.mark.parametrize("name", GPUS)
def test_devices_of_the_table_have_every_rate(name: str) -> None:
    device = device_named(name.upper())
    rates = (device.memory, device.half_flops, device.full_flops, device.bandwidth, device.link)
    assert all(rate > 0 for rate in rates) and device.kind == "cuda"


def test_a_device_by_its_memory_alone_has_no_speed() -> None:
    device = device_named("24GB")
    assert (device.memory, device.half_flops) == (24 * GIB, 0)


def test_a_device_by_memory_and_rate() -> None:
    device = device_named("24GB:165")
    assert (device.memory, device.half_flops) == (24 * GIB, 165e12)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("h10", "--gpu: 'h10' is no device that is known. Did you mean h100? Give one of "),
        ("24", "--gpu: '24' is no device that is known."),
        ("24GB:", "--gpu: '24GB:' is no device that is known."),
        ("0GB", "--gpu: '0GB' has no memory."),
    ],
)
def test_other_words_are_refused(text: str, said: str) -> None:
    with pytest.raises(LaunchError) as refused:
        device_named(text)
    assert str(refused.value).startswith(said)
