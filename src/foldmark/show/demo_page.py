"""The demo page: one HTML file with an exported net and its runtime inside, which opens from disk."""

import gzip
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from foldmark.core.files import write_text


def write_demo(path: Path, title: str, facts: Mapping[str, Any], about: Mapping[str, str], contents: Mapping[str, bytes]) -> None:
    """Write the page. facts: what the exported file says of itself. about: what readers are told of it. contents: `net`, the
    runtime's `script` and `wasm` and, where the net has one, its `aligner`."""
    environment = Environment(loader=PackageLoader("foldmark.show"), autoescape=True)
    # Compressed with nothing that changes, so that the same net gives the same page.
    payloads = {name: b64encode(gzip.compress(content, mtime=0)).decode() for name, content in contents.items()}
    template = environment.get_template("demo.html")
    write_text(path, template.render(title=title, facts=dict(facts), about=dict(about), payloads=payloads))
