"""MkDocs' hook: files outside docs/ become pages of the site, and the site fetches nothing.

`extra.pages` in mkdocs.yml maps a file of the repository to its place in the site. Links are written for the
repository, where GitHub follows them; here they are turned to where the target is in the site. Imported by MkDocs
alone.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File
from pymdownx.slugs import slugify

ROOT = Path(__file__).parent.parent
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")
# What a browser fetches by itself; a link that a reader has to follow may lead anywhere.
_FETCHED = re.compile(r"<(?:script|img|iframe|link(?! rel=\"canonical\"))[^>]+(?:src|href)=\"?(?:https?:)?//[^>]+>")


def on_config(config: Any) -> Any:
    """Anchors as GitHub makes them, so that one link serves both."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slugify(case="lower")
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie outside docs/."""
    for source, page in config.extra["pages"].items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Turn links to files of the repository into links to pages of the site."""
    pages = config.extra["pages"]
    here = page.file.src_uri
    source = next((path for path, uri in pages.items() if uri == here), f"docs/{here}")

    def turned(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[0]))
        uri = pages.get(target) or target.removeprefix("docs/")
        return posixpath.relpath(uri, posixpath.dirname(here) or ".")

    return _LINK.sub(turned, markdown)


def on_post_page(output: str, *, page: Any, config: Any) -> str:
    """Refuse a page whose reader would fetch something from elsewhere."""
    if fetched := _FETCHED.search(output):
        raise PluginError(f"{page.file.src_uri} would fetch from another server: {fetched[0]}")
    return output
