"""The report's page in a real browser, offline: nothing is fetched, everything is there, a phone needs no
sideways scrolling.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from runfolders import write_run

from bertlab.jobs.report import Schema, compare_runs
from bertlab.report.pages.page import Page, PageTable, to_html
from children import PATIENCE

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))),
    None,
)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--hide-scrollbars"]  # fmt: skip
PROBE = """<script>
const images = [...document.images].filter(image => image.naturalWidth === 0).length;
const root = document.documentElement;
const tables = document.querySelectorAll("table").length;
const framed = [...document.querySelectorAll(".scroll")];
const cut = Math.max(...framed.map(one => one.scrollWidth - one.clientWidth));
const requests = performance.getEntriesByType("resource").filter(one => !one.name.startsWith("data:")).length;
document.title = `wide=${root.scrollWidth} window=${window.innerWidth} broken=${images} tables=${tables}`
  + ` requests=${requests} cut=${cut}`;
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("runs")
    for seed in range(6):
        write_run(root, f"a{seed}", seed, 0.80 + 0.01 * seed, test=0.8)
        write_run(root, f"b{seed}", seed, 0.84 + 0.005 * seed, test=0.82, optimizer__lr=0.01)
    return to_html(compare_runs(Schema(runs=str(root), examples=False, contamination=False))[2])


def test_nothing_is_fetched(page: str) -> None:
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?!data:|#)[^"'\s>]+|url\((?!data:)|@import""", page)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt install chromium)")
@pytest.mark.parametrize("width", [1280, 500])
def test_a_browser_shows_it_whole(page: str, width: int, tmp_path: Path) -> None:
    """500 pixels are the narrowest window that headless Chromium makes."""
    wide, window, broken, tables, requests, _ = shown(page, width, tmp_path)
    assert wide <= window and broken == 0 and tables >= 4 and requests == 0


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt install chromium)")
def test_the_widest_table_of_scores_is_not_cut(tmp_path: Path) -> None:
    """With both splits, intervals at a level of their own and a long verdict, on a laptop's screen."""
    headers = ["arm", "seeds", "validation, mean ± sd", "95 % interval", "examples too",
        "difference [interval]",
        "p (Holm)", "difference, examples too", "test, mean ± sd", "verdict"]  # fmt: skip
    row = ["learned positions", "8", "87.94 ± 2.95", "[85.47, 90.40]", "[85.03, 90.85]",
        "+10.04 [−15.97, +16.04] at 97.5 %", "0.984", "[−16.02, +16.10] at 97.5 %", "87.55 ± 2.47",
        "no difference found (one of 8.46 would have been, four times out of five)"]  # fmt: skip
    page = to_html(Page("t", [PageTable(headers, [row], "Scores over seeds", wide=(len(headers) - 1,))]))
    assert shown(page, 1280, tmp_path)[-1] <= 0


def shown(page: str, width: int, folder: Path) -> list[int]:
    """Widths of page and window, broken pictures, tables, requests, pixels cut off the widest table."""
    assert CHROMIUM is not None
    (folder / "page.html").write_text(page.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900",
        "--virtual-time-budget=5000",
               "--dump-dom", (folder / "page.html").as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    found = re.search(
        r"<title>wide=(\d+) window=(\d+) broken=(\d+) tables=(\d+) requests=(\d+) cut=(-?\d+)</title>",
        done.stdout,
    )
    assert found is not None, done.stderr[-2000:]
    return [int(one) for one in found.groups()]
