"""The sections of the page by name. A section is one file and one line here, or an entry point of another package."""

from __future__ import annotations

from analysis.page.section import Section
from muvla.errors import MuvlaError
from muvla.utils.registry import Registry

# The page shows the sections in this order, and those of other packages after them.
SECTIONS = Registry(
    "muvla.sections",
    {
        "overview": "analysis.page.sections.overview:OverviewSection",
        "variants": "analysis.page.sections.variants:VariantsSection",
        "learning": "analysis.page.sections.learning:LearningSection",
        "predictions": "analysis.page.sections.predictions:PredictionsSection",
        "interventions": "analysis.page.sections.interventions:InterventionsSection",
        "curves": "analysis.page.sections.curves:CurvesSection",
        "probes": "analysis.page.sections.probes:ProbesSection",
        "differences": "analysis.page.sections.differences:DifferencesSection",
        "episodes": "analysis.page.sections.episodes:EpisodesSection",
        "files": "analysis.page.sections.files:FilesSection",
        "limits": "analysis.page.sections.limits:LimitsSection",
    },
    "section",
)


def get_section(name: str) -> Section:
    """The section of this name.

    Raises:
        MuvlaError: no section has this name, or its class breaks the contract of `analysis.page.section.Section`.
    """
    member = SECTIONS.load(name)
    words = [getattr(member, attribute, None) for attribute in ("title", "navigation")]
    if not (isinstance(member, type) and issubclass(member, Section) and all(isinstance(word, str) for word in words)):
        raise MuvlaError(
            f"section {name}",
            got=SECTIONS.places()[name],
            expected="a subclass of analysis.page.section.Section with the texts `title` and `navigation`",
            remedy="derive the class from Section and set both",
        )
    return member()
