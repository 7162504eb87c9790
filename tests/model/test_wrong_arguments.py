"""Wrong arguments of the public functions give errors of our own, which name the argument and what it takes."""

from __future__ import annotations

import re

import numpy as np
import pytest

import ditzoo
from ditzoo.errors import UsageError

DIT = ditzoo.card("dit-digits")

WRONG = {
    "ditzoo.make_plan(3)": "model must be a model's name, a bundle's folder, a Card or a Bundle, not 3",
    "ditzoo.make_plan('dit-digit')": "unknown model 'dit-digit'; did you mean dit-digits",
    "ditzoo.make_plan('./nowhere')": "there is no bundle in nowhere",
    "ditzoo.make_plan(DIT, steps='20')": "steps must be a whole number of steps, not '20'",
    "ditzoo.make_plan(DIT, steps=2.5)": "steps must be a whole number of steps, not 2.5",
    "ditzoo.make_plan(DIT, solver=3)": "solver must be a solver's name, such as 'ddim:eta=0.5', not 3",
    "ditzoo.make_plan(DIT, guidance='high')": "guidance must be a number, not 'high'",
    "ditzoo.make_plan(DIT, guidance_interval=3)": "guidance_interval must be two noise levels, such as (0.28, 2.9), not 3",
    "ditzoo.card(3)": "name must be a model's name, such as 'dit-digits', not 3",
    "ditzoo.load(None)": "model must be a model's name",
    "ditzoo.load('dit-digit')": "unknown model 'dit-digit'; did you mean dit-digits",
    "ditzoo.load('digits-bundle')": "there is no folder of this name here",
    "ditzoo.load('dit-digits', backend=3)": "backend must be a backend's name with its options",
    "ditzoo.load('dit-digits', backend='tosch')": "unknown backend 'tosch'; did you mean torch",
    "ditzoo.load('dit-digits', device='tpu')": "unknown device 'tpu'",
    "ditzoo.open_backend('torch', 3)": "model must be a model's name, a bundle's folder, a Card or a Bundle, not 3",
    "ditzoo.decode(3, np.zeros((1, 1, 8, 8)))": "model must be a model's name",
    "ditzoo.decode(DIT, [1, 2])": "latents must be a numpy array [N, C, h, w], such as sample gives, not [1, 2]",
    "ditzoo.sample('torch', PLAN, classes=[1])": "backend must be an opened backend, such as open_backend gives, not 'torch'",
    "ditzoo.sample(MODEL.backend, 20, classes=[1])": "plan must be a Plan, such as make_plan makes, not 20",
    "ditzoo.sample(MODEL.backend, PLAN, classes=3)": "classes must be a list of class numbers and names, such as [3, 'seven'],",
    "ditzoo.sample(MODEL.backend, PLAN, classes=[2.5])": "or a text such as '0-9', not 2.5",
    "ditzoo.sample(MODEL.backend, PLAN, classes=[10])": "class 10 is out of range; dit-digits knows 0 to 9",
    "ditzoo.sample(MODEL.backend, PLAN, classes=[1], seed='x')": "seed must be a whole number, 0 to",
    "ditzoo.sample(MODEL.backend, PLAN, classes=[1], batch=1.5)": "batch must be a whole number, 1 or more, not 1.5",
    "MODEL.sample(classes=3)": "classes must be a list of class numbers and names",
    "MODEL.sample(classes=['cat'])": "unknown class 'cat'; known: eight",
    "MODEL.sample(classes=[])": "classes is empty; choose at least one class",
    "MODEL.sample(num=0)": "the number of images must be 1 or more, not 0",
    "MODEL.sample(num='4')": "the number of images must be a whole number, 1 or more, not '4'",
    "MODEL.sample(prompts=['a cat'])": "dit-digits takes no prompts; choose classes",
    "MODEL.sample(prompts=3)": "prompts must be a text or a list of texts, not 3",
    "MODEL.sample(plan=3)": "plan must be a Plan, or the path of one that was saved, not 3",
    "MODEL.sample(batch=0)": "batch must be 1 or more, not 0",
    "ditzoo.Plan.load(3)": "path must be the path of a plan's JSON file, not 3",
    "ditzoo.pull(3)": "model must be a model's name, hf:OWNER/REPO or a Card, not 3",
    "ditzoo.list_models(3)": "pattern must be a text: a pattern such as 'dit-xl-*', or a part of a name, not 3",
    "ditzoo.list_models(family='dot')": "unknown family 'dot'; did you mean dit",
    "ditzoo.export_onnx(3, 'out')": "model must be a model's name",
    "ditzoo.export_onnx('dit-digits', 3)": "out must be the path of a folder, not 3",
    "ditzoo.export_tensorrt('dit-digits', 3)": "out must be the path of a folder, not 3",
    "ditzoo.open_bundle(3)": "path must be the path of a bundle's folder, not 3",
    "ditzoo.open_backend(3, DIT)": "name must be a backend's name, such as 'onnxruntime:int8', not 3",
    "ditzoo.open_backend('torch', DIT, device=3)": "device must be a text, such as cpu, cuda or cuda:1, not 3",
    "ditzoo.compare('torch', MODEL.backend, PLAN, classes=[1])": "reference must be an opened backend, such as",
    "ditzoo.compare(MODEL.backend, MODEL.backend, 3, classes=[1])": "plan must be a Plan, such as make_plan makes, not 3",
    "ditzoo.parity('dit-digits', backends=3)": "backends must be a text or a list, such as 'torch,onnxruntime'",
    "ditzoo.parity('dit-digits', backends=['torch'])": "backends needs two or more",
    "ditzoo.parity('dit-digits', against='x.npz', classes=[1])": "x.npz states what was drawn; leave out --classes",
    "ditzoo.parity('dit-digits', tolerance={'forwards': 1})": "unknown limit 'forwards'; did you mean forward",
}


@pytest.fixture(scope="module")
def model() -> ditzoo.Model:
    return ditzoo.load("dit-digits")


@pytest.mark.parametrize("code", WRONG)
def test_wrong_arguments_are_our_own_errors(code: str, model: ditzoo.Model) -> None:
    names = {"ditzoo": ditzoo, "np": np, "DIT": DIT, "MODEL": model, "PLAN": ditzoo.make_plan(DIT, steps=2)}
    with pytest.raises(UsageError, match=re.escape(WRONG[code])):
        eval(code, names)  # noqa: S307
