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
from bertlab.report.pages.page import to_html
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
const requests = performance.getEntriesByType("resource").filter(one => !one.name.startsWith("data:")).length;
document.title = `wide=${root.scrollWidth} window=${window.innerWidth} broken=${images} tables=${tables}`
  + ` requests=${requests}`;
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
    assert CHROMIUM is not None
    (tmp_path / "page.html").write_text(page.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900",
        "--virtual-time-budget=5000",
               "--dump-dom", (tmp_path / "page.html").as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    found = re.search(
        r"<title>wide=(\d+) window=(\d+) broken=(\d+) tables=(\d+) requests=(\d+)</title>", done.stdout
    )
    assert found is not None, done.stderr[-2000:]
    wide, window, broken, tables, requests = map(int, found.groups())
    assert wide <= window and broken == 0 and tables >= 4 and requests == 0
