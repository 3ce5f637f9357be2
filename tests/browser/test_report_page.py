# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The report's page as a browser shows it: readable in light and dark, on a phone and on paper, alone and harmless."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.plugin_utils._report_page import page
from browser.chromium import Browser, browser
from unit import report_rows

KINDS = [
    report_rows.row(),
    report_rows.slow(),
    report_rows.garbage(),
    report_rows.lost(),
    report_rows.regressed(),
    report_rows.old(),
    report_rows.row("untouched", "unknown", evidence=None),
]
PAGES = {
    "one proven": [report_rows.row()],
    "one failed": [report_rows.slow()],
    "one that answers garbage": [report_rows.garbage()],
    "every kind": KINDS,
    "a hundred": report_rows.fleet(100),
}
UNFOLD = "document.querySelectorAll('details').forEach(part => part.open = true)"

# Every text that is seen, with its contrast (WCAG 2) to the first background below it that is not transparent.
CONTRASTS = """
(() => {
  const channels = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = node => {
    for (; node; node = node.parentElement) {
      const found = channels(getComputedStyle(node).backgroundColor);
      if (found.length === 3 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  return [...document.body.querySelectorAll('*')]
    .filter(node => [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim()) && node.getClientRects().length)
    .map(node => {
      const style = getComputedStyle(node);
      const [a, b] = [light(channels(node instanceof SVGElement ? style.fill : style.color)), light(ground(node))].sort((x, y) => y - x);
      return [(a + 0.05) / (b + 0.05), node.tagName + ': ' + node.textContent.trim().slice(0, 40)];
    });
})()
"""
# What reaches over the right edge of the window, or of its own box.
OVERFLOWING = """
[...document.body.querySelectorAll('*')]
  .filter(node => node.getBoundingClientRect().right > innerWidth + 0.5 || (node instanceof HTMLElement && node.clientWidth
    && getComputedStyle(node).display !== 'inline' && node.scrollWidth > node.clientWidth + 1))
  .map(node => node.tagName + '.' + node.getAttribute('class') + ': ' + node.textContent.trim().slice(0, 40))
"""
# Shapes and texts of drawings that reach out of them.
OUTSIDE = """
[...document.querySelectorAll('svg')].flatMap(svg => [...svg.querySelectorAll('rect, circle, line, text')].filter(shape => {
  const box = shape.getBBox(), view = svg.viewBox.baseVal;
  return box.x < -0.5 || box.y < -0.5 || box.x + box.width > view.width + 0.5 || box.y + box.height > view.height + 0.5;
}).map(shape => shape.outerHTML))
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as running:
        yield running


def write(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    path = tmp_path / "index.html"
    path.write_text(page(rows, report_rows.RUN, report_rows.RECIPE), encoding="utf-8")
    return path


@pytest.mark.parametrize("rows", PAGES.values(), ids=PAGES)
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_window_and_no_drawing_leaves_its_frame(
    chromium: Browser, tmp_path: Path, rows: list[dict[str, Any]], width: int
) -> None:
    with chromium.open(write(tmp_path, rows), width=width) as opened:
        opened.evaluate(UNFOLD)
        assert opened.evaluate("innerWidth") == width
        assert opened.evaluate("document.documentElement.scrollWidth") <= width
        assert opened.evaluate(OVERFLOWING) == []
        assert opened.evaluate(OUTSIDE) == []


def test_long_names_and_words_without_a_break_are_wrapped_on_a_phone(chromium: Browser, tmp_path: Path) -> None:
    rows = report_rows.fleet(7)
    for index, row in enumerate(rows):
        row["box"] = f"spark-in-the-laboratory-{index}.a-very-long-domain.example.internal"
    rows[6]["failed"] = report_rows.slow()["failed"] | {"failures": ["x" * 500], "log_tail": ["y" * 500]}
    with chromium.open(write(tmp_path, rows), width=360) as opened:
        opened.evaluate(UNFOLD)
        assert opened.evaluate("document.documentElement.scrollWidth") <= 360
        assert opened.evaluate(OVERFLOWING) == []


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_text_stands_out_from_its_background(chromium: Browser, tmp_path: Path, dark: bool, width: int) -> None:
    with chromium.open(write(tmp_path, KINDS), width=width, dark=dark) as opened:
        opened.evaluate(UNFOLD)
        contrasts = opened.evaluate(CONTRASTS)
        assert len(contrasts) > 200
        assert [(round(ratio, 2), what) for ratio, what in contrasts if ratio < 4.5] == []
        background = opened.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        assert (max(background) < 60) is dark, "the page follows what the reader prefers"


def test_on_paper_it_is_light_whatever_the_screen_prefers(chromium: Browser, tmp_path: Path) -> None:
    with chromium.open(write(tmp_path, KINDS), width=800, dark=True, printed=True) as opened:
        assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert [what for ratio, what in opened.evaluate(CONTRASTS) if ratio < 4.5] == []


@pytest.mark.parametrize("rows", PAGES.values(), ids=PAGES)
def test_it_opens_without_a_complaint_and_asks_the_network_for_nothing(
    chromium: Browser, tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    path = write(tmp_path, rows)
    with chromium.open(path, width=1280) as opened:
        opened.evaluate(UNFOLD)
        assert opened.complaints == []
        assert opened.requests == [path.as_uri()]


def test_what_a_model_says_is_text_and_neither_runs_nor_loads(chromium: Browser, tmp_path: Path) -> None:
    hostile = "<script>document.title = 'run'</script><img src='http://127.0.0.1:9/x' onerror=\"document.title = 'run'\">"
    row = report_rows.slow(hostile)
    row["failed"]["probes"][2]["answer"] = hostile
    row["failed"]["log_tail"] = [hostile, "</pre>" + hostile]
    row["failed"]["container"]["name"] = '"' + hostile
    row["why"] = hostile
    path = write(tmp_path, [row, report_rows.row()])
    # The page forbids scripts and requests to itself; here it must do without that.
    text = path.read_text()
    freed = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    assert freed != text
    path.write_text(freed)
    with chromium.open(path, width=1280) as opened:
        assert opened.evaluate("document.title") != "run"
        assert opened.evaluate("document.querySelectorAll('script, img').length") == 0
        assert opened.evaluate("[...document.querySelectorAll('p.answer')].map(node => node.textContent)").count(hostile) == 1
        assert opened.requests == [path.as_uri()]


def test_a_script_that_slipped_through_would_not_run(chromium: Browser, tmp_path: Path) -> None:
    path = write(tmp_path, [report_rows.row()])
    path.write_text(path.read_text().replace("</body>", "<script>document.title = 'run'</script></body>"))
    with chromium.open(path, width=1280) as opened:
        assert opened.evaluate("document.title") != "run"
        assert "Content Security Policy" in opened.complaints[0]


def test_the_bad_box_among_a_hundred_is_on_the_first_screen_and_its_link_unfolds_a_box(chromium: Browser, tmp_path: Path) -> None:
    with chromium.open(write(tmp_path, report_rows.fleet(100)), width=1280) as opened:
        assert opened.evaluate("document.querySelector('.boxes tbody').className") == "failed"
        assert opened.evaluate("document.querySelector('.boxes .why').getBoundingClientRect().bottom < innerHeight")
        assert opened.evaluate("document.querySelectorAll('details.box[open]').length") == 1
        opened.evaluate("document.querySelector('.boxes tbody:nth-of-type(50) a').click()")
        assert opened.evaluate("[...document.querySelectorAll('details.box[open] h2')].map(node => node.textContent)") == [
            "spark-07",
            "spark-50",
        ]
