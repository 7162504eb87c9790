"""Where `ditzoo sample` puts its pictures: on one sheet or in single files, with previews and an animation on the way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ditzoo.errors import UsageError
from ditzoo.pictures.png_metadata import png_info

if TYPE_CHECKING:
    from PIL import Image

    from ditzoo.pictures.decode import Pictures
    from ditzoo.sampling.request import SampleRequest

SHEET_COLUMNS, FRAMES, FRAME_MS, LAST_FRAME_MS = 10, 40, 60, 1500


class Folder:
    """Takes the pictures of one batch after the other, and writes them as they come, or all on one sheet at the end."""

    def __init__(self, target: Path, request: SampleRequest) -> None:
        self.request, self.written = request, list[Path]()
        self._target, self._sheet, self._taken = target, list["Pictures"](), 0
        if is_folder(target):
            target.mkdir(exist_ok=True)

    def take(self, pictures: Pictures) -> None:
        """The next pictures."""
        from ditzoo.pictures.sheets import save_picture, to_image

        for picture in pictures:
            if is_folder(self._target):
                path = self._target / f"{self._name(self._taken)}.png"
                save_picture(to_image(picture), path, info=png_info(self.request.only(self._taken)))
                self.written.append(path)
            else:
                self._sheet.append(picture)
            self._taken += 1

    def finish(self) -> None:
        """Writes the sheet, if it is to be one."""
        from ditzoo.pictures.sheets import save_picture

        if self._sheet:
            save_picture(sheet(self._sheet), self._target, info=png_info(self.request))
            self.written.append(self._target)

    def _name(self, i: int) -> str:
        number = f"{self.request.first + i:04d}"
        return number if self.request.classes is None else f"{number}-class{self.request.classes[i]}"


class Trajectory:
    """Takes the states of the first batch on its way, for previews every `preview` steps and for an animation."""

    def __init__(self, target: Path, *, steps: int, preview: int | None, animate: Path | None) -> None:
        self.written = list[Path]()
        self._target, self._steps, self._preview, self._animate = target, steps, preview, animate
        self._stride, self._frames = max(1, steps // FRAMES), list["Image.Image"]()

    def wants(self, done: int) -> bool:
        """Whether the state after `done` steps is shown anywhere."""
        return self._previewed(done) or self._animated(done)

    def take(self, done: int, pictures: Pictures) -> None:
        """The pictures of the state after `done` steps."""
        from ditzoo.pictures.sheets import save_picture

        image = sheet(list(pictures))
        if self._previewed(done):
            stem = "preview" if is_folder(self._target) else self._target.stem
            folder = self._target if is_folder(self._target) else self._target.parent
            path = folder / f"{stem}.step{done:04d}.png"
            save_picture(image, path)
            self.written.append(path)
        if self._animated(done):
            self._frames.append(image)

    def finish(self) -> None:
        """Writes the animation, if there is to be one."""
        from ditzoo.files import replacing

        if self._animate is None:
            return
        first, *rest = self._frames
        times = [FRAME_MS] * len(rest) + [LAST_FRAME_MS]
        with replacing(self._animate) as scratch:
            first.save(scratch, save_all=True, append_images=rest, duration=times, loop=0)
        self.written.append(self._animate)

    def _previewed(self, done: int) -> bool:
        return self._preview is not None and 0 < done < self._steps and done % self._preview == 0

    def _animated(self, done: int) -> bool:
        return self._animate is not None and (done % self._stride == 0 or done == self._steps)


def sheet(pictures: list[Pictures]) -> Image.Image:
    """Pictures side by side, ten in a row."""
    from ditzoo.pictures.sheets import contact_sheet

    return contact_sheet(pictures, columns=min(len(pictures), SHEET_COLUMNS))


def is_folder(target: Path) -> bool:
    """Whether `target` is, or is to become, a folder of single pictures."""
    return target.is_dir() or not target.suffix


def check_targets(target: Path, *, latents: Path | None, preview: int | None, animate: Path | None) -> None:
    """Everything that could go wrong with the files, before the work."""
    from ditzoo.files import check_writable
    from ditzoo.pictures.sheets import check_picture_path

    check_writable(target if target.is_dir() else target.parent)
    if not is_folder(target):
        check_picture_path(target)
    if latents is not None:
        check_writable(latents.parent, "--save-latents")
        if latents.suffix not in (".npy", ".npz") or latents.is_dir():
            raise UsageError(f"--save-latents writes a .npy or .npz file, not {latents}")
    if preview is not None and preview < 1:
        raise UsageError(f"--preview takes a number of steps, 1 or more, not {preview}")
    if animate is not None:
        check_writable(animate.parent, "--animate")
        if animate.suffix not in (".webp", ".gif") or animate.is_dir():
            raise UsageError(f"--animate writes a .webp or .gif file, not {animate}")
