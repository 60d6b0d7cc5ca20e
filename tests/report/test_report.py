"""The report as its readers open it: whole, valid, without a network, and usable in a browser at every width."""

import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from foldmark.core.files import file_sha256
from foldmark.show.overlay import save_png
from foldmark.show.page import Picture, Section, encode_data_uri, read_chapter, write_page
from tests.commandline import run_in_process
from tests.conftest import QUICK, REPOSITORY, assert_refused

VOID = {"img", "meta", "input", "br", "link", "hr", "path"}
WIDTHS = (320, 768, 1280, 3840)
# Runs beside the page, which stands in a frame, so that it is looked at unchanged and at any width.
CHECKS = """
<iframe src="runs/small/report.html" style="height: 900px; border: 0"></iframe><pre></pre>
<script>
document.querySelector("iframe").addEventListener("load", ({ target: frame }) => {
  const page = frame.contentDocument, view = frame.contentWindow;
  const one = (selector) => page.querySelector(selector);
  const all = (selector) => [...page.querySelectorAll(selector)];
  const shown = (element) => view.getComputedStyle(element).display !== "none";
  const found = { overflow: {} };
  for (const width of WIDTHS) {
    frame.style.width = `${width}px`;
    found.overflow[width] = [view.innerWidth, page.documentElement.scrollWidth];
  }
  found.pictures = all("img").length;
  found.unloaded = all("img").filter((img) => !(img.complete && img.naturalWidth > 0)).map((img) => img.alt);
  found.toggles = ["truth", "prediction"].map((layer) => {
    const [first, second] = all(`main input[data-layer=${layer}]`), points = one(`main .face .${layer}`);
    const states = [shown(points), second.checked];
    first.click();
    states.push(shown(points), second.checked);
    second.click();
    return [...states, shown(points), first.checked];
  });
  const dialog = one("dialog"), faces = all("button.face"), name = () => one("dialog img").alt;
  faces[0].focus();
  faces[0].click();
  found.dialog = [dialog.matches(":modal"), name() === one("button.face img").alt, shown(one("dialog svg .truth"))];
  one("dialog input[data-layer=truth]").click();
  found.dialog.push(!shown(one("dialog svg .truth")) && !shown(one("main .face .truth")));
  dialog.dispatchEvent(new view.KeyboardEvent("keydown", { key: "ArrowRight" }));
  found.dialog.push(name() === all("button.face img")[1].alt);
  one("dialog [data-close]").click();
  found.dialog.push(!dialog.open);
  const ink = () => view.getComputedStyle(page.body).color;
  found.themes = [1, 2].map(() => { one("#theme").click(); return ink(); });
  view.dispatchEvent(new view.Event("beforeprint"));
  found.folded = all("details:not([open])").length;
  document.querySelector("pre").textContent = JSON.stringify(found);
});
</script>
"""


class Outline(HTMLParser):
    """What is wrong with a page's HTML, and what it holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.wrong, self.elements, self.data = [], [], [], ""
        self.feed(text)
        self.wrong += [f"<{tag}> is never closed" for tag in self.open]

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.wrong.append(f"</{tag}> at {self.getpos()} closes something else")

    def handle_data(self, data):
        self.data += data

    def all(self, *tags: str) -> list[dict]:
        return [attributes for tag, attributes in self.elements if tag in tags]


def replace_text(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def run(folder: Path, *arguments: object) -> str:
    done = run_in_process(folder, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(synthetic_root, tmp_path_factory) -> Path:
    """A folder in which a small run was trained, reported, and reported again when all else was there."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    picture = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    figure = "runs/part1-synthetic/figures/curves.png"
    for file in ("photos/small/sheet.png", "photos/small/me & you.png", "outside.png", figure):
        save_png(folder / file, picture)
    photos = [{"picture": "me & you.png", "faces": [{}]}, {"picture": "nobody.png", "faces": []}]
    (folder / "photos/small/points.json").write_text(json.dumps({"photos": photos}))
    write_page(
        folder / "runs/part1-synthetic/index.html",
        "Part 1: a nose",
        [Section("Curves", "Down.", [Picture(folder / figure, "A <figure> & more")], [{"setting": "ours", "MSE": "0.1"}])],
    )
    data, settings = ["--data-root", synthetic_root], ["--config", "synthetic", "--name", "small"]
    printed = [run(folder, "train", *data, *settings, "--set", QUICK), run(folder, "report", *data, *settings)]
    shutil.copy(folder / "runs/small/report.html", folder / "before.html")
    printed += [run(folder, "csv", *data, *settings), run(folder, "compare", *data), run(folder, "report", *data, *settings)]
    for name in ("one", "two"):
        shutil.copytree(folder / "runs/small", folder / f"runs/{name}-synthetic")
        shutil.copy(folder / "runs/small/config.yaml", folder / f"{name}.yaml")
    (folder / "both.yaml").write_text("blend: [one.yaml, two.yaml]")
    printed.append(run(folder, "report", *data, "--config", "both.yaml"))
    (folder / "printed.txt").write_text("".join(printed))
    return folder


@pytest.fixture(params=["before.html", "runs/small/report.html", "runs/both-synthetic/report.html"])
def page(made, request) -> str:
    return (made / request.param).read_text()


def test_the_page_is_valid_html_that_needs_nothing_else(page):
    outline = Outline(page)
    assert not outline.wrong
    assert all(attributes.get("alt", "").strip() for attributes in outline.all("img"))
    addresses = [one[key] for _, one in outline.elements for key in ("src", "href") if key in one]
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"@import|url\(|//[a-z]+\.[a-z]", re.sub(r"data:[^\"]*", "", page))
    ids = [one["id"] for _, one in outline.elements if "id" in one]
    assert len(set(ids)) == len(ids)
    assert {address[1:] for address in addresses if address.startswith("#")} <= set(ids)


def test_a_screen_reader_finds_its_way(page):
    outline = Outline(page)
    levels = [int(tag[1]) for tag, _ in outline.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))
    assert all("scope" in attributes for attributes in outline.all("th"))
    assert outline.all("html")[0]["lang"] == "en"
    assert all(attributes.get("tabindex") == "0" for attributes in outline.all("pre"))


def test_what_is_not_there_is_one_line_with_the_command_that_makes_it(made):
    before, after = ((made / file).read_text() for file in ("before.html", "runs/small/report.html"))
    for target in ("csv", "compare", "part2"):
        lines = re.findall(rf"<li>.*<code>make {target} (.*?)</code></li>", before)
        assert lines, target
        assert all("DATA_ROOT=" in line and ("NAME=small" in line) == (target == "csv") for line in lines)
    assert "make part2" in after
    assert not re.search("<code>make (csv|compare|part1|photos)", after)
    assert "<figcaption>me &amp; you</figcaption>" in after
    for title in ("Test pictures", "Variants compared", "Shift consistency", "Ledger"):
        assert f">{title}</h3>" in after
        assert f">{title}</h3>" not in before
    assert "left out: " in (made / "printed.txt").read_text()


def test_the_figures_are_those_of_the_run(made):
    page = Outline((made / "runs/small/report.html").read_text()).data
    summaries = [json.loads(path.read_text()) for path in sorted(made.glob("runs/small/fold*/summary.json"))]
    faces = sum(one["faces"] for one in summaries)
    for key in ("nme", "mae_px"):
        for one in summaries:
            assert f"{one[key]:.2f} (" in page
        assert f"{sum(one['faces'] * one[key] for one in summaries) / faces:.2f}" in page
    assert "synthetic faces" in page
    assert page.lower().count("other data") >= 2


def test_the_commands_name_every_changed_setting(made, synthetic_root):
    page = Outline((made / "runs/small/report.html").read_text()).data
    command = next(line for line in page.splitlines() if line.startswith("make train"))
    assert f"CONFIG=synthetic NAME=small DATA_ROOT={synthetic_root}" in command
    given = re.search("SET='(.*)'", command)[1].split()
    settings = {"crop.size=[32,32]", "train.epochs=1", "train.lr=0.0001", "folds.count=2"}
    assert set(given) == settings | {"model.name=cnn", "model.head=pool", "model.channels=[8,16]", "model.hidden=32"}


def test_a_blend_has_one_report_with_the_curves_and_configs_of_each(made):
    text = (made / "runs/both-synthetic/report.html").read_text()
    page = Outline(text)
    assert not page.wrong
    assert re.search(r"both-synthetic is a blend of one-synthetic \(0\.\d\d\), two-synthetic \(0\.\d\d\)", page.data)
    for name in ("one-synthetic", "two-synthetic"):
        assert f"{name}: each fold thin" in page.data
        assert f"{name}: the whole config, as YAML" in page.data
    assert "make train CONFIG=both.yaml DATA_ROOT=" in page.data
    assert "<code>make csv CONFIG=both.yaml" in text


def test_a_damaged_csv_is_left_out_and_a_run_without_a_fold_refused(made, synthetic_root, foldmark, workplace):
    assert_refused(foldmark("report", "--data-root", synthetic_root, "--config", "synthetic"), "runs/synthetic", "make train")
    shutil.copytree(made / "runs", workplace / "runs")
    (workplace / "submissions").mkdir()
    (workplace / "submissions/small.csv").write_text("Id,Predicted\n0,nan\n")
    done = foldmark("report", "--data-root", synthetic_root, "--config", "synthetic", "--name", "small")
    assert done.returncode == 0, done.stderr
    assert "left out: Test pictures (submissions/small.csv is damaged" in done.stdout
    assert "made by: make photos PHOTOS=" in done.stdout


def test_predictions_of_earlier_models_are_left_out(made, synthetic_root, foldmark, workplace):
    for name in ("runs", "submissions"):
        shutil.copytree(made / name, workplace / name)
    checkpoint = workplace / "runs/small/fold0/last.pt"
    checkpoint.write_bytes(checkpoint.read_bytes() + b"other")
    summary = checkpoint.with_name("summary.json")
    digests = json.loads(summary.read_text())
    digests["files"]["last.pt"] = file_sha256(checkpoint)
    summary.write_text(json.dumps(digests))
    done = foldmark("report", "--data-root", synthetic_root, "--config", "synthetic", "--name", "small")
    assert done.returncode == 0, done.stderr
    assert "left out: Test pictures (submissions/small.csv was made from other models" in done.stdout


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"\xff\x00[{,\n"),
    "other": lambda path: path.write_text('{"a": 1}'),
    "folder": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
}


# Damage to part 2, tried in the same reports.
PART_DAMAGE = [
    (lambda folder: (folder / "figures/curves.png").unlink(), "curves.png: missing or damaged"),
    (lambda folder: (folder / "figures/curves.png").write_bytes(b"\x89PNG"), "curves.png: missing or damaged"),
    (lambda folder: (folder / "sections.json").write_text('{"title": "Part 2", "sections": [{"text": 1}]}'), "sections.json"),
    (lambda folder: (folder / "sections.json").write_bytes(b"\xff\x00"), "sections.json"),
    (lambda folder: replace_text(folder / "sections.json", "figures/curves.png", "../../outside.png"), "outside.png"),
]


@pytest.mark.parametrize(
    ("damage", "damage_part", "words"), [(name, *part) for name, part in zip(DAMAGE, PART_DAMAGE, strict=True)]
)
def test_what_is_damaged_is_left_out_with_its_file_and_command(
    made, synthetic_root, foldmark, workplace, damage, damage_part, words
):
    for name in ("runs", "submissions", "photos"):
        shutil.copytree(made / name, workplace / name)
    shutil.copy(made / "outside.png", workplace / "outside.png")
    shutil.copytree(made / "runs/part1-synthetic", workplace / "runs/part2-synthetic")
    files = {
        "runs/compare.csv": "compare",
        "runs/small/fold0/consistency.json": "compare",
        "runs/small/fold1/metrics.csv": "train",
        "submissions/small-look-first.csv": "csv",
        "submissions/ledger.csv": "csv",
        "photos/small/points.json": "photos",
        "runs/part1-synthetic/sections.json": "part1",
    }
    for file in files:
        (workplace / file).unlink()
        DAMAGE[damage](workplace / file)
    damage_part(workplace / "runs/part2-synthetic")
    done = foldmark("report", "--data-root", synthetic_root, "--config", "synthetic", "--name", "small")
    assert done.returncode == 0, done.stderr
    for file, command in files.items():
        # An empty ledger is one without rows.
        if (file, damage) != ("submissions/ledger.csv", "empty"):
            (line,) = [line for line in done.stdout.splitlines() if line.startswith("left out: ") and file in line]
            assert f"made by: make {command}" in line
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("left out: Part 2:")]
    assert words in line
    assert "made by: make part2" in line
    page = (workplace / "runs/small/report.html").read_text()
    assert not Outline(page).wrong
    assert ">Folds</h3>" in page


def test_a_photo_is_made_lighter_and_a_drawing_stays_sharp(tmp_path):
    rows, columns = np.mgrid[:300, :400]
    photo = (127 + 100 * np.sin(rows / 40) * np.cos(columns / 30)).astype(np.uint8) + np.random.default_rng(0).integers(
        0, 9, (300, 400), np.uint8
    )
    lines = np.full((300, 400), 255, np.uint8)
    lines[::30] = 0
    for name, picture, kind in (("photo", photo, "image/webp"), ("lines", lines, "image/png")):
        save_png(tmp_path / f"{name}.png", picture)
        assert encode_data_uri((tmp_path / f"{name}.png").read_bytes(), "image/png").startswith(f"data:{kind};")


def test_a_part_stands_in_the_report_as_on_its_own_page(made):
    chapter = read_chapter(made / "runs/part1-synthetic")
    assert chapter.title == "Part 1: a nose"
    report, page = ((made / file).read_text() for file in ("runs/small/report.html", "runs/part1-synthetic/index.html"))
    (section,) = chapter.sections
    shown = "".join(page.split(f"{section.title}</h2>")[1].split("</section>")[0])
    assert shown in report
    assert "A &lt;figure&gt; &amp; more" in shown
    assert re.search(rf"<h3 id=[^>]*>{section.title}</h3>", report)


def test_the_page_works_in_a_browser_at_every_width(made, tmp_path):
    browser = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
    if not browser:
        pytest.skip("no Chromium here: the page's looks, toggles and dialog are checked in one")
    (made / "checks.html").write_text(CHECKS.replace("WIDTHS", json.dumps(WIDTHS)))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars"]
    options += [
        "--enable-logging=stderr",
        "--allow-file-access-from-files",
        f"--user-data-dir={tmp_path}",
        "--window-size=4000,1000",
    ]
    done = subprocess.run(
        [browser, *options, "--dump-dom", (made / "checks.html").as_uri()], capture_output=True, text=True, timeout=120
    )
    found = json.loads(re.search(r"<pre>(.+)</pre>", done.stdout)[1])
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert found["pictures"] > 30
    assert not found["unloaded"]
    assert {int(width): tuple(sizes) for width, sizes in found["overflow"].items()} == {width: (width, width) for width in WIDTHS}
    assert found["toggles"] == [[True, True, False, False, True, True]] * 2
    assert all(found["dialog"]), found["dialog"]
    assert found["themes"][0] != found["themes"][1]
    assert found["folded"] == 0
