import dataclasses
import re
from html.parser import HTMLParser

import pytest

from lepton_flwr.runs import report

VOID = {"meta", "img", "link", "br", "input", "hr"}


class Page(HTMLParser):
    """Checks that elements are closed in order; keeps attributes and text by element."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.text.setdefault(self.open[-1], []).append(data)


def skip_second(runs):
    def change(record):
        if record.round != 2:
            return record
        return dataclasses.replace(record, status="skipped", reason=runs.hostile, auc=None)

    return change


@pytest.fixture
def html(runs):
    pictures = {"metric": b"\x89PNG one", "roc": b"\x89PNG two"}
    history = runs.history(4, change=skip_second(runs))
    return report.render(history, pictures, "scenario = '</pre><script>x</script>'\n")


def test_the_page_is_well_formed_and_needs_nothing_else(html):
    page = Page(html)
    tags = {tag for tag, _ in page.seen}
    assert not tags & {"script", "link", "iframe", "object", "embed", "form", "base"}
    for _, attributes in page.seen:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name == "href":  # of files beside it
                assert value in report._FILES
            elif name in {"src", "srcset", "action", "data"}:
                assert value.startswith("data:image/png;base64,")
    assert not re.search(r"https?://|//\w+\.|url\(|@import", html)


def test_foreign_text_stays_text(html):
    page = Page(html)
    reason = next(text for text in page.text["td"] if "Skipped" in text)
    assert '<script>alert("x")</script> {{ 7 * 7 }} [red]' in reason
    assert "\x1b" not in html
    assert page.text["h1"] == ["Tumours <b>benign</b> or not"]
    assert "</pre><script>" in page.text["pre"][0]


def test_every_round_is_a_row_and_skipped_ones_are_marked(html):
    rows = [attributes.get("class") for tag, attributes in Page(html).seen if tag == "tr"]
    assert rows == [None, None, "skipped", "skipped", None, None]


def test_the_promises_and_the_configuration_are_on_the_page(html, runs):
    page = Page(html)
    assert page.text["li"][: len(runs.start().guarantee)] == list(runs.start().guarantee)
    assert [a["id"] for tag, a in page.seen if tag == "figure"] == ["metric", "roc"]
    assert all(a["alt"] for tag, a in page.seen if tag == "img")


@pytest.mark.parametrize(
    ("reason", "words"),
    [("finished", "finished after 4 of 4 rounds"), ("interrupted", "was interrupted after 4"),
     ("failed", "failed after 4"), ("budget", "stopped by its privacy budget")],
)  # fmt: skip
def test_the_story_says_how_the_run_ended(runs, reason, words):
    assert words in report.story(runs.history(4, reason=reason))


def test_the_story_tells_what_was_reached_and_spent(runs):
    told = report.story(runs.history(4))
    assert "AUC 0.700 and accuracy 0.710" in told
    assert "epsilon 3 per record at delta 1e-05" in told
    assert "per client" not in told


def test_the_story_does_not_hide_that_privacy_was_off(runs):
    def off(record):
        return dataclasses.replace(record, epsilon_record=None)

    told = report.story(runs.history(4, change=off, record=False))
    assert "Differential privacy was off" in told
    history = runs.history(4, change=off, record=False)
    start = dataclasses.replace(history.start, private_inputs=True)
    told = report.story(dataclasses.replace(history, start=start))
    assert "Differential privacy was off" not in told
    assert "made private before training" in told


def test_skipped_rounds_are_in_the_story(runs):
    assert "Round 2 released no sum" in report.story(runs.history(4, change=skip_second(runs)))


def test_a_run_without_a_round_has_a_page(runs):
    history = runs.history(0, reason="interrupted")
    assert "No round was finished" in report.render(history, {}, "")


def test_saturation_is_shown_when_there_is_any(runs):
    def saturate(record):
        return dataclasses.replace(record, saturated=1234)

    assert "4,936" in report.render(runs.history(4, change=saturate), {}, "")


def test_clients_that_were_lost_are_counted_by_class(runs):
    def lose(record):
        lost = {"timeout": 2, "data": 0} if record.round < 3 else {"memory": 1}
        return dataclasses.replace(record, failures=lost)

    page = Page(report.render(runs.history(4, change=lose), {}, ""))
    cells = page.text["td"]
    timed, memory = cells.index("timed out"), cells.index("out of memory")
    assert cells[timed + 1 : timed + 3] == ["4", "2"]
    assert cells[memory + 1 : memory + 3] == ["2", "4"]
    assert "bad data" not in cells
    assert {"failed_timeout", "failed_memory"} <= set(page.text["code"])


def test_the_page_links_every_file_of_the_run(html):
    links = [a["href"] for tag, a in Page(html).seen if tag == "a"]
    assert {"events.jsonl", "metrics.csv", "summary.json", "events"} <= set(links)
