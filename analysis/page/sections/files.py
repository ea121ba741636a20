"""The files beside the page, the commands that make the numbers, their origin, and the citation."""

from __future__ import annotations

from analysis.page.content import Content
from analysis.page.render import render
from analysis.page.section import Section


class FilesSection(Section):
    """Links to files of the same folder. They open where the page lies beside them."""

    title = "Files, commands, citation"
    navigation = "files"

    def applies(self, content: Content) -> bool:
        return bool(content.commands or content.files or content.facts)

    def html(self, content: Content) -> str:
        return render(content, "files.html", citation=citation(content))


def citation(content: Content) -> str:
    """A BibTeX entry of the study."""
    codes = [value for name, value in content.facts if name == "code version"]
    braces = str.maketrans({"{": "(", "}": ")", "\\": "/"})
    note = f"study {content.name}" + (f", code version {codes[0]}" if codes else "")
    return "\n".join(
        [
            f"@misc{{muvla_{content.name.translate(braces)},",
            f"  title = {{{{{content.title.translate(braces)}}}}},",
            "  howpublished = {muvla, a controlled ablation harness for recurrent memory in VLA policies},",
            f"  note = {{{note.translate(braces)}}}",
            "}",
        ]
    )
