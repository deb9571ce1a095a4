"""Headers of safetensors files: what passes means to us what it means to the format's own library."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from peftune.errors import UnsafeFileError
from peftune.untrusted.patterns import check_patterns
from peftune.untrusted.tensor_header import BITS, check_finite, read_header
from tests.untrusted.guard import with_header

QUICK = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SOUND = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b.half": np.ones((2, 2), dtype=np.float16),
    "empty": np.zeros((0, 4), dtype=np.float32),
    "scalar": np.array(7, dtype=np.int64),
}


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """A small file by the library itself, with an empty tensor and a scalar."""
    save_file(SOUND, tmp_path / "sound.safetensors", metadata={"format": "pt"})
    return tmp_path / "sound.safetensors"


def by_the_library(path: Path) -> dict[str, tuple[str, tuple[int, ...]]] | None:
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {n: (one.get_dtype(), tuple(one.get_shape())) for n, one in slices.items()}
    except (SafetensorError, OSError):
        return None


def by_us(path: Path) -> dict[str, tuple[str, tuple[int, ...]]] | None:
    try:
        return {n: (one.dtype, one.shape) for n, one in read_header(path).entries.items()}
    except UnsafeFileError as error:
        assert "\n" not in str(error)
        return None


def test_a_sound_file_is_read_as_it_is(sound: Path) -> None:
    assert by_us(sound) == by_the_library(sound)
    assert by_us(sound) == {
        "a.weight": ("F32", (2, 3)),
        "b.half": ("F16", (2, 2)),
        "empty": ("F32", (0, 4)),
        "scalar": ("I64", ()),
    }
    check_finite(read_header(sound))


@pytest.mark.parametrize("dtype", BITS)
def test_every_type_of_the_format_is_known(dtype: str, tmp_path: Path) -> None:
    entry = {"dtype": dtype, "shape": [8], "data_offsets": [0, BITS[dtype]]}
    with_header(tmp_path / "a.safetensors", json.dumps({"a": entry}).encode(), b"\0" * BITS[dtype])
    assert by_us(tmp_path / "a.safetensors") == {"a": (dtype, (8,))}
    assert by_the_library(tmp_path / "a.safetensors") == {"a": (dtype, (8,))}


@given(data=st.data())
@QUICK
def test_what_is_not_refused_is_what_the_library_sees(data: st.DataObject, sound: Path) -> None:
    """Bytes of the header are changed, removed or put in; whatever passes means the same to both."""
    content = sound.read_bytes()
    length = 8 + int.from_bytes(content[:8], "little")
    changed = bytearray(content[:length])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(changed) - 1))
        new = data.draw(
            st.binary(max_size=2) | st.sampled_from([b'"', b"{", b"[", b",", b"0", b"9"])
        )
        changed[place : place + data.draw(st.integers(0, 2))] = new
    path = sound.with_name("changed.safetensors")
    path.write_bytes(bytes(changed) + content[length:])
    read = by_us(path)
    assert read is None or read == by_the_library(path)


@given(content=st.binary(max_size=200))
@QUICK
def test_any_bytes_are_refused_or_read_alike(content: bytes, sound: Path) -> None:
    path = sound.with_name("bytes.safetensors")
    path.write_bytes(content)
    read = by_us(path)
    assert read is None or read == by_the_library(path)


def test_refusing_takes_no_memory(tmp_path: Path) -> None:
    """A file of 150 MB on paper, whose header would be all of it."""
    path = tmp_path / "a.safetensors"
    path.write_bytes((140_000_000).to_bytes(8, "little"))
    with path.open("ab") as file:
        file.truncate(150_000_000)
    tracemalloc.start()
    with pytest.raises(UnsafeFileError, match="claims a header of 140,000,000 bytes"):
        read_header(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10**6


@pytest.mark.parametrize("bits", [0x7F80, 0xFF80, 0x7FC1])
def test_numbers_of_bfloat16_that_are_none(bits: int, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    entry = {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}
    values = np.array([0x7F7F, 0x0001, bits], dtype="<u2")
    with_header(path, json.dumps({"a": entry}).encode(), values.tobytes())
    with pytest.raises(UnsafeFileError, match="the tensor 'a' holds NaN or infinite numbers"):
        check_finite(read_header(path))


def test_patterns_that_people_write_pass() -> None:
    """Of peft's documentation, and of those who adapt models of images and text."""
    layers = [f"model.layers.{n}.self_attn.{p}_proj" for n in range(60) for p in "qkvo"]
    patterns = [
        r".*decoder.*(SelfAttention|EncDecAttention).*(q|v)$",
        r"(?:.*?(?:language|text).*?(?:self_attn|mlp).*?(?:q_proj|k_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\..*)",
        r"^(?!.*(?:visual|lm_head)).*(?:q_proj|v_proj)$",
        "all-linear",
    ]
    check_patterns([("target_modules", pattern) for pattern in patterns], layers, "config")


def test_a_pattern_without_end_is_stopped() -> None:
    with pytest.raises(UnsafeFileError, match=r"^config: b: '\(a\+\)\+b' takes more than 1 s"):
        check_patterns([("a", "a+"), ("b", "(a+)+b")], ["a" * 60], "config")
