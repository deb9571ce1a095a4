"""An adapter folded into its base, and the proof that the result computes what was trained."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from transformers import AutoTokenizer, GenerationConfig

from peftune.allocator import give_back_freed_memory
from peftune.artefacts import DTYPES
from peftune.errors import ParityError, RecipeError
from peftune.export.adapter import WEIGHTS_FILE
from peftune.export.card import without_folders
from peftune.export.combination import combine
from peftune.export.merge import merge
from peftune.export.package import COMPANIONS, copy_files
from peftune.export.parity import PROBE, Opened, Probe, Tensors, plain_scores, prove
from peftune.export.requantized import requantize
from peftune.export.settling import aside_of
from peftune.fingerprints import file_sha256
from peftune.model.base import load_config, load_skeleton
from peftune.model.location import model_location, weight_files
from peftune.quantization import BACKENDS, Dequantizer, QuantizationSection
from peftune.records import write_json
from peftune.sources import Source, quantizer

REPORT = "merge_report.json"
DRAWN = (4, 16)


def dequantizer_of(source: Source) -> Dequantizer:
    """What the quantized weights that the adapter was trained on stand for."""
    keys = quantizer(source)
    return Dequantizer(load_skeleton(source.model, source.head), keys["quantization_config"])


def write_merged(
    source: Source, adapter_folder: Path, out: Path, accept: Callable[[Path], None]
) -> None:
    """A model that loads without peft, in `model.dtype`, with everything a loader needs.

    `accept` looks at the complete folder, which is not at `out` yet. One that it raises a ParityError
    for goes to `out` with `.rejected` behind it.
    """
    quantized = dequantizer_of(source) if source.dequantized else None
    skeleton, files = load_skeleton(source.model, source.head), weight_files(source.model)

    def finish(aside: Path) -> None:
        write_companions(source, adapter_folder, aside)
        accept(aside)

    merge(adapter_folder, skeleton, files, out, DTYPES[source.model.dtype], finish, quantized)


def write_companions(source: Source, adapter_folder: Path, folder: Path) -> None:
    """The tokenizer, and how text is generated; the base's own where the adapter has none."""
    own, location = str(adapter_folder), model_location(source.model)
    known = (adapter_folder / "tokenizer_config.json").is_file()
    revision = None if known else source.model.revision
    tokenizer = AutoTokenizer.from_pretrained(
        own if known else location,
        revision=revision,
        trust_remote_code=source.model.trust_remote_code,
    )
    tokenizer.save_pretrained(folder)
    if source.head.objective.writes and (adapter_folder / "generation_config.json").is_file():
        GenerationConfig.from_pretrained(adapter_folder).save_pretrained(folder)


def opened_merged(source: Source, folder: Path) -> Opened:
    """How a fresh process opens a merged model."""
    return Opened(
        model=str(folder),
        auto_class=source.head.objective.auto_class,
        dtype=source.model.dtype,
        bytes=sum(path.stat().st_size for path in folder.glob("*.safetensors")),
        attn_implementation=source.model.attn_implementation,
        trust_remote_code=source.model.trust_remote_code,
    )


def opened_adapter(source: Source, folder: Path) -> Opened:
    """How a fresh process opens an adapter on the base that it was trained on."""
    keys = quantizer(source)
    # JSON knows no numbers as keys, and for scores the names of labels are not needed.
    names = ("id2label", "label2id")
    head = {key: one for key, one in source.head.config_keys().items() if key not in names}
    return Opened(
        model=model_location(source.model),
        auto_class=source.head.objective.auto_class,
        dtype=source.model.dtype,
        bytes=sum(path.stat().st_size for path in weight_files(source.model)),
        adapter=str(folder),
        revision=source.model.revision,
        attn_implementation=source.model.attn_implementation,
        trust_remote_code=source.model.trust_remote_code,
        head=head,
        quantization=keys["quantization_config"].to_dict() if keys else None,
    )


def merge_proven(source: Source, folder: Path, out: Path, verify: bool = True) -> None:
    """The merged model of an adapter at `out`, with a report of how it and the adapter's own files
    compare to what was trained.

    The rows are those that the run kept, or drawn ones where there is no run. Raises ParityError when
    the merged model's scores are others, which leaves it at `out` with `.rejected` behind it.
    """
    give_back_freed_memory()
    probe = probe_of(source, folder) if verify else None
    accept = reported(source, folder, probe, merge_bound(source), {})
    write_merged(source, folder, out, accept)


def merge_into_bits(
    source: Source, folder: Path, out: Path, method: str, verify: bool = True
) -> None:
    """The same, quantized again, which no adapter was trained for: it has to be nearer to what was
    trained than the base is. The model in between is at `out` with `.plain` behind it meanwhile."""
    if method not in BACKENDS:
        raise RecipeError(f"--quantize: {method} is none of {', '.join(BACKENDS)}.")
    aside_of(out)
    give_back_freed_memory()
    plain = out.with_name(f"{out.name}.plain")
    probe = probe_of(source, folder) if verify else None
    write_merged(source, folder, plain, accept=lambda aside: None)
    chosen: TypeAdapter[Any] = TypeAdapter(QuantizationSection)
    section = chosen.validate_python({"method": method})
    keys = quantizer(replace(source, quantization=section))
    accept = reported(source, folder, probe, None, {"quantization": method})
    kind, dtype = source.head.objective.auto_class, source.model.dtype
    try:
        requantize(plain, out, kind, dtype, keys["quantization_config"], accept)
    finally:
        shutil.rmtree(plain)


def weighted(typed: list[str]) -> dict[Path, float]:
    """Folders and their weights, as FOLDER=WEIGHT. Raises RecipeError."""
    found = {}
    for one in typed:
        folder, _, weight = one.rpartition("=")
        try:
            found[Path(folder)] = float(weight)
        except ValueError as error:
            raise RecipeError(
                f"--also: {one} is not FOLDER=WEIGHT, as in outputs/qa=0.5."
            ) from error
    return found


@contextmanager
def adapter_of(
    source: Source,
    first: Path,
    also: list[str],
    weight: float | None,
    kind: str | None,
    density: float | None,
) -> Iterator[Path]:
    """The folder of an adapter; with others beside it one for what they make together, with what stands
    beside the first. Raises RecipeError for what only several could use, and ModelError."""
    if not also:
        for option, value in (("weight", weight), ("combination", kind), ("density", density)):
            if value is not None:
                raise RecipeError(f"--{option}: {value} is for several adapters; add --also.")
        yield first
        return
    weights = {first: 1.0 if weight is None else weight, **weighted(also)}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        combine(load_skeleton(source.model, source.head), weights, kind or "cat", density, folder)
        copy_files(first, folder, COMPANIONS)
        yield folder


def reported(
    source: Source, folder: Path, probe: Probe | None, bound: float | None, more: dict[str, Any]
) -> Callable[[Path], None]:
    """What looks at a merged model before it gets its name, and writes `merge_report.json` into it."""
    about = {
        "adapter_sha256": file_sha256(folder / WEIGHTS_FILE),
        "base": without_folders(source.model.model_name_or_path),
        "revision": source.model.revision,
        "merge_base": "dequantized" if source.dequantized else "original",
        "dtype": source.model.dtype,
        **more,
    }

    def accept(aside: Path) -> None:
        if probe is None:
            write_json(aside / REPORT, {**about, "accepted": None, "parity": None})
            return
        opened = {
            opened_merged(source, aside): bound,
            opened_adapter(source, folder): source.adapter_bound,
        }
        try:
            merged, adapter = prove(probe, opened, source.chooses)
        except ParityError as error:
            numbers = asdict(error.parity) if error.parity else str(error)
            write_json(aside / REPORT, {**about, "accepted": False, "parity": numbers})
            raise
        found = {"parity": asdict(merged), "adapter_parity": asdict(adapter)}
        write_json(aside / REPORT, {**about, "accepted": True, **found})

    return accept


def merge_bound(source: Source) -> float | None:
    """None where the adapter is merged into other weights than it was trained on."""
    return None if source.quantization is not None and not source.dequantized else source.bound


def probe_of(source: Source, folder: Path) -> Probe:
    """The run's own, or drawn tokens scored by a fresh process with plain peft."""
    if (folder / PROBE).is_file():
        return Probe.load(folder / PROBE)
    inputs, places = drawn_inputs(source)
    (found,) = plain_scores([opened_adapter(source, folder)], {**inputs, **places})
    return Probe(inputs, places, found["adapted"], found["base"])


def drawn_inputs(source: Source) -> tuple[Tensors, Tensors]:
    """Tokens that stand for no text, `DRAWN` (rows, tokens), and the places of a probe."""
    config = load_config(source.model)
    text = config.get_text_config()
    special = {config.pad_token_id, config.eos_token_id, source.head.pad_token_id}
    usual = torch.tensor([one for one in range(text.vocab_size) if one not in special])
    generator = torch.Generator().manual_seed(0)
    ids = usual[torch.randint(len(usual), DRAWN, generator=generator)]
    if isinstance(config.eos_token_id, int) and not source.head.objective.generates:
        # BART and its kin read a row's label off its end token.
        ids[:, -1] = config.eos_token_id
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if source.head.objective.auto_class == "AutoModelForSeq2SeqLM":
        inputs["decoder_input_ids"] = ids.flip(1).contiguous()
    rows = torch.arange(DRAWN[0])
    if source.head.objective.name == "label":
        return inputs, {"rows": rows}
    tokens = torch.arange(DRAWN[1]).repeat(DRAWN[0])
    return inputs, {"rows": rows.repeat_interleave(DRAWN[1]), "tokens": tokens}
