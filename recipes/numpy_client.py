"""Samples a bundle with numpy and onnxruntime alone: python numpy_client.py BUNDLE CLASS... [--seed N] [--out latents.npy]

A client needs only plan.json (the sampler as a table), card.json, manifest.json and the graphs. To port it, port this file.
"""

import argparse
import json
from collections import deque
from pathlib import Path

import numpy as np
import onnxruntime as ort

parser = argparse.ArgumentParser()
parser.add_argument("bundle", type=Path)
parser.add_argument("classes", type=int, nargs="+")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", type=Path, default=Path("latents.npy"))
args = parser.parse_args()

plan, card, manifest = (json.loads((args.bundle / f"{name}.json").read_bytes()) for name in ("plan", "card", "manifest"))
if "outer_blocks" in plan:
    parser.error("the plan reuses blocks, which this client cannot; save a plan without --reuse")
graphs = [name for name in ("conditioning", "backbone") if name in manifest["graphs"]]
sessions = [ort.InferenceSession(args.bundle / manifest["graphs"][name]["file"]) for name in graphs]
channels, guided = plan["channels"], plan["guided_channels"]
shape = next(i["shape"] for i in manifest["graphs"]["backbone"]["inputs"] if i["name"] == "x")[1:]


def gaussian(image, draw):  # counter-based noise: depends only on (seed, image, draw)
    size, counter = int(np.prod(shape)), np.array([0, 0, draw, 0], dtype=np.uint64)
    bits = np.random.Philox(key=np.array([args.seed, image], dtype=np.uint64), counter=counter).random_raw(size + size % 2)
    uniform = ((bits >> np.uint64(11)) + 0.5) * 2.0**-53
    radius, angle = np.sqrt(-2 * np.log(uniform[0::2])), 2 * np.pi * uniform[1::2]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)[:size].reshape(shape)


def network(x, time, labels):  # each graph takes its inputs from `known`, and adds its outputs
    known = {"x": x.astype(np.float32), "t": np.full(len(x), time, dtype=np.float32), "y": labels}
    for session in sessions:
        given = session.run(None, {i.name: known[i.name] for i in session.get_inputs()})
        known |= {output.name: value for output, value in zip(session.get_outputs(), given, strict=True)}
    return known["prediction"]


labels, states, predictions, difference = np.array(args.classes), deque(), deque(), 0.0
states.appendleft(plan["initial"] * np.stack([gaussian(i, 0) for i in range(len(labels))]))
for i, row in enumerate(plan["rows"]):
    x, s = states[0], row["guidance"]
    output = network(x, row["time"], labels)
    e, variance = output[:, :channels].copy(), output[:, channels:]
    if s != 1 and "difference" not in row:  # such a row reuses cond - uncond of an earlier row
        difference = e[:, :guided] - network(x, row["time"], np.full_like(labels, card["null_label"]))[:, :guided]
    e[:, :guided] += (s - 1) * difference
    predictions.appendleft(e)
    x = sum(w * states[k] for k, w in enumerate(row["states"])) + sum(
        w * predictions[k] for k, w in enumerate(row["predictions"])
    )
    low, high = row["log_variance"] or (0, 0)
    sigma = np.exp(((variance + 1) * high + (1 - variance) * low) / 4) if row["log_variance"] else row["noise"]
    states.appendleft(x + sigma * np.stack([gaussian(k, i + 1) for k in range(len(labels))]))
np.save(args.out, states[0].astype(np.float32))
