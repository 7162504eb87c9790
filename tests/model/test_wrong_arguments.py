"""Wrong arguments of the public functions give errors of our own, which name the argument and what it takes."""

from __future__ import annotations

import re
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest

import ditzoo
from ditzoo.errors import PlanError, UsageError
from ditzoo.sampling.request import make_request

DIT = ditzoo.card("dit-digits")

WRONG = {
    "ditzoo.make_plan(3)": "model must be a model's name, a bundle's folder, a Card or a Bundle, not 3",
    "ditzoo.make_plan('dit-digit')": "unknown model 'dit-digit'; did you mean dit-digits",
    "ditzoo.make_plan('./nowhere')": "there is no bundle in nowhere",
    "ditzoo.make_plan(DIT, steps='20')": "steps must be a whole number of steps, not '20'",
    "ditzoo.make_plan(DIT, steps=2.5)": "steps must be a whole number of steps, not 2.5",
    "ditzoo.make_plan(DIT, solver=3)": "solver must be a solver's name, such as 'ddim:eta=0.5', not 3",
    "ditzoo.make_plan(DIT, guidance='high')": "guidance must be a finite number, not 'high'",
    "ditzoo.make_plan(DIT, guidance_interval=3)": "guidance_interval must be two noise levels, such as (0.28, 2.9), not 3",
    "ditzoo.card(3)": "name must be a model's name, such as 'dit-digits', not 3",
    "ditzoo.load(None)": "model must be a model's name",
    "ditzoo.load('dit-digit')": "unknown model 'dit-digit'; did you mean dit-digits",
    "ditzoo.load('digits-bundel')": "there is no folder of this name here",
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

TYPES = {
    "ditzoo.make_plan(DIT, guidance=HUGE)": "guidance must be a finite number, not about 1e5000",
    "ditzoo.make_plan(DIT, guidance=True)": "guidance must be a finite number, not True",
    "ditzoo.make_plan(DIT, steps=HUGE)": "steps must be 1 to 1000 (the schedule of dit-digits), not about 1e5000",
    "ditzoo.make_plan(DIT, steps=True)": "steps must be a whole number of steps, not True",
    "ditzoo.make_plan(DIT, guided_channels=HUGE)": "guided channels must be 0 to 1, not about 1e5000",
    "ditzoo.make_plan(DIT, guidance_interval=(HUGE, 3))": "such as (0.28, 2.9), not about 1e5000",
    "ditzoo.make_plan(DIT, guidance_interval='12')": "guidance_interval must be two noise levels, such as (0.28, 2.9), not '1'",
    "ditzoo.make_plan(DIT, guidance_times=(0, 1, 2))": "guidance_times must be two times, such as (0.125, 1), not (0, 1, 2)",
    "ditzoo.make_plan(DIT, guidance_every=True)": "guidance_every must be a whole number of rows, not True",
    "ditzoo.make_plan('a' * 100000)": "unknown model 'aaa",
    "ditzoo.make_plan('a/' + 'a' * 100000)": "there is no bundle in a/aaa",
    "ditzoo.load('dit-digits', threads='2')": "threads must be a whole number, 1 or more, not '2'",
    "ditzoo.load('dit-digits', threads=1.5)": "threads must be a whole number, 1 or more, not 1.5",
    "ditzoo.load('dit-digits', threads=True)": "threads must be a whole number, 1 or more, not True",
    "ditzoo.load('dit-digits', threads=HUGE)": "threads must be at most 1,024, not about 1e5000",
    "ditzoo.load('dit-digits', backend='auto', threads='2')": "threads must be a whole number, 1 or more, not '2'",
    "ditzoo.load('dit-digits', device='cuda:' + '9' * 5000)": "is not a device; use cpu, or a GPU with its number",
    "ditzoo.open_backend('torch', DIT, threads='2')": "threads must be a whole number, 1 or more, not '2'",
    "ditzoo.open_backend('torch', DIT, rows=0)": "rows must be 1 or more, not 0",
    "ditzoo.open_backend('torch', DIT, provider_options='a=b')": "provider_options must be a dictionary of texts, such as {",
    "ditzoo.open_backend('torch', DIT, provider_options={1: 2})": "provider_options must be a dictionary of texts, such as {",
    "ditzoo.open_backend('torch', DIT, profiles=None)": "profiles must be a list of Profile, not None",
    "ditzoo.open_backend('torch', DIT, profiles='a')": "profiles must be a list of Profile, not 'a'",
    "ditzoo.open_backend('torch', DIT, precision=TWO)": "unknown precision array([1, 2]); known: bf16, fp16",
    "ditzoo.open_backend('torch:fp16', DIT, precision='x' * 100000)": "unknown precision 'xxx",
    "ditzoo.open_backend('torch', DIT, form='x')": "unknown form 'x'; known: single, split",
    "ditzoo.open_backend('torch', DIT, form='x' * 100000)": "unknown form 'xxx",
    "ditzoo.open_backend('torch', DIT, compiled='no')": "compiled must be True or False (a bool), not 'no'",
    "ditzoo.open_backend('torch', DIT, tf32=TWO)": "tf32 must be True or False (a bool), not array([1, 2])",
    "ditzoo.tune_reuse(DIT, target=1.2, blocks='1')": "blocks must be a whole number of blocks, not '1'",
    "ditzoo.tune_reuse(DIT, target=1.2, blocks=1.0)": "blocks must be a whole number of blocks, not 1.0",
    "ditzoo.tune_reuse(DIT, target=1.2, blocks=HUGE)": "reuse with blocks=about 1e5000 leaves no middle blocks",
    "ditzoo.tune_reuse(DIT, target=1.2, backend=3)": "backend must be a backend's name with its options",
    "ditzoo.tune_reuse(DIT, target=1.2, threads='2')": "threads must be a whole number, 1 or more, not '2'",
    "ditzoo.tune_reuse(DIT, target=HUGE)": "target must be a factor, such as 1.8, not about 1e5000",
    "ditzoo.tune_reuse(DIT, target=1.2, classes=range(10**12))": "class 10 is out of range; dit-digits knows 0 to 9",
    "ditzoo.sample(MODEL.backend, PLAN, classes=[1], size=8)": "must be the height and width of the latents, such as (8, 8)",
    "ditzoo.sample(MODEL.backend, PLAN, classes=[1], size='8x8')": "such as (8, 8), not '8x8'",
    "ditzoo.sample(MODEL.backend, PLAN, classes=[1], size=(8, 8, 8))": "such as (8, 8), not (8, 8, 8)",
    "ditzoo.sample(MODEL.backend, PLAN, classes=[1], size=(8.0, 8))": "side of size must be a whole number, 1 or more, not 8.0",
    "ditzoo.sample(MODEL.backend, PLAN, classes=[1], size=(-8, 8))": "each side of size must be 1 or more, not -8",
    "ditzoo.sample(MODEL.backend, PLAN, classes=[1], size=(HUGE, 8))": "each side of size must be at most 32, not about 1e5000",
    "ditzoo.sample(MODEL.backend, PLAN, classes=[1], size=(7, 7))": "a resolution of 7x7 is no multiple of 2",
    "ditzoo.sample(MODEL.backend, PLAN, classes=np.array(3))": "classes must be a list of class numbers and names, such as",
    "ditzoo.sample(MODEL.backend, PLAN, classes=[True])": "or a text such as '0-9', not True",
    "ditzoo.sample(MODEL.backend, PLAN, classes=[HUGE])": "class about 1e5000 is out of range; dit-digits knows 0 to 9",
    "ditzoo.sample(MODEL.backend, PLAN, classes=range(10**12))": "class 10 is out of range; dit-digits knows 0 to 9",
    "ditzoo.sample(MODEL.backend, PLAN, classes=[1], seed=HUGE)": "seed must be 0 to 18446744073709551615, not about 1e5000",
    "ditzoo.sample(MODEL.backend, PLAN, count=10**25)": "the number of images must be at most 1,000,000, not 10,000,000,",
    "ditzoo.sample(MODEL.backend, PLAN, count=HUGE)": "the number of images must be at most 1,000,000, not about 1e5000",
    "MODEL.sample(classes=np.array(3))": "classes must be a list of class numbers and names, such as",
    "MODEL.sample(classes=range(10**12))": "class 10 is out of range; dit-digits knows 0 to 9",
    "MODEL.sample(classes=repeat(3))": "classes has more than 1,000,000 classes, one for each image; draw fewer images at once",
    "MODEL.sample(classes=','.join(['0-9'] * 100_001))": "classes has more than 1,000,000 classes",
    "MODEL.sample(prompts=np.array(3))": "prompts must be a text or a list of texts, not array(3)",
    "MODEL.sample(steps=TWO)": "steps must be a whole number of steps, not array([1, 2])",
    "MODEL.sample(solver=TWO)": "solver must be a solver's name, such as 'ddim:eta=0.5', not array([1, 2])",
    "MODEL.sample(guidance=TWO)": "guidance must be a finite number, not array([1, 2])",
    "MODEL.sample(num=HUGE)": "the number of images must be at most 1,000,000, not about 1e5000",
    "MODEL.sample(num=True)": "the number of images must be a whole number, 1 or more, not True",
    "MODEL.sample(resolution=HUGE)": "is none; write 256 or 256x384",
    "MODEL.sample(callback=3)": "callback must be a function of a Step, not 3",
    "ditzoo.pull('hf:a/b', timeout='30')": "--timeout must be a number of seconds, more than 0 and at most 86,400, not '30'",
    "ditzoo.pull('hf:a/b', timeout=HUGE)": "must be a number of seconds, more than 0 and at most 86,400, not about 1e5000",
    "ditzoo.pull('dit-digits', timeout=None)": "must be a number of seconds, more than 0 and at most 86,400, not None",
    "ditzoo.pull('dit-digits', pick=3)": "pick must be a Pick (ditzoo.checkpoint), not 3",
    "ditzoo.pull('dit-digits', update='no')": "update must be True or False (a bool), not 'no'",
    "ditzoo.pull('dit-digits', advance=3)": "advance must be a function of a file, the bytes so far, and its size, not 3",
    "ditzoo.export_tensorrt(DIT, OUT, gpu=None)": "must be current, or a list of architectures and cards, such as 'sm89,H100'",
    "ditzoo.export_tensorrt(DIT, OUT, gpu='a' * 100000)": "unknown GPU 'aaa",
    "ditzoo.export_tensorrt(DIT, OUT, options=None)": "options must be a list of options, such as ['refittable'], not None",
    "ditzoo.export_tensorrt(DIT, OUT, options='tf32')": "options must be a list of options, such as ['refittable'], not 'tf32'",
    "ditzoo.export_tensorrt(DIT, OUT, options=[3])": "unknown option 3; known: hardware_compatible",
    "ditzoo.export_tensorrt(DIT, OUT, workspace='1')": "the MB of --workspace must be a whole number, 1 or more, not '1'",
    "ditzoo.export_tensorrt(DIT, OUT, workspace=10**9)": "the MB of --workspace must be at most 10,000,000",
    "ditzoo.export_tensorrt(DIT, OUT, flavour=None)": "flavour must be tensorrt or tensorrt_rtx, not None",
    "ditzoo.export_tensorrt(DIT, OUT, precision=TWO)": "unknown precision array([1, 2]); known: bf16",
    "ditzoo.export_tensorrt(DIT, OUT, batch=1.5)": "batch must be a number of rows, or a list such as '1,4,8-16', not 1.5",
    "ditzoo.export_tensorrt(DIT, OUT, batch=HUGE)": "is not a batch size",
    "ditzoo.export_tensorrt(DIT, OUT, resolution=HUGE)": "is none; write 256, 256x384 or dynamic",
    "ditzoo.export_tensorrt(DIT, OUT, merged='no')": "merged must be True or False (a bool), not 'no'",
    "ditzoo.export_tensorrt(DIT, OUT, overwrite='no')": "overwrite must be True or False (a bool), not 'no'",
    "ditzoo.export_onnx(DIT, OUT, split=np.bool_(True))": "split must be True or False (a bool), not np.True_",
    "ditzoo.export_onnx(DIT, OUT, split='no')": "split must be True or False (a bool), not 'no'",
    "ditzoo.export_onnx(DIT, OUT, guided=np.bool_(True))": "guided must be True or False (a bool), not np.True_",
    "ditzoo.export_onnx(DIT, OUT, overwrite='no')": "overwrite must be True or False (a bool), not 'no'",
    "ditzoo.export_onnx(DIT, OUT, precision=TWO)": "unknown precision array([1, 2]); known: bf16",
    "ditzoo.export_onnx(DIT, OUT, target=TWO)": "unknown target array([1, 2]); known: onnxruntime",
    "ditzoo.export_onnx(DIT, OUT, resolution=1.5)": "resolution must be pixels, such as 256 or '256x384'",
    "ditzoo.list_models(resolution=TWO)": "resolution must be a whole number, 1 or more, not array([1, 2])",
    "ditzoo.list_models(resolution='256')": "resolution must be a whole number, 1 or more, not '256'",
    "ditzoo.list_models(family=TWO)": "unknown family array([1, 2]); known: dit",
    "ditzoo.list_models(state=TWO)": "unknown state array([1, 2]); known: architecture",
    "ditzoo.compare(MODEL.backend, MODEL.backend, PLAN, classes=[1], times='1')": "timesteps to compare must be a whole number",
    "ditzoo.compare(MODEL.backend, MODEL.backend, PLAN, classes=[1], tolerance=3)": "tolerance must be a Tolerance",
    "ditzoo.compare(MODEL.backend, MODEL.backend, PLAN, classes=[1], advance=3)": "must be a function without arguments",
    "ditzoo.parity(DIT, against=3)": "against must be diffusers, or the path of a file of latents (.npz), not 3",
    "ditzoo.parity(DIT, exact='no')": "exact must be True or False (a bool), not 'no'",
    "ditzoo.parity(DIT, times=1.5)": "the number of timesteps to compare must be a whole number, 1 or more, not 1.5",
    "ditzoo.parity(DIT, tolerance=3)": "tolerance must be a text such as 'forward=1e-4,psnr=50', or a dictionary, not 3",
    "ditzoo.parity(DIT, tolerance={'forward': HUGE})": "--tolerance forward takes a number, not about 1e5000",
    "PLAN.save(3)": "path must be the path of a plan's JSON file, not 3",
    "ditzoo.Plan.from_json(3)": "text must be the JSON of a plan, not 3",
}
"""Values of types, and numbers of sizes, that Python's own errors would say something else about."""

LATENTS = {
    "ditzoo.decode('dit-icons', zeros(1, 1, 8, 8))": "must be [N, 8, h, w], with N, h and w of 1 or more, not [1, 1, 8, 8]",
    "ditzoo.decode(DIT, zeros(1, 7, 3, 3))": "must be [N, 1, h, w], with N, h and w of 1 or more, not [1, 7, 3, 3]",
    "ditzoo.decode(DIT, zeros(4, 8, 8))": "must be [N, 1, h, w], with N, h and w of 1 or more, not [4, 8, 8]",
    "ditzoo.decode(DIT, zeros(3))": "must be [N, 1, h, w], with N, h and w of 1 or more, not [3]",
    "ditzoo.decode(DIT, np.array(1.0))": "must be [N, 1, h, w], with N, h and w of 1 or more, not []",
    "ditzoo.decode(DIT, zeros(0, 1, 8, 8))": "must be [N, 1, h, w], with N, h and w of 1 or more, not [0, 1, 8, 8]",
    "ditzoo.decode('dit-icons', zeros(1, 8, 0, 0))": "must be [N, 8, h, w], with N, h and w of 1 or more, not [1, 8, 0, 0]",
    "ditzoo.decode(DIT, zeros(1, 1, 8, 8).astype(object))": "latents must be real numbers, such as float32, not object",
    "ditzoo.decode(DIT, zeros(1, 1, 8, 8).astype(complex))": "latents must be real numbers, such as float32, not complex128",
    "ditzoo.decode(DIT, zeros(1, 1, 8, 8).astype(bool))": "latents must be real numbers, such as float32, not bool",
    "ditzoo.decode(DIT, zeros(1, 1, 8, 8), decoder=1)": "decoder must be a decoder, such as open_decoder gives, not 1",
}

SHEETS = {
    "ditzoo.contact_sheet(PICTURES, columns=0)": "columns must be 1 or more, not 0",
    "ditzoo.contact_sheet(PICTURES, columns=-1)": "columns must be 1 or more, not -1",
    "ditzoo.contact_sheet(PICTURES, columns='2')": "columns must be a whole number, 1 or more, not '2'",
    "ditzoo.contact_sheet(PICTURES, columns=10**9)": "columns must be at most 10,000, not 1,000,000,000",
    "ditzoo.contact_sheet(PICTURES, columns=2, labels=None)": "labels must be a list of texts, one for each row, not None",
    "ditzoo.contact_sheet(PICTURES, columns=2, labels=[1, 2])": "labels must be a list of texts, one for each row, not 1",
    "ditzoo.contact_sheet(PICTURES, columns=2, labels=['a'])": "must be a list of texts, one for each row: 2 of them, not 1",
    "ditzoo.contact_sheet(PICTURES, columns=2, captions=['a'])": "one for each picture: 3 of them, not 1",
    "ditzoo.contact_sheet(PICTURES, columns=2, captions='abc')": "captions must be a list of texts, one for each picture",
    "ditzoo.contact_sheet([], columns=2)": "pictures is empty; give at least one picture",
    "ditzoo.contact_sheet(3, columns=2)": "pictures must be arrays [H, W, 1 or 3] of uint8, such as decode gives, not 3",
    "ditzoo.contact_sheet([3], columns=2)": "pictures must be arrays [H, W, 1 or 3] of uint8, such as decode gives, not 3",
    "ditzoo.contact_sheet(PICTURES[0], columns=2)": "[H, W, 1 or 3] of uint8, such as decode gives, not uint8 [8, 1]",
    "ditzoo.contact_sheet(zeros(2, 8, 8, 1), columns=2)": "such as decode gives, not float32 [8, 8, 1]",
    "ditzoo.contact_sheet([PICTURES[0], PICTURES[0][:4]], columns=2)": "must have one size, not [8, 8, 1] and [4, 8, 1]",
}


@pytest.fixture(scope="module")
def model() -> ditzoo.Model:
    return ditzoo.load("dit-digits")


@pytest.mark.parametrize(("code", "message"), [*{**WRONG, **TYPES, **LATENTS, **SHEETS}.items()])
def test_wrong_arguments_are_our_own_errors(code: str, message: str, model: ditzoo.Model, tmp_path: Path) -> None:
    names = {
        "ditzoo": ditzoo,
        "np": np,
        "repeat": repeat,
        "zeros": lambda *shape: np.zeros(shape, np.float32),
        "DIT": DIT,
        "MODEL": model,
        "PLAN": ditzoo.make_plan(DIT, steps=2),
        "HUGE": 10**5000,
        "TWO": np.array([1, 2]),
        "PICTURES": np.zeros((3, 8, 8, 1), np.uint8),
        "OUT": tmp_path / "out",
    }
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        eval(code, names)  # noqa: S307
    assert len(str(caught.value)) < 450
    assert list(tmp_path.iterdir()) == []


def test_the_message_for_a_long_path_of_a_plan_is_short(model: ditzoo.Model) -> None:
    with pytest.raises(PlanError, match=r"cannot read the plan a{150}\.\.\.a{150}: File name too long"):
        model.sample(plan="a" * 100_000)


def test_numbers_and_lists_of_numpy_are_taken(model: ditzoo.Model) -> None:
    images = model.sample(
        classes=np.arange(3), num=np.int64(4), steps=np.int16(2), guidance=np.float32(1.5), guidance_interval=np.array([0.1, 9])
    )
    assert images == model.sample(classes=[0, 1, 2], num=4, steps=2, guidance=1.5, guidance_interval=(0.1, 9))
    plan = ditzoo.make_plan(DIT, steps=2)
    drawn = [ditzoo.sample(model.backend, plan, classes=[1], size=size) for size in (None, (8, 8), np.array([8, 8]))]
    assert np.array_equal(drawn[0], drawn[1])
    assert np.array_equal(drawn[0], drawn[2])


def test_prompts_without_an_end_are_read_as_far_as_they_are_needed() -> None:
    uvit = ditzoo.card("uvit-s-2-coco")
    plan = ditzoo.make_plan(uvit, steps=2)
    assert make_request(uvit, plan, prompts=repeat("a dog"), num=2).prompts == ("a dog", "a dog")
    with pytest.raises(UsageError, match="the number of images must be at most 1,000,000"):
        make_request(uvit, plan, prompts=repeat("a dog"))
