"""What mkdocs calls: it adds the generated pages, and puts them into the menu."""

import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent.parent))

from handbook import outside
from handbook.pages import copied, family, generated, without_outside

# Search from disk needs it, as a page there may start no worker; the theme would load it from a CDN.
WORKER = "assets/javascripts/iframe-worker.js"
FAMILY = "FAMILY "  # in mkdocs.yml: all pages of a family, as "FAMILY sources"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of families in the place of their names in the menu."""
    config.nav = _filled(config.nav)
    config.extra["polyfills"] = [WORKER]
    return config


def _filled(entry: Any) -> Any:
    if isinstance(entry, list):
        made: list[Any] = []
        for one in entry:
            if isinstance(one, str) and one.startswith(FAMILY):
                made += family(one.removeprefix(FAMILY))
            else:
                made.append(_filled(one))
        return made
    return {name: _filled(one) for name, one in entry.items()} if isinstance(entry, dict) else entry


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for path, text in {**generated(), **copied()}.items():
        files.append(File.generated(config, path, content=text))
    worker = Path(__file__).parent / "vendored" / "iframe-worker.js"
    files.append(File.generated(config, WORKER, abs_src_path=str(worker)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Take links out of the documentation away."""
    return without_outside(markdown, page.file.src_uri)


def on_post_build(*, config: MkDocsConfig) -> None:
    """Refuse a site that loads anything from another host."""
    found = list(outside.of_site(Path(config.site_dir)))
    if found:
        raise PluginError("the site has to work without a network: " + "; ".join(found[:10]))
