import dataclasses
import re
from html.parser import HTMLParser

import pytest

from bundle.measures import Confident
from training import pipeline
from training.config import Machine
from training.evaluation import charts, report
from training.runs.records import UnderCorruption

VOID = {"meta", "img", "br", "circle", "line", "polyline"}


class Balanced(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        """Closed in itself."""

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(finished):
    return (finished.run.path / "bundle" / "report.html").read_text()


def test_the_page_is_whole_and_small(page):
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert len(page.encode()) < 300_000


def test_the_page_needs_nothing_from_outside(page):
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
    assert "<script" not in page
    assert "url(" not in page
    assert "prefers-color-scheme: dark" in page


def test_the_page_shows_what_was_measured(page, finished):
    manifest = finished.bundle.manifest
    assert f"{manifest.metrics.top1 * 100:.1f} %" in page
    assert manifest.provenance.data_fingerprint in page
    for label in manifest.labels:
        assert page.count(label) >= 3


def test_no_photo_is_in_the_bundles_page(page):
    assert "<img" not in page


def test_the_runs_page_shows_the_surest_mistakes_first(finished):
    context = pipeline.context_of(finished.run, Machine("cpu", 1))
    labels, photos = context.split.labels, context.photos("test")
    wrong = [(labels.index(photo.label) + 1) % len(labels) for photo in photos]
    import numpy as np

    probabilities = np.zeros((len(photos), len(labels)))
    for row, answered in enumerate(wrong):
        probabilities[row] = 0.1
        probabilities[row, answered] = 0.5 + row / 100
    found = report.mistakes(probabilities, context)
    assert [item.path for item in found] == [photo.path for photo in photos][::-1]
    facts = report.facts(finished.run, finished.bundle.manifest)
    assert report.render(facts, found).count("data:image/jpeg;base64,") == len(photos)


def test_text_from_outside_is_escaped(finished):
    facts = report.facts(finished.run, finished.bundle.manifest)
    item = report.Mistake("<script>alert(1)</script>", "a", "b", 0.5, "data:,")
    assert "<script>" not in report.render(facts, [item])


def test_the_page_shows_what_a_sceptic_asks_for(page, finished):
    metrics, calibration = finished.bundle.manifest.metrics, finished.bundle.manifest.calibration
    assert f"{metrics.uncalibrated.expected_calibration_error:.4f}" in page
    assert f"{metrics.aurc:.4f}" in page
    assert f"at least {calibration.precision_lower_bound * 100:.1f}" in page
    low, high = metrics.per_class[0].recall_interval
    assert f"{low * 100:.1f} to {high * 100:.1f}" in page
    assert "Pictures made worse" not in page


def test_precisions_are_shown_where_there_are_several(finished):
    manifest = finished.bundle.manifest
    assert manifest.variants
    facts = report.facts(finished.run, manifest)
    assert ">int8</td>" in report.render(facts)
    alone = dataclasses.replace(manifest, variants=())
    assert "Precisions" not in report.render({**facts, "manifest": alone})


def test_corruptions_are_shown_where_they_were_measured(finished):
    row = UnderCorruption("motion blur", 0.5, (0.4, 0.6), 0.25)
    facts = {**report.facts(finished.run, finished.bundle.manifest), "corruptions": (row,)}
    page = report.render(facts)
    assert "motion blur" in page
    assert "40.0 to 60.0" in page
    assert "<td>25.0</td>" in page


def test_the_threshold_is_marked_on_the_curve_where_it_accepts_anything(finished):
    metrics = finished.bundle.manifest.metrics
    marked = report._risk_chart(dataclasses.replace(metrics, confident=Confident(0.9, 0.99, (0.9, 1.0), 0.8)))
    bare = report._risk_chart(dataclasses.replace(metrics, confident=Confident(1.0, 0.0, None, 0.0)))
    assert marked.count("<circle") == 1
    assert bare.count("<circle") == 0


def test_a_chart_without_mistakes_still_has_a_scale():
    assert "<polyline" in charts.risk_coverage([(0.5, 0.0), (1.0, 0.0)], None)


def test_epochs_are_drawn_as_lines(finished):
    epochs = [
        {"epoch": number, "lr": 0.1, "train_loss": 1.0 / (number + 1), "val_loss": 0.5, "val_top1": 0.5 + number / 10}
        for number in range(4)
    ]
    accuracy, loss = report._accuracy_chart(epochs), report._loss_chart(epochs)
    assert accuracy.count("<circle") == 4
    assert loss.count("<polyline") == 2


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.4, 1), (0, 16), (0, 1000), (0.8, 0.95)])
def test_ticks_are_round_few_and_inside(low, high):
    ticks = charts._ticks(low, high)
    assert 2 <= len(ticks) <= 7
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
