import dataclasses
import io

import pytest

from lepton_flwr.runs import plots

Image = pytest.importorskip("PIL.Image")
NAMES = {"metric", "epsilon", "loss", "bytes", "seconds", "roc", "overview"}


def unknown(record):
    return dataclasses.replace(
        record, accuracy=None, auc=float("nan"), loss=None, epsilon_record=None, seconds={}
    )


def skip_third(record):
    return dataclasses.replace(record, status="skipped") if record.round == 3 else record


@pytest.mark.parametrize("rounds", [1, 2, 10, 200])
def test_every_picture_is_drawn_wide_enough(runs, rounds):
    pictures = plots.draw(runs.history(rounds))
    assert set(pictures) == NAMES
    for png in pictures.values():
        image = Image.open(io.BytesIO(png))
        assert image.format == "PNG"
        assert image.width >= 1200


def test_a_run_without_a_round_has_no_picture(runs):
    assert plots.draw(runs.history(0)) == {}


def test_unknown_values_still_give_pictures(runs):
    assert set(plots.draw(runs.history(5, change=unknown, record=False))) == NAMES


def test_the_roc_is_drawn_only_if_it_is_known(runs):
    assert "roc" not in plots.draw(runs.history(2, roc=False))


def test_lost_clients_are_drawn_by_class_if_there_were_any(runs, axes):
    def lose(record):
        return dataclasses.replace(record, failures={"left": 1, "memory": record.round})

    assert "failures" in plots.draw(runs.history(2, change=lose))
    plots._failures(axes, runs.history(3, change=lose))
    assert labels(axes) == ["left or restarted 3", "out of memory 6"]
    assert sum(patch.get_height() for patch in axes.patches) == 9


@pytest.fixture
def axes():
    from matplotlib.figure import Figure

    return Figure().add_subplot()


def labels(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_each_limit_is_a_line_at_its_epsilon(runs, axes):
    def both(record):
        return dataclasses.replace(record, epsilon_client=2.0)

    plots._epsilon(axes, runs.history(4, change=both, client=True))
    levels = {line.get_ydata()[0] for line in axes.lines if len(set(line.get_ydata())) == 1}
    assert {3.0, 8.0} <= levels
    assert labels(axes) == ["record 3 of 3", "client 2 of 8", "limit"]


def test_a_run_without_privacy_says_so(runs, axes):
    plots._epsilon(axes, runs.history(4, change=unknown, record=False))
    assert [text.get_text() for text in axes.texts] == ["no differential privacy"]


def test_unmeasured_rounds_are_left_out_not_drawn_as_zero(runs, axes):
    plots._metric(axes, runs.history(6, change=lambda r: r if r.round % 2 == 0 else unknown(r)))
    assert list(axes.lines[0].get_xdata()) == [2, 4, 6]


def test_skipped_rounds_are_marked(runs, axes):
    plots._loss(axes, runs.history(5, change=skip_third))
    assert labels(axes)[-1] == "skipped"
    assert [patch.get_x() for patch in axes.patches] == [2.5]


def test_phases_are_stacked_to_the_whole_round(runs, axes):
    plots._seconds(axes, runs.history(4))
    tops = {round(p.get_y() + p.get_height(), 6) for p in axes.patches}
    assert max(tops) == pytest.approx(2.6)
    assert labels(axes) == ["keys", "train", "evaluate"]


def test_drawing_leaves_matplotlibs_settings_alone(runs):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    plots.draw(runs.history(1))
    assert dict(mpl.rcParams) == before
