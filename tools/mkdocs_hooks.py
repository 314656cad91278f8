"""What the documentation site needs beside mkdocs' plugins.

Formulas become MathML, so that no script and no network is needed to show them.
Pages may link to files outside of `docs/`, as they do where a repository is
browsed: those folders are part of the site.
"""

import pathlib
import re

from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Beside docs/, and what of them is shown.
FOLDERS = {
    "results": ("**/*.md", "*.png", "*.txt", "**/*.csv", "**/*.jsonl"),
    "flags": ("README.md", "**/*.flags"),
    "examples": ("*.md",),
    "deploy": ("*.md", "*.py", "*.sbatch", "*.sh", "*.yaml"),
}
_OUTSIDE = re.compile(rf"\]\((?:\.\./)+((?:{'|'.join(FOLDERS)})/[^)#\s]+)")
_INTO_DOCS = re.compile(r"\]\((?:\.\./)+docs/")
_MATH = re.compile(
    r'<(span|div) class="arithmatex">(?:\\\((.*?)\\\)|\\\[(.*?)\\\])</\1>', re.S
)
# What mkdocstrings makes of "Returns:": the text before a colon is a type and
# keeps its backquotes; without one, the text follows a dash.
_TYPE = re.compile(r"<code>`([^<]*)`</code>")
_NO_TYPE = re.compile(r'(<li class="doc-section-item[^>]*>)\s*–\s*<div')


def on_files(files, config):
    """Adds the files of `FOLDERS` to the site."""
    for folder, patterns in FOLDERS.items():
        for pattern in patterns:
            for path in sorted((ROOT / folder).glob(pattern)):
                name = path.relative_to(ROOT).as_posix()
                files.append(
                    File.generated(config, name, abs_src_path=str(path))
                )
    return files


def on_page_markdown(markdown, page, config, files):
    """Links to files outside of `docs/` become links inside of the site."""
    del config, files
    depth = page.file.src_uri.count("/")

    def inside(match):
        # Only what leaves docs/; results/ links to itself, too.
        return f"]({'../' * depth}{match[1]}"

    # And those from there back into docs/.
    markdown = _INTO_DOCS.sub(f"]({'../' * depth}", markdown)
    return _OUTSIDE.sub(inside, markdown)


def on_page_content(html, page, config, files):
    """Formulas become MathML."""
    del page, config, files

    def formula(match):
        kind, inline, display = match.groups()
        text = inline if display is None else display
        text = text.replace("&amp;", "&").replace("&lt;", "<")
        shown = "inline" if kind == "span" else "block"
        math = convert(text.replace("&gt;", ">").strip(), display=shown)
        return math if kind == "span" else f'<div class="formula">{math}</div>'

    html = _NO_TYPE.sub(r"\1<div", _TYPE.sub(r"<code>\1</code>", html))
    return _MATH.sub(formula, html)
