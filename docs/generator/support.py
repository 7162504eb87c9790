"""The support matrix: which card runs on which backend in which precision, and how that was checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ditzoo.backends.table import ROWS, BackendRow
from ditzoo.families import family_of
from ditzoo.records import Data
from ditzoo.specs import PRECISION_TRAITS, PRECISIONS, Precision
from ditzoo.zoo import CARDS
from ditzoo.zoo.card import Card, Embedded
from docs.generator.markdown import code, page, table

_ROOT = Path(__file__).parents[2]


class Evidence(Data, frozen=True, kw_only=True):
    """How one backend was checked on a CPU in some precisions, and the file of the tests that check it."""

    backend: str
    precisions: tuple[Precision, ...]
    how: str
    tests: str


_ENGINES = (
    "the tests build engines of a network of every family. No engine runs on a CPU: whole samplings run on stand-ins for CUDA"
    " and TensorRT"
)

EVIDENCE = (
    Evidence(
        backend="torch",
        precisions=("fp32",),
        how="compared with the outputs of the authors' code: a network of every family, within 1e-5",
        tests="tests/nets/test_nets.py",
    ),
    Evidence(
        backend="torch",
        precisions=("fp64",),
        how="the embedded models are compared with fp32",
        tests="tests/cli/test_parity_command.py",
    ),
    Evidence(
        backend="torch",
        precisions=("bf16", "fp16"),
        how="the embedded models are compared with fp32",
        tests="tests/backends/test_backends.py",
    ),
    Evidence(
        backend="diffusers",
        precisions=("fp32", "bf16"),
        how="`dit-digits` is compared with fp32 of torch; the difference is that of the sinusoids",
        tests="tests/cli/test_parity_command.py",
    ),
    Evidence(backend="diffusers", precisions=("fp16",), how="not run by a test", tests=""),
    Evidence(
        backend="onnxruntime",
        precisions=("fp32", "int8"),
        how="the embedded models, and a network of every family, are compared with torch",
        tests="tests/export/test_grid.py",
    ),
    Evidence(
        backend="onnxruntime",
        precisions=("fp16",),
        how="the same, but a CPU computes in float32. So the export is also verified with the result of every node rounded",
        tests="tests/export/test_grid.py",
    ),
    Evidence(
        backend="onnxruntime",
        precisions=("bf16", "fp8"),
        how="the export is verified with the result of every node rounded, or with the scales of Q/DQ. A CPU does not run bf16",
        tests="tests/export/test_grid.py",
    ),
    Evidence(
        backend="openvino",
        precisions=("fp32", "bf16", "int8"),
        how="the embedded models are compared with torch",
        tests="tests/backends/test_backends.py",
    ),
    Evidence(
        backend="tensorrt",
        precisions=("fp32", "bf16", "fp16", "int8", "fp8"),
        how="every member that the code uses is compared with the API of TensorRT 10 and 11, and samplings run on stand-ins",
        tests="tests/backends/test_tensorrt.py",
    ),
    Evidence(
        backend="tensorrt_rtx",
        precisions=("fp32", "bf16", "fp16", "int8", "fp8"),
        how=_ENGINES,
        tests="tests/export/test_grid.py",
    ),
)
"""Every precision of every backend, once. `check` says if one is missing."""

_INTRODUCTION = """
The tables on this page are made from the tables in the code: the cards, the backends and the precisions. "Checked" means: by a
test that runs on a CPU, without a network. What was run on a GPU, and how, is on the page [GPUs](../gpu.md).
"""

_CARDS = """
A cell has the precisions that the backend computes the card's network in. `onnxruntime` in bf16 needs a GPU. Cards in one
row have networks of the same code. [Checkpoints](../checkpoints.md#what-each-card-was-compared-with) says what the network, the
sampler and the decoder of each card were compared with.
"""

_LIMITS = """
`ditzoo parity` and the tests hold these limits against fp32. [Parity](../parity.md#what-is-measured) defines the numbers.
"""


def support_page() -> str:
    """The text of the page. Raises ValueError if `EVIDENCE` does not fit the table of backends."""
    check(EVIDENCE)
    limits = table(["precision", "graphs for", "a GPU needs", "forward", "sample", "PSNR"], map(_limits, PRECISIONS))
    backends = table(["backend", "runs", "devices", "precision", "how it was checked on a CPU", "test"], _backend_rows())
    cards = table(["cards", "weights", *(code(row.name) for row in ROWS)], _card_rows())
    return page(
        "Support matrix",
        _INTRODUCTION,
        f"## Backend and precision\n\n{backends}",
        f"## Card and backend\n\n{_CARDS.strip()}\n\n{cards}",
        f"## Limits of each precision\n\n{_LIMITS.strip()}\n\n{limits}",
    )


def check(evidence: tuple[Evidence, ...]) -> None:
    """Raises ValueError unless every precision of every backend occurs once, and every file of tests exists."""
    stated = sorted((item.backend, precision) for item in evidence for precision in item.precisions)
    there = sorted((row.name, precision) for row in ROWS for precision in row.precisions)
    if stated != there:
        raise ValueError(f"the evidence is not that of the backends: {sorted(set(stated) ^ set(there)) or 'one occurs twice'}")
    for item in evidence:
        if item.tests and not (_ROOT / item.tests).is_file():
            raise ValueError(f"there is no {item.tests}")


def _backend_rows() -> Iterator[tuple[str, ...]]:
    for item in EVIDENCE:
        row = next(row for row in ROWS if row.name == item.backend)
        devices = ", ".join(row.devices) or "NVIDIA GPUs"
        yield code(row.name), row.runs, devices, ", ".join(item.precisions), item.how, code(item.tests) or "–"


def _card_rows() -> Iterator[tuple[str, ...]]:
    """One row for all cards whose networks have the same family, and that run on the same backends."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for card in CARDS.values():
        weights = "trained weights, in the package" if isinstance(card.weights, Embedded) else "random weights in the tests"
        key = (card.family, weights, *(_cell(row, card) for row in ROWS))
        groups.setdefault(key, []).append(code(card.name))
    for (_, *cells), names in groups.items():
        yield ", ".join(names), *cells


def _cell(row: BackendRow, card: Card) -> str:
    """The precisions that a backend computes a card in."""
    theirs = family_of(card.backbone).diffusers
    if not row.readable_modules and (theirs is None or theirs.refusal(card.backbone)):
        return "–"
    return ", ".join(row.precisions)


def _limits(precision: Precision) -> tuple[str, ...]:
    traits = PRECISION_TRAITS[precision]
    needs = f"sm{traits.capability}" if traits.capability else "–"
    limits = traits.tolerance
    return (
        precision,
        ", ".join(traits.targets) or "–",
        needs,
        f"{limits.forward:g}",
        f"{limits.sample:g}",
        f"{limits.psnr:g} dB",
    )
