"""Text encoders: prompts become the embeddings that condition a text-to-image model."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ditzoo.backends.gpus import cuda_device
from ditzoo.backends.graphs import load_graph
from ditzoo.bundle import Bundle
from ditzoo.errors import CheckpointError, MissingPackageError, UsageError
from ditzoo.files import cache_dir, remember
from ditzoo.hub.fetch import fetch
from ditzoo.sampling.condition import Condition
from ditzoo.sampling.noise import Floats
from ditzoo.zoo.card import Card, TextEncoder

TOKENIZER = "tokenizer.json"


def prompt_condition(model: Card | Bundle, prompts: Sequence[str], *, device: str = "cpu") -> Condition:
    """The condition for one image per prompt. The null condition is the empty prompt.

    Embeddings are kept in ditzoo's cache. `open_encoder` says which library and which device the text encoder runs on. A bundle
    with a text encoder needs no torch. Raises UsageError if the model takes no prompts.
    """
    card = model.card if isinstance(model, Bundle) else model
    if card.text is None:
        raise UsageError(
            f"{card.name} takes no prompt; choose --classes" if card.number_of_classes else f"{card.name} is unconditional"
        )
    wanted = list(dict.fromkeys([*prompts, ""]))
    known = {prompt: _cached(model, card.text, prompt) for prompt in wanted}
    missing = [prompt for prompt, path in known.items() if not path.is_file()]
    if missing:
        encode = open_encoder(model, device=device)
        for prompt in missing:
            _save(known[prompt], encode([prompt])[0])
    embeddings = {prompt: np.load(path) for prompt, path in known.items()}
    return Condition(name="context", values=np.stack([embeddings[prompt] for prompt in prompts]), null=embeddings[""])


def open_encoder(model: Card | Bundle, *, device: str = "cpu") -> Callable[[Sequence[str]], Floats]:
    """The text encoder of a model: a function from N prompts to embeddings [N, tokens, width].

    If a bundle holds the graph of a text encoder, ONNX Runtime runs it. Otherwise torch runs the text encoder. `device` is the
    device of the network. If it is not the CPU, the encoder runs on the GPU, provided that its own library has one. Raises
    UsageError if the model takes no prompts.
    """
    card = model.card if isinstance(model, Bundle) else model
    if card.text is None:
        raise UsageError(f"{card.name} takes no prompt")
    text = card.text
    if isinstance(model, Bundle) and "text_encoder" in model.manifest.graphs:
        run, folder = load_graph(model, "text_encoder", device=device), model.path
        return lambda prompts: run({"tokens": tokenize(folder / TOKENIZER, text, prompts)})
    return _torch_encoder(card, text, device)


def tokenize(path: Path, text: TextEncoder, prompts: Sequence[str]) -> npt.NDArray[np.int64]:
    """The tokens of each prompt, [N, tokens]. They are truncated or padded to the length that the model was trained with.

    The padding is CLIP's end token, as in the authors' code. Raises MissingPackageError if tokenizers is not installed, and
    CheckpointError if the tokenizer at `path` cannot be read.
    """
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise MissingPackageError("prompts need the package tokenizers: pip install 'ditzoo[text]'") from error
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises plain Exception
        raise CheckpointError(f"cannot read the tokenizer {path}: {error}") from error
    end = tokenizer.encode("").ids[-1]
    tokenizer.enable_truncation(text.tokens)
    tokenizer.enable_padding(length=text.tokens, pad_id=end)
    return np.array([encoding.ids for encoding in tokenizer.encode_batch(list(prompts))], dtype=np.int64)


def load_torch(card: Card, text: TextEncoder) -> tuple[Any, Path]:
    """The text encoder of a card as a torch module, and the path of its tokenizer.

    Raises MissingPackageError if transformers is not installed, and CheckpointError if the files do not load.
    """
    folder = fetch(text.source) / PurePath(text.source.files[0].path).parent
    try:
        from transformers import CLIPTextModel
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"prompts need the package {error.name}: pip install 'ditzoo[text]'") from error
    try:
        net: Any = CLIPTextModel.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"the text encoder of {card.name} in {folder} does not load: {error}") from error
    return net.eval().requires_grad_(False), folder / TOKENIZER


def _torch_encoder(card: Card, text: TextEncoder, device: str) -> Callable[[Sequence[str]], Floats]:
    import torch

    net, tokenizer = load_torch(card, text)
    place = cuda_device(device) if torch.cuda.is_available() else "cpu"
    net = net.to(place)

    def encode(prompts: Sequence[str]) -> Floats:
        with torch.inference_mode():
            tokens = torch.from_numpy(tokenize(tokenizer, text, prompts)).to(place)
            hidden: Floats = net(tokens).last_hidden_state.cpu().numpy()
        return hidden

    return encode


def _cached(model: Card | Bundle, text: TextEncoder, prompt: str) -> Path:
    """The path of a prompt's embedding in the cache. Its name is a hash of the prompt and the text encoder."""
    made_by = msgspec.json.encode(text).decode()
    if isinstance(model, Bundle) and "text_encoder" in model.manifest.graphs:
        made_by = model.manifest.files[model.manifest.graphs["text_encoder"].file].sha256
    key = hashlib.sha256(f"{made_by}\n{prompt}".encode()).hexdigest()
    return cache_dir() / "text" / f"{key}.npy"


def _save(path: Path, embedding: Floats) -> None:
    content = io.BytesIO()
    np.save(content, embedding)
    remember(path, content.getvalue())
