"""Save the plot of a report.html as a PNG, with headless Chromium.

python benchmarks/report_picture.py birds.finedge/report.html picture.png
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

from finedge.errors import DataError, FinedgeError, SystemProblem
from finedge.files import write_bytes

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# What every headless run has.
HEADLESS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
FLAGS = (
    *HEADLESS,
    "--force-device-scale-factor=2",
    "--blink-settings=preferredColorScheme=1",
    "--window-size=960,700",
)
PLOT_ALONE = (
    "<style>main > :not(#picture) { display: none } "
    "main { padding: 12px } #picture { margin: 0 }</style></head>"
)


def main(page: Path, png: Path) -> None:
    """Write the plot of a page as a PNG."""
    text = page.read_text("utf-8") if page.is_file() else ""
    if 'id="picture"' not in text:
        raise DataError(
            f"{page} has no plot",
            expected="a report.html with accuracies",
            fix="finedge benchmark BUNDLE --data DIR, then finedge report BUNDLE",
        )
    write_bytes(png, _cropped(_screenshot(text.replace("</head>", PLOT_ALONE, 1))))


def _screenshot(text: str) -> Image.Image:
    if CHROMIUM is None:
        raise SystemProblem("chromium is not installed", fix="apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        file, shot = Path(folder) / "page.html", Path(folder) / "shot.png"
        file.write_text(text, "utf-8")
        paths = (f"--user-data-dir={folder}/profile", f"--screenshot={shot}", file.as_uri())
        command = [CHROMIUM, *FLAGS, *paths]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        return Image.open(shot).convert("RGB").copy()


def _cropped(image: Image.Image) -> bytes:
    """Cut off the empty paper and return the PNG's bytes; the corner pixel has its colour."""
    paper = Image.new("RGB", image.size, image.getpixel((0, 0)))
    box = ImageChops.difference(image, paper).getbbox()
    buffer = io.BytesIO()
    image.crop(box).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: report_picture.py REPORT.html PICTURE.png")
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except FinedgeError as error:
        sys.exit(f"{error}")
