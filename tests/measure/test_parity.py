from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

import ditzoo
from ditzoo.backends.torch import TorchBackend
from ditzoo.cli import run
from ditzoo.errors import BackendError, UsageError
from ditzoo.measure.metrics import cosine, psnr, relative_l2, ssim
from ditzoo.measure.parity import TOLERANCES, Comparison, compare
from ditzoo.measure.plots import histogram, line_chart
from ditzoo.measure.report import html
from ditzoo.plan.make import make_plan
from ditzoo.zoo.card import Embedded
from tests.support import chromium

CARD = ditzoo.card("uvit-digits")
PLAN = make_plan(CARD, steps=6)

pictures = arrays(np.float32, (1, 8, 8, 1), elements=st.floats(0, 255, width=32))


class Shifted(TorchBackend):
    """A backend whose network is off by a constant from one time on."""

    def __init__(self, shift: float, *, below: float = math.inf) -> None:
        super().__init__(CARD)
        self.name, self.shift, self.below = "shifted", shift, below

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        output = super().__call__(inputs)
        return output + self.shift if float(inputs["t"][0]) < self.below else output


def against(candidate: TorchBackend) -> Comparison:
    return compare(TorchBackend(CARD), candidate, PLAN, classes=[1, 2, 3], times=6)


def test_a_backend_is_identical_to_itself() -> None:
    report = against(TorchBackend(CARD)).report
    assert report.drift == (0.0,) * 6
    assert report.psnr is None
    assert report.ssim == pytest.approx(1)
    for error in report.forward:
        assert (error.relative_l2, error.max_abs, error.guided_relative_l2) == (0, 0, 0)
        assert error.cosine == pytest.approx(1)
    assert report.passed


def test_the_errors_are_those_of_the_network() -> None:
    report = against(Shifted(1e-3)).report
    assert [error.time for error in report.forward] == [row.time for row in PLAN.rows]
    for error in report.forward:
        assert error.max_abs == pytest.approx(1e-3, rel=1e-2)
        assert 0 < error.relative_l2 < 1e-2
        assert error.cosine < 1
        assert error.guided_relative_l2 > 0
    assert not report.passed


def test_drift_begins_where_the_error_begins() -> None:
    report = against(Shifted(1e-2, below=PLAN.rows[2].time)).report
    assert report.drift[:3] == (0.0, 0.0, 0.0)
    assert all(value > 0 for value in report.drift[3:])
    assert [error.relative_l2 > 0 for error in report.forward] == [False, False, False, True, True, True]
    assert report.sample_relative_l2 == report.drift[-1]


def test_guidance_multiplies_an_error_of_the_condition() -> None:
    """An error in the conditional half alone counts s times as much after guidance."""

    class Conditional(Shifted):
        def __call__(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
            wrong = (inputs["y"] != CARD.null_label).float().view(-1, 1, 1, 1)
            return TorchBackend.__call__(self, inputs) + self.shift * wrong

    weak, strong = (
        compare(TorchBackend(CARD), Conditional(1e-2), make_plan(CARD, steps=3, guidance=s), classes=[5], times=1).report
        for s in (1.5, 3.0)
    )
    assert strong.forward[0].relative_l2 == pytest.approx(weak.forward[0].relative_l2)
    assert strong.forward[0].guided_relative_l2 == pytest.approx(2 * weak.forward[0].guided_relative_l2, rel=0.2)


def test_a_nan_is_named_with_its_step_and_time() -> None:
    with pytest.raises(BackendError, match=rf"shifted gave NaN or infinity in step 4 of 6, at time {PLAN.rows[3].time:g}"):
        against(Shifted(math.nan, below=PLAN.rows[2].time))


def test_other_models_and_no_times_are_refused() -> None:
    other = TorchBackend(ditzoo.card("dit-digits"))
    with pytest.raises(UsageError, match="another model"):
        compare(TorchBackend(CARD), other, PLAN, classes=[1])
    with pytest.raises(UsageError, match="1 or more, not 0"):
        compare(TorchBackend(CARD), TorchBackend(CARD), PLAN, classes=[1], times=0)


@given(a=pictures, b=pictures)
def test_ssim_is_symmetric_bounded_and_1_for_the_same(a: np.ndarray, b: np.ndarray) -> None:
    assert ssim(a, b) == pytest.approx(ssim(b, a))
    assert -1 <= ssim(a, b) <= 1 + 1e-9
    assert ssim(a, a) == pytest.approx(1)


def test_ssim_of_flat_pictures_is_the_formula() -> None:
    a, b = np.full((1, 9, 9, 3), 100.0, dtype=np.float32), np.full((1, 9, 9, 3), 130.0, dtype=np.float32)
    c1 = (0.01 * 255) ** 2
    assert ssim(a, b) == pytest.approx((2 * 100 * 130 + c1) / (100**2 + 130**2 + c1))


def test_ssim_of_one_window_is_the_formula() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 255, (2, 1, 7, 7, 1)).astype(np.float32)
    covariance = np.cov(a.ravel(), b.ravel())
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = a.mean(), b.mean()
    expected = (2 * mean_a * mean_b + c1) * (2 * covariance[0, 1] + c2)
    expected /= (mean_a**2 + mean_b**2 + c1) * (covariance[0, 0] + covariance[1, 1] + c2)
    assert ssim(a, b) == pytest.approx(expected, rel=1e-5)


def test_measures_of_known_arrays() -> None:
    a, b = np.array([3.0, 4.0]), np.array([3.0, 5.0])
    assert relative_l2(b, a) == pytest.approx(1 / 5)
    assert cosine(a, b) == pytest.approx(29 / (5 * math.sqrt(34)))
    assert psnr(np.full((1, 1, 1, 1), 10.0, dtype=np.float32), np.zeros((1, 1, 1, 1), dtype=np.float32)) == pytest.approx(
        20 * math.log10(25.5)
    )


class Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_html_report_is_one_file_with_plots_and_pictures() -> None:
    text = html(CARD, [against(Shifted(1e-3)), against(TorchBackend(CARD, precision="bf16"))])
    seen = Seen()
    seen.feed(text)
    assert sum(tag == "svg" for tag, _ in seen.tags) == 2 + 2 * 2
    sources = [str(attributes["src"]) for tag, attributes in seen.tags if tag == "img"]
    assert len(sources) == 2 * 3
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r'(?:src|href)="(?:https?:|/)', text), "it loads something from elsewhere"
    assert "script" not in {tag for tag, _ in seen.tags}
    assert "FAIL" in text
    assert "This exceeds the tolerance" in text
    assert text == html(CARD, [against(Shifted(1e-3)), against(TorchBackend(CARD, precision="bf16"))])


def test_the_verdict_follows_the_name_and_limits_share_the_cells_of_their_numbers() -> None:
    text = html(CARD, [against(TorchBackend(CARD, precision="bf16"))])
    head = re.findall(r"<th[^>]*>(.*?)</th>", text)
    assert head == ["compared", "verdict", "forward", "guided", "sample", "PSNR, dB", "SSIM"], "nothing here has LPIPS"
    limits = TOLERANCES["fp32"]
    assert re.search(rf'data-name="sample">[-.e\d]+<small>≤ {limits.sample:.1e}</small></td>', text)
    assert f"<small>≥ {limits.psnr:.1f}</small>" in text


@pytest.mark.skipif(not (chromium.PROGRAM and chromium.DRIVER), reason=chromium.WHY_NOT)
@pytest.mark.parametrize("width", [500, 1100])
def test_the_table_of_the_report_fits_the_window(width: int, tmp_path: Path) -> None:
    comparison = against(TorchBackend(CARD, precision="bf16"))
    named = msgspec.structs.replace(comparison.report, candidate="onnxruntime int8 tensorrt_rtx:1 single", lpips=0.0123)
    (tmp_path / "report.html").write_text(html(CARD, [msgspec.structs.replace(comparison, report=named)]))
    with chromium.chromium(tmp_path, width=width, height=900) as browser:
        browser.get((tmp_path / "report.html").as_uri())
        widths = browser.execute_script(
            "const root = document.documentElement, cells = [...document.querySelectorAll('.numbers td')];"
            "return [root.clientWidth, root.scrollWidth, Math.max(...cells.map((cell) => cell.getBoundingClientRect().right))]"
        )
    assert widths[0] == width
    assert max(widths) == width


def test_the_report_calls_classes_by_their_names() -> None:
    card = ditzoo.card("dit-icons")
    comparison = compare(
        TorchBackend(card), TorchBackend(card, precision="bf16"), make_plan(card, steps=2), classes=[9, 3], times=2
    )
    text = html(card, [comparison], classes=[9, 3])
    assert all(f">{name}</text>" in text for name in ("star (9)", "cat (3)", "no class"))
    assert re.search(r"at time \d+ with (the class (star \(9\)|cat \(3\))|no class)\.", text)
    sheet = ditzoo.contact_sheet(comparison.reference_pixels.astype(np.uint8), columns=2, captions=["star", "cat"])
    first = re.search(r'src="data:image/png;base64,([^"]+)"', text)
    assert first is not None
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(first[1])))), np.asarray(sheet))


def test_steps_are_whole_numbers_on_the_axis() -> None:
    chart = line_chart({"one": [(1, 0.1), (2, 0.2), (3, 0.3)]}, title="", x_label="steps done", y_label="")
    assert all(float(tick).is_integer() for tick in chart.axes[0].get_xticks())


@pytest.mark.parametrize("values", [np.zeros(4), np.array([0.0, 1e-5, 2e-3]), np.array([0.0, 3.0, 255.0])])
def test_the_limit_of_differences_is_in_the_histogram(values: np.ndarray) -> None:
    (axes,) = histogram(values, title="", x_label="", limits={"limit": 0.255, "nowhere": math.inf, "none": 0.0}).axes
    assert [line.get_label() for line in axes.lines] == ["limit"]
    low, high = axes.get_xlim()
    assert low < 0.255 < high
    assert sum(bar.get_height() for bar in axes.patches) == len(values)


def test_the_report_is_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says where its numbers come from, draws the limits, and can be read on a phone, in the dark and aloud."""
    monkeypatch.chdir(tmp_path)
    typed = "parity uvit-digits --backends torch,torch:bf16 --steps 3 --classes 1,2 --seed 5 --html report.html"
    run(typed.split())
    text = (tmp_path / "report.html").read_text()
    weights = ditzoo.card("uvit-digits").weights
    assert isinstance(weights, Embedded)
    for part in (f"ditzoo {typed}", weights.sha256, "dpmpp, 3 steps", "5, images 0 to 1", "processor", version("torch")):
        assert part in text, part
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", text)
    assert text.count("limit for bf16") == 2
    seen = Seen()
    seen.feed(text)
    assert all(attributes["alt"] for tag, attributes in seen.tags if tag == "img")
    drawings = [attributes for tag, attributes in seen.tags if tag == "svg"]
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in drawings)
    assert any(attributes.get("name") == "viewport" for tag, attributes in seen.tags if tag == "meta")
    assert "prefers-color-scheme: dark" in text


def test_tolerances_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    typed = "parity uvit-digits --backends torch,torch:bf16 --steps 3 --classes 1,2"
    assert run([*typed.split(), "--tolerance", "forward=1,sample=1,psnr=1", "--html", "report.html"]) == 0
    assert "1.0e+00" in capfd.readouterr().out
    assert "<svg" in (tmp_path / "report.html").read_text()
    assert run([*typed.split(), "--tolerance", "psnr=200"]) == 1
    for wrong, message in (("speed=1", "unknown limit 'speed'"), ("psnr=high", "--tolerance psnr takes a number")):
        capfd.readouterr()
        assert run([*typed.split(), "--tolerance", wrong]) == 2
        assert message in capfd.readouterr().err


@pytest.mark.parametrize(
    ("path", "message"), [("report.pdf", "writes an .html file"), ("missing/report.html", "no folder missing")]
)
def test_the_place_of_the_report_is_checked_first(path: str, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["parity", "uvit-digits", "--html", path]) == 2
    assert message in capfd.readouterr().err


def test_every_precision_has_tolerances() -> None:
    from ditzoo.specs import PRECISIONS

    assert set(TOLERANCES) == {*PRECISIONS, "tf32"}
