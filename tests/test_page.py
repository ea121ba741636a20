"""The page: its numbers are those of the frames, its texts are escaped, and it has every state of a sweep."""

from __future__ import annotations

import dataclasses
import re
from itertools import pairwise

import msgspec
import numpy as np
import pytest

from analysis.figures.style import COLOURS
from analysis.frames import METRICS
from analysis.page.answer import NOTHING, answer
from analysis.page.content import Filmstrip, RecordedEpisode
from analysis.page.films import FOLDER, Film, load_films
from analysis.page.numbers import plain
from analysis.page.pictures import COLUMNS, sheet
from analysis.page.registry import SECTIONS, get_section
from analysis.page.render import INSIDE, on_dark, render_page, write_page
from analysis.page.section import Section
from analysis.page.sections.limits import limits
from analysis.page.svg import line_path, ticks
from helpers.html import parse
from helpers.pages import PREDICTION, page_content, planned, several
from helpers.rows import records
from muvla.config import no_memory, tbptt
from muvla.errors import MuvlaError

LIMIT = 15 * 2**20  # bytes of a page


@pytest.fixture(scope="module")
def content(base):
    return page_content(several(base), predictions=(PREDICTION,))


@pytest.fixture(scope="module")
def page(content):
    return parse(render_page(content))


def section(page, name):
    (found,) = page.all("section", id=name)
    return found


def panels(page, name):
    return list(page.all("div", data_panel=name))


def values(element):
    return [float(each.attributes["value"]) for each in element.all("data")]


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_every_mark_is_a_seed_of_the_frame(content, page):
    shown = panels(page, "dots")
    assert [panel.attributes["data-metric"] for panel in shown] == ["choice", "success", "touch"]
    for panel in shown:
        metric = panel.attributes["data-metric"]
        top, bottom = METRICS[metric]
        for row in list(panel.all("tr"))[1:-1]:
            (name,) = row.all("span", class_="variant")
            lines = content.plain[content.plain["label"] == name.text].sort_values("seed")
            marks = [mark.attributes for mark in row.all("circle")]
            assert len(marks) == len(lines)
            for mark, (_, line) in zip(marks, lines.iterrows(), strict=True):
                assert mark["data-seed"] == str(line["seed"])
                assert float(mark["data-value"]) == pytest.approx(line[f"{metric}_rate"], rel=1e-5)
                assert mark["cx"] == f"{100 * line[f'{metric}_rate']:.2f}%"
                assert f"{line[top]} of {line[bottom]} episodes" in mark["data-tip"]
            if len(lines):
                assert values(row) == [pytest.approx(lines[f"{metric}_rate"].mean(), rel=1e-5)]


def test_chance_and_baselines_are_lines_at_their_values(base):
    from muvla.evaluation.records import Baselines

    cells = several(base)
    rows = {"random": cells[1].rows["p@1", "none"], "expert": cells[0].rows["p@1", "none"]}
    content = page_content(cells, baselines={"p@1": Baselines(rows=rows)})
    (panel, *_) = panels(parse(render_page(content)), "dots")
    first = next(panel.all("svg", class_="strip"))
    places = {line.attributes["class"]: line.attributes["x1"] for line in first.all("line")}
    assert places["reference chance"] == "33.33%"
    assert places["reference random"] == f"{100 * 6 / 18:.2f}%"
    assert places["reference expert"] == f"{100 * 18 / 19:.2f}%"
    assert "expert 0.95" in panel.text and "chance 0.33" in panel.text


def test_the_table_of_variants_holds_means_and_contrasts(content, page):
    table, contrasts = section(page, "variants").all("table")
    for row in table.all("tr", data_label=None):
        lines = content.plain[content.plain["label"] == row.attributes["data-label"]]
        for cell in row.all("td", data_metric=None):
            rates = lines[f"{cell.attributes['data-metric']}_rate"]
            assert values(cell) == [pytest.approx(rates.mean(), rel=1e-5)]
            assert f"± {plain(rates.std())}" in cell.text
    rows = list(contrasts.all("tr"))[1:]
    assert len(rows) == len(content.contrasts) > 0
    ordered = content.contrasts.sort_values("primary", ascending=False, kind="stable")
    for row, (_, line) in zip(rows, ordered.iterrows(), strict=True):
        assert values(row) == pytest.approx([line["mean"], line["reference_mean"], line["difference"]], rel=1e-5)
        assert f"[{plain(line['low'], 2, True)}, {plain(line['high'], 2, True)}]" in row.text


def test_the_heat_table_holds_mean_differences_and_every_seed(content, page):
    shown = panels(page, "heat")
    assert [panel.attributes["data-quantity"] for panel in shown] == ["choice", "own", "success"]
    for panel in shown:
        quantity = panel.attributes["data-quantity"]
        variants = [name.text for name in panel.all("span", class_="variant")]
        (row,) = list(panel.all("tr"))[1:]
        for variant, cell in zip(variants, row.all("td"), strict=True):
            lines = content.pairs[content.pairs["variant"] == variant]
            assert values(cell) == [pytest.approx(lines[f"{quantity}_difference"].mean(), abs=1e-5)]
            texts = cell.attributes["data-tip"].replace("−", "-").split("\n")
            assert texts == [f"seed {s}: {t}" for s, t in zip(lines["seed"], lines[f"{quantity}_text"], strict=True)]


VARIANTS = (("K=8", 8), ("K=2", 2))


def test_a_sham_stands_beside_its_intervention(base):
    kinds = ("none", "transplant", "transplant_same", "transplant_self", "zero")
    cells = [records(base, name, tbptt(K, 4), seed, 12, 6, 2, kinds=kinds) for name, K in VARIANTS for seed in (0, 1)]
    panel, *_ = panels(parse(render_page(page_content(cells))), "heat")
    rows = {row.attributes["data-intervention"]: row for row in panel.all("tr", data_intervention=None)}
    assert set(rows) == {"transplant", "zero"}, "a sham has no row of its own"
    shams = [cell.attributes.get("data-sham") for cell in rows["transplant"].all("td")]
    assert shams == [None, "transplant_same"] * 2, "a variant's field, and its sham's field beside it"
    (more,) = panel.all("tr", class_="more")
    assert [cell.attributes["data-sham"] for cell in more.all("td")] == ["transplant_self"] * 2
    assert [cell.text for cell in rows["zero"].all("td", class_="none sham")] == ["–", "–"]


def test_a_pair_that_is_not_applicable_is_not_called_not_run(base):
    cells = [records(base, name, tbptt(K, 4), 0, 12, 6, 2, kinds=("none", "zero", "mean")) for name, K in VARIANTS]
    cells[1] = dataclasses.replace(
        cells[1],
        not_applicable={"mean": "it has no donors"},
        rows={at: rows for at, rows in cells[1].rows.items() if at[1] == "none"},
    )
    third = records(base, "K=1", tbptt(1, 4), 0, 12, 6, 2, kinds=("none", "zero"))
    cells[1] = dataclasses.replace(cells[1], rows=cells[1].rows | {("p@1", "zero"): third.rows["p@1", "zero"]})
    panel, *_ = panels(parse(render_page(page_content([*cells, third]))), "heat")
    rows = {row.attributes["data-intervention"]: row for row in panel.all("tr", data_intervention=None)}
    assert [cell.text for cell in rows["mean"].all("td")][1:] == ["not applicable", "not run"]


def test_predictions_have_the_verdicts_of_the_frame_and_are_counted(content, page):
    rows = list(section(page, "predictions").all("tr", data_verdict=None))
    verdicts = content.verdicts.drop_duplicates(["prediction", "variant"])
    assert [row.attributes["data-verdict"] for row in rows] == [t.split(" ")[0] for t in verdicts["together"]]
    tally = {chip.text.partition(" ")[2]: int(chip.text.split(" ")[0]) for chip in page.all("a", data_filter=None)}
    assert sum(tally.values()) == len(rows)
    for word, count in tally.items():
        assert count == sum(row.attributes["data-verdict"] == word for row in rows)


def test_the_answer_holds_counts_and_means_of_the_frames(content):
    sentences = answer(content)
    assert "5 of 5" in sentences[0] and "0 of 5 for `K=2`" in sentences[0]
    line = content.contrasts[content.contrasts["primary"]].iloc[0]
    assert f"({line['mean']:.2f} v {line['reference_mean']:.2f}" in sentences[1]


def test_learning_curves_end_at_the_last_logged_value(base):
    curve = {"update": [1, 2, 3], "loss": [0.9, 0.5, 0.25]}
    cells = [dataclasses.replace(cell, curve=curve) for cell in several(base, 1)[:2]]
    chart = section(parse(render_page(page_content(cells))), "curves")
    assert [p.attributes["data-tip"] for p in chart.all("path", class_="curve")] == ["seed 0: 0.2500 at update 3"] * 2


def test_the_grey_curves_are_in_the_page_once_for_all_panels(base):
    """A copy in every panel made the page of 1,000 variants grow with their square."""
    curve = {"update": [1, 2, 3], "loss": [0.9, 0.5, 0.25]}
    cells = [dataclasses.replace(cell, curve=curve) for cell in several(base, 2)]
    chart = section(parse(render_page(page_content(cells))), "curves")
    shared = list(chart.all("g", id="curves-loss"))
    panels = {cell.variant for cell in cells}
    assert len(panels) > 2 and [use.attributes["href"] for use in chart.all("use")] == ["#curves-loss"] * len(panels)
    assert len(shared) == 1 and len(list(chart.all("path", class_="back"))) == len([c for c in cells if c.curve])


def test_numbers_are_signed_and_rounded_once():
    assert plain(-0.126, sign=True) == "−0.13" and plain(0.5, sign=True) == "+0.50" and plain(float("nan")) == "–"


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.013, 0.017), (-3.0, 480.0), (2.0, 2.0)])
def test_ticks_lie_inside_their_range(low, high):
    places = ticks(low, high)
    assert 1 <= len(places) <= 6 and all(low - 1e-9 <= tick <= high + 1e-9 for tick in places)


def test_a_missing_point_interrupts_a_line():
    assert line_path([(0, 0), (1, 1), (2, float("nan")), (3, 1), (4, 1)]).count("M") == 2


# --- states -----------------------------------------------------------------------------------------------------------


def test_a_sweep_without_a_finished_cell_has_a_page(base):
    cells = [planned(base, "none", no_memory(), seed) for seed in (0, 1)]
    content = page_content(cells, predictions=(PREDICTION,))
    page = parse(render_page(content))
    assert [each.attributes["id"] for each in page.all("section")] == ["overview", "differences", "files", "limits"]
    assert NOTHING in page.text and "2 of 2 cells planned" in page.text
    assert "wait for their first verdict" in page.text


def test_failed_damaged_and_running_cells_are_named(base):
    done, failed = several(base, 1)[:2]
    failed = dataclasses.replace(failed, state="failed", rows={})
    damaged = dataclasses.replace(failed, train="d", state="damaged", damage=("rows/x.jsonl: cut",))
    damaged = dataclasses.replace(damaged, cell=dataclasses.replace(damaged.cell, seed=1))
    running = dataclasses.replace(planned(base, "K=1", tbptt(1, 4), 0), state="running")
    progress = {failed.train: (0, "ValueError: loss is not finite"), running.train: (3, "")}
    page = parse(render_page(page_content([done, failed, damaged, running], progress=progress)))
    (problems,) = page.all("div", class_="problems")
    assert "loss is not finite" in problems.text and "rows/x.jsonl: cut" in problems.text
    tips = [cell.attributes["data-tip"] for cell in page.all("i", data_tip=None)]
    assert "seed 0: running, update 3 of 4" in tips and "seed 1: damaged" in tips
    assert "3 of 4 planned cells are not in these numbers" in section(page, "limits").text


def test_a_missing_seed_has_no_mark_and_is_counted(base):
    cells = several(base, 3)
    cells[3] = planned(base, "K=8", tbptt(8, 4), 1)
    content = page_content(cells)
    (panel, *_) = panels(parse(render_page(content)), "dots")
    row = next(row for row in panel.all("tr") if "K=8" in row.text)
    assert [mark.attributes["data-seed"] for mark in row.all("circle")] == ["0", "2"]


def test_a_study_without_interventions_and_predictions_has_no_such_section(base):
    cells = [records(base, "none", no_memory(), seed, 6, 12, 2) for seed in (0, 1)]
    names = [each.attributes["id"] for each in parse(render_page(page_content(cells))).all("section")]
    assert names == ["overview", "variants", "differences", "files", "limits"]


def test_a_task_without_a_choice_is_judged_by_success(base):
    cells = [
        dataclasses.replace(
            cell,
            rows={k: [dataclasses.replace(r, target=None, choice=-1) for r in rows] for k, rows in cell.rows.items()},
            chance={"p@1": None},
        )
        for cell in several(base)
        if cell.rows
    ]
    content = page_content(cells)
    page = parse(render_page(content))
    assert [panel.attributes["data-metric"] for panel in panels(page, "dots")] == ["success"]
    assert "Mean success over training seeds" in answer(content)[0]


def test_one_seed_and_too_few_seeds_are_limits(base):
    assert any("no evidence" in sentence for sentence in limits(page_content(several(base, 1))))
    pairs = (("K=8", "K=2"), ("K=8", "K=1"), ("K=2", "K=1"))
    assert any("cannot conclude" in sentence for sentence in limits(page_content(several(base, 3), pairs=pairs)))


def test_equal_contents_give_equal_pages(base):
    assert render_page(page_content(several(base, 2))) == render_page(page_content(several(base, 2)))


# --- texts ------------------------------------------------------------------------------------------------------------

BAD = '"><script>alert(1)</script><img src=x onerror=alert(1)>'


def test_texts_of_a_study_are_escaped(base):
    cells = [dataclasses.replace(cell, variant=f"{cell.variant} {BAD}") for cell in several(base, 3)]
    prediction = dataclasses.replace(PREDICTION, text=f"`zero` {BAD}", variants=(f"K=8 {BAD}",))
    texts = {"title": BAD, "notes": f"{BAD}\n\n# {BAD}\n\n![x](http://a.b/c.png)", "command": f"muvla sweep {BAD}"}
    texts |= {"predictions": (prediction,), "differences": (BAD,), "coverage": (BAD,)}
    content = page_content(cells, progress={cells[0].train: (0, BAD)}, **texts)
    filmstrip = Filmstrip(BAD, BAD, ((0, "cue", "data:,"),))
    content = dataclasses.replace(content, filmstrip=filmstrip, facts=((BAD, BAD),), files=((BAD, BAD),), name=BAD)
    html = render_page(content)
    page = parse(html)
    assert "<script>alert" not in html and html.count("<script>") == 1
    assert not [each for each in page.all() if any(name.startswith("on") for name in each.attributes)]
    assert {image.attributes["src"] for image in page.all("img")} == {"data:,"}
    assert page.text.count("alert(1)") > 5  # the texts are there, as texts


def test_a_page_loads_nothing(page):
    for element in page.all():
        for name in ("src", "href"):
            address = element.attributes.get(name, "#")
            assert address.startswith(("#", "data:")) or element.name == "a", (element.name, address)
    assert not re.search(r"url\((?!'?data:)|@import", render_page_styles(page))


def render_page_styles(page):
    return "".join(style.text for style in page.all("style"))


def test_a_page_is_readable_without_seeing_it(page):
    assert [len(list(page.all(name))) for name in ("h1", "main")] == [1, 1]
    levels = [int(each.name[1]) for each in page.all() if re.fullmatch(r"h\d", each.name)]
    assert all(b - a <= 1 for a, b in pairwise(levels))  # no heading skips a level
    for table in page.all("table"):
        assert list(table.all("caption")) and list(table.all("th", scope="col")) and list(table.all("th", scope="row"))
    for image in page.all("svg"):
        assert image.attributes.get("aria-label") or image.attributes.get("aria-hidden") == "true"
    for button in [*page.all("button"), *page.all("select")]:
        assert button.text or button.attributes.get("aria-label")
    targets = {each.attributes["id"] for each in page.all(id=None)}
    assert {a.attributes["href"][1:] for a in page.all("a") if a.attributes["href"].startswith("#")} <= targets


# --- pictures and size ------------------------------------------------------------------------------------------------


def write_film(folder, train, episode, size, intervention="none"):
    (folder / FOLDER).mkdir(exist_ok=True)
    phases = ("cue", "delay", "decision")
    film = Film(train, "p@1", intervention, episode, 3, 2, (0, 1, 2), phases, (), "success", True, False)
    stem = f"{train}-{episode}-{intervention}"
    (folder / FOLDER / f"{stem}.json").write_bytes(msgspec.json.encode(film))
    (folder / FOLDER / f"{stem}.webp").write_bytes(bytes(size))


def test_pictures_beyond_the_limit_are_linked(base, tmp_path):
    for episode in range(5):
        write_film(tmp_path, "t", episode, INSIDE // 4)
    write_film(tmp_path, "other", 0, 10)
    films = load_films(tmp_path, {"t": ("K=8", 0)}, INSIDE)
    assert [film.episode for film in films] == [0, 1, 2, 3, 4]
    assert [film.sheet.startswith("data:") for film in films] == [True, True, False, False, False]
    assert films[-1].sheet == f"{FOLDER}/t-4-none.webp"
    file = write_page(dataclasses.replace(page_content(several(base, 1)), episodes=films), tmp_path)
    assert file.stat().st_size < LIMIT


def test_an_episode_stands_beside_its_intervention(base):
    def film(intervention, frames):
        steps, phases = tuple(range(frames)), ("cue",) * frames
        facts = (frames, 2, "data:,", "data:,x", steps, phases, tuple(0.1 for _ in steps), "success", True)
        return RecordedEpisode("K=8", 0, "p@1", 2, intervention, *facts)

    content = dataclasses.replace(page_content(several(base, 1)), episodes=(film("none", 4), film("zero", 9)))
    (player,) = section(parse(render_page(content)), "episodes").all("div", data_panel="films")
    panes = list(player.all("figure"))
    assert [pane.attributes["data-frames"] for pane in panes] == ["4", "9"]
    assert [len(list(pane.all("div", role="img"))) for pane in panes] == [2, 2]  # the frames, and under attention
    (slider,) = player.all("input")
    assert slider.attributes["max"] == "8"


def test_a_sheet_holds_its_frames_in_rows():
    frames = [np.full((2, 3, 3), i, np.uint8) for i in range(COLUMNS + 1)]
    page = sheet(frames)
    assert page.shape == (4, 3 * COLUMNS, 3)
    assert page[0, 3 * 5, 0] == 5 and page[2, 0, 0] == COLUMNS and page[2, 3, 0] == 0


# --- colours and the registry -----------------------------------------------------------------------------------------


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colour", COLOURS)
def test_every_colour_is_seen_on_a_dark_page(colour):
    assert (luminance(on_dark(colour)) + 0.05) / (luminance("#191c1f") + 0.05) >= 3


def test_a_variant_has_one_colour_on_the_whole_page(base):
    colours = {}
    for name in parse(render_page(page_content(several(base)))).all("span", class_="variant"):
        colours.setdefault(name.text, set()).add(name.attributes["style"])
    assert {name: len(several_) for name, several_ in colours.items()} == {"K=8": 1, "K=2": 1, "K=1": 1}
    assert len(set.union(*colours.values())) == 3


@pytest.mark.parametrize("name", SECTIONS.names())
def test_every_section_keeps_the_contract(name, content):
    member = get_section(name)
    assert member.navigation and (member.title or name == "overview")
    if member.applies(content):
        parse(member.html(content))  # every element is closed


def test_a_section_of_another_shape_is_refused(monkeypatch):
    monkeypatch.setitem(SECTIONS.members, "bad", "helpers.html:Element")
    with pytest.raises(MuvlaError) as info:
        get_section("bad")
    assert info.value.field == "section bad"
    with pytest.raises(MuvlaError) as info:
        get_section("overviev")
    assert info.value.field == "section"


def test_a_section_is_one_class(monkeypatch, content):
    class Touches(Section):
        title, navigation = "Touches", "touches"

        def applies(self, content):
            return True

        def html(self, content):
            return f"<p>{len(content.rates)} lines</p>"

    monkeypatch.setitem(SECTIONS.members, "touches", "helpers.html:Touches")
    monkeypatch.setattr("helpers.html.Touches", Touches, raising=False)
    assert f"{len(content.rates)} lines" in section(parse(render_page(content)), "touches").text
