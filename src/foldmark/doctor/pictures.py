"""Checks of picture files: damage, and formats that are read in another way than expected."""

from collections.abc import Callable
from pathlib import Path

from foldmark.core.config import Config
from foldmark.data.crops import describe_misfit, store_window
from foldmark.data.lookalikes import Sight, has_wrong_extension
from foldmark.doctor.finding import NOTE, UNSAFE, WARNING, Finding, Seen


def check_pictures(train: Seen, test: Seen | None, config: Config) -> list[Finding]:
    left_out = config.data.skip_damaged
    stop = "training leaves them out (data.skip_damaged)." if left_out else "training stops; correct or remove them."
    level = WARNING if left_out else UNSAFE
    findings = [Finding("training pictures damaged or unlike their labels", level, _damaged(train, config), len(train), stop)]
    if test:
        found = _damaged(test, config)
        findings.append(
            Finding("test pictures damaged or unlike their labels", UNSAFE, found, len(test), "`make csv` stops; restore them.")
        )
    every = {
        seen.faces.path(row): (seen.faces.pictures[row], sight)
        for seen in (train, *([test] if test else []))
        for row, sight in enumerate(seen.sights)
    }
    readable = {path: pair for path, pair in every.items() if not pair[1].problem}

    def note(check: str, level: str, is_odd: Callable[[Path, Sight], bool], meaning: str) -> None:
        found = [name for path, (name, sight) in readable.items() if is_odd(path, sight)]
        findings.append(Finding(check, level, found, len(readable), meaning))

    note(
        "pictures turned by EXIF",
        WARNING,
        lambda _, sight: sight.turned,
        "read as stored; check that the points were set on the picture as stored.",
    )
    note("pictures blank", WARNING, lambda _, sight: sight.blank, "nothing to learn from; check them.")
    note("pictures with 16 bits", NOTE, lambda _, sight: _is_deep(sight), "read, scaled to 8 bits.")
    note(
        "pictures CMYK, palette or other colours",
        NOTE,
        lambda _, sight: sight.mode not in ("RGB", "L", "LA", "1") and not _is_deep(sight),
        "read as grey.",
    )
    note("pictures grey", NOTE, lambda _, sight: sight.mode in ("L", "LA", "1"), "read as they are.")
    note("pictures with another format than their name says", NOTE, has_wrong_extension, "read by content, not by name.")
    return findings


def _is_deep(sight: Sight) -> bool:
    return sight.mode.startswith("I")


def _damaged(seen: Seen, config: Config) -> list[str]:
    found = []
    for row, sight in enumerate(seen.sights):
        stated, window = tuple(seen.faces.sizes_px[row]), store_window(seen.faces.boxes_px[row], config.crop)
        problem = sight.problem or describe_misfit(sight.size, stated, window)
        if problem:
            found.append(f"{seen.faces.pictures[row]} {problem}")
    return found
