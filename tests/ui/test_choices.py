"""What the page offers."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

import ditzoo
from ditzoo.backends import table
from ditzoo.errors import CheckpointError, MissingPackageError
from ditzoo.model import opening
from ditzoo.sampling.classes import choose_classes
from ditzoo.ui import choices as library
from ditzoo.ui.choices import backend_texts, check_decoder, choices, class_choices
from ditzoo.ui.orders import MOST_IMAGES, most_images
from ditzoo.zoo.card import Embedded


def test_the_embedded_models_come_first_and_run_here() -> None:
    offered = choices()
    embedded = [model.name for model in offered if model.state == "embedded"]
    assert {"dit-digits", "uvit-digits"} <= set(embedded)
    assert [model.name for model in offered][: len(embedded)] == embedded
    assert all(model.state == "cached" for model in offered[len(embedded) :])
    (digits,) = [model for model in offered if model.name == "dit-digits"]
    assert {"torch", "onnxruntime", "openvino", "torch:bf16"} <= {each.text for each in digits.backends if not each.refusal}
    assert (digits.solver, digits.steps, digits.guidance, digits.reusable) == ("ddpm", 50, 1.6, 2)
    assert "flow-euler" not in digits.solvers


@pytest.mark.parametrize("name", ["dit-digits", "dit-xl-2-256"])
def test_the_text_of_a_class_chooses_that_class(name: str) -> None:
    card = ditzoo.card(name)
    offered = class_choices(card)
    assert choose_classes(card, ",".join(each.text for each in offered)) == list(range(card.number_of_classes))


def test_names_of_several_classes_are_chosen_by_number() -> None:
    cardigans = [each.text for each in class_choices(ditzoo.card("dit-xl-2-256")) if each.name.lower() == "cardigan"]
    assert cardigans == ["264", "474"]


def test_what_is_not_installed_is_refused_with_its_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(row: table.BackendRow) -> None:
        if row.name == "openvino":
            raise MissingPackageError("pip install 'ditzoo[openvino]'")

    monkeypatch.setattr(opening, "check_packages", refuse)
    model = choices()[0]
    refused = {each.text: each.refusal for each in model.backends if each.refusal}
    assert set(refused) == {"openvino", "openvino:bf16", "openvino:int8"}
    assert set(refused.values()) == {"pip install 'ditzoo[openvino]'"}


def test_gpus_bring_their_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_capability", lambda: 0)
    on_cpu = backend_texts()
    assert not any("cuda" in text or "tensorrt" in text for text in on_cpu)
    assert "onnxruntime:bf16" not in on_cpu
    monkeypatch.setattr(library, "_capability", lambda: 75)
    old = backend_texts()
    assert {"torch:cuda", "onnxruntime:cuda:fp16", "tensorrt", "tensorrt_rtx:int8"} <= set(old) - set(on_cpu)
    assert "tensorrt:fp8" not in old
    monkeypatch.setattr(library, "_capability", lambda: 90)
    assert {"tensorrt:fp8", "onnxruntime:cuda:bf16"} <= set(backend_texts()) - set(old)


def test_large_pictures_are_fewer() -> None:
    card = ditzoo.card("dit-xl-2-256")
    assert most_images(card) == MOST_IMAGES
    backbone = msgspec.structs.replace(card.backbone, input_size=64)
    assert most_images(msgspec.structs.replace(card, backbone=backbone)) == MOST_IMAGES // 4


def test_a_model_without_its_decoder_is_refused_with_the_reason() -> None:
    """No file of the Hub is in the cache of the tests."""
    with pytest.raises(CheckpointError, match="`ditzoo sample dit-xl-2-256` fetches it"):
        check_decoder(ditzoo.card("dit-xl-2-256"))
    for card in ditzoo.CARDS.values():
        if isinstance(card.weights, Embedded):
            check_decoder(card)


def test_offering_and_serving_import_no_library_that_runs_networks() -> None:
    code = "import sys, ditzoo.ui.app, ditzoo.ui.drawing, ditzoo.ui.choices as c; c.choices()\n"
    code += "print(*{'torch', 'onnxruntime', 'openvino', 'onnx'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
