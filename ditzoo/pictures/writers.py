"""Writing pictures while they are drawn: one sheet or single files, and previews and an animation of the denoising steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ditzoo.errors import UsageError
from ditzoo.files import check_target, check_writable, disk_errors, replacing
from ditzoo.pictures.decode import Pictures
from ditzoo.pictures.png_metadata import png_info
from ditzoo.pictures.sheets import check_picture_path, contact_sheet, save_picture, to_image
from ditzoo.sampling.request import SampleRequest
from ditzoo.zoo.card import Card
from ditzoo.zoo.class_names import captions

SHEET_COLUMNS = 10
FRAMES, FRAME_MS, LAST_FRAME_MS = 40, 60, 1500
"""The approximate number of frames in an animation, and the time that a frame and the last frame are shown, in milliseconds."""


class PictureWriter:
    """Writes the pictures of a request.

    If `target` is a folder, each picture is written there as soon as it arrives. Otherwise `target` is the file of one sheet,
    which is written at the end. The names of the classes, or their numbers, stand above the pictures of the sheet.
    """

    def __init__(self, target: Path, request: SampleRequest, card: Card) -> None:
        self.request, self.written = request, list[Path]()
        self._captions = captions(card, request.classes or ())
        self._target, self._sheet, self._taken = target, list[Pictures](), 0
        if is_folder(target):
            with disk_errors(target):
                target.mkdir(exist_ok=True)

    def take(self, pictures: Pictures) -> None:
        """Takes the next pictures [N, H, W, channels]."""
        for picture in pictures:
            if is_folder(self._target):
                path = self._target / f"{self._name(self._taken)}.png"
                save_picture(to_image(picture), path, info=png_info(self.request.only(self._taken)))
                self.written.append(path)
            else:
                self._sheet.append(picture)
            self._taken += 1

    def finish(self) -> None:
        """Writes the sheet, if `target` is a file."""
        if self._sheet:
            save_picture(sheet_of(self._sheet, self._captions), self._target, info=png_info(self.request))
            self.written.append(self._target)

    def _name(self, i: int) -> str:
        number = f"{self.request.first + i:04d}"
        return number if self.request.classes is None else f"{number}-class{self.request.classes[i]}"


class TrajectoryWriter:
    """Writes the states of the first batch: a preview after every `preview` steps, and an animation to the file `animate`.

    They have the names of the classes where the sheet has them.
    """

    def __init__(self, target: Path, request: SampleRequest, card: Card, *, preview: int | None, animate: Path | None) -> None:
        self.written = list[Path]()
        self._captions, self._steps = captions(card, request.classes or ()), len(request.plan.rows)
        self._target, self._preview, self._animate = target, preview, animate
        self._stride, self._frames = max(1, self._steps // FRAMES), list[Image.Image]()

    def wants(self, done: int) -> bool:
        """Whether a preview or the animation shows the state after `done` steps."""
        return self._previewed(done) or self._animated(done)

    def take(self, done: int, pictures: Pictures) -> None:
        """Takes the pictures [N, H, W, channels] of the state after `done` steps."""
        image = sheet_of(list(pictures), self._captions[: len(pictures)])
        if self._previewed(done):
            stem = "preview" if is_folder(self._target) else self._target.stem
            folder = self._target if is_folder(self._target) else self._target.parent
            path = folder / f"{stem}.step{done:04d}.png"
            save_picture(image, path)
            self.written.append(path)
        if self._animated(done):
            self._frames.append(image)

    def finish(self) -> None:
        """Writes the animation, if `animate` names a file."""
        if self._animate is None:
            return
        first, *rest = self._frames
        times = [FRAME_MS] * len(rest) + [LAST_FRAME_MS]
        with replacing(self._animate, option="--animate") as scratch:
            first.save(scratch, save_all=True, append_images=rest, duration=times, loop=0)
        self.written.append(self._animate)

    def _previewed(self, done: int) -> bool:
        return self._preview is not None and 0 < done < self._steps and done % self._preview == 0

    def _animated(self, done: int) -> bool:
        return self._animate is not None and (done % self._stride == 0 or done == self._steps)


def check_pictures_target(target: Path) -> None:
    """Raises UsageError if `target` can be neither the file of a sheet nor the folder of single pictures."""
    check_target(target)
    check_writable(target if target.is_dir() else target.parent)
    if not is_folder(target):
        check_picture_path(target)
    elif target.exists() and not target.is_dir():
        raise UsageError(f"--out: {target} is a file without the suffix of a picture; choose another file or folder")


def is_folder(target: Path) -> bool:
    """Whether `target` is a folder of single pictures. A path without a suffix becomes such a folder."""
    return target.is_dir() or not target.suffix


def sheet_of(pictures: Pictures | Sequence[Pictures], names: Sequence[str] = ()) -> Image.Image:
    """Pictures side by side, ten in a row. `names` stand above them, if there are any."""
    return contact_sheet(pictures, columns=min(len(pictures), SHEET_COLUMNS), captions=names)
