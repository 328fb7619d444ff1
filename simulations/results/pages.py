"""The pages of results, from the measurements alone."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from lepton_flwr._files import write_atomic
from lepton_flwr.data.scenarios import SCENARIOS
from lepton_flwr.runs import plots
from lepton_flwr.runs.text import UNKNOWN, decimal, duration, size, spent
from simulations.results.measure import PAGES, WAYS, Measurement, Store, Way, settings
from simulations.results.templates import INDEX, PAGE

_COLORS = {
    "network": plots.INK,
    "federated": plots.BLUE,
    "epsilon-8": plots.GREEN,
    "epsilon-3": plots.ORANGE,
    "epsilon-1": plots.VERMILION,
}


def write(store: Store, folder: Path) -> None:
    """Write a page and a picture for each measured scenario, and the page that compares them.

    Raises:
        OutputError: a file cannot be written.
    """
    done = [name for name in PAGES if any(store.get(name, way) for way in WAYS)]
    if not done:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name in done:
        write_atomic(folder / f"{name}.md", page(store, name).encode())
        picture = draw(store, name)
        if picture:
            write_atomic(folder / f"{name}.png", picture)
    write_atomic(folder / "README.md", index(store, done).encode())


def page(store: Store, name: str) -> str:
    """One scenario's page, as Markdown."""
    scenario, config = SCENARIOS[name], settings(name)
    found = {way.key: store.get(name, way) for way in WAYS}
    return _render(
        PAGE,
        name=name,
        title=scenario.title,
        description=scenario.description,
        train=config.train,
        share=_share(config.train.sampling_probability),
        hidden=" and ".join(map(str, config.train.hidden_units)),
        clip=config.dp.record.l2_norm_clip,
        central=_first(found["network"]),
        run=_first(found["federated"]) or next(iter(_runs(found)), {}),
        saturated=sum(one["saturated"] for one in _runs(found)),
        skipped=sum(len(one["rounds_skipped"]) for one in _runs(found)),
        sent=_sent(found),
        seeds=_seeds(found),
        rows=[_row(name, way, found[way.key]) for way in WAYS],
        picture=bool(_drawn(store, name)),
    )


def index(store: Store, names: Sequence[str]) -> str:
    """The page that compares the scenarios, as Markdown."""
    rows = []
    for name in names:
        cells = [_spread(store.get(name, way), "auc") for way in WAYS if way.key != "majority"]
        rows.append((name, SCENARIOS[name].title, cells))
    titles = [way.title for way in WAYS if way.key != "majority"]
    seeds = sorted({one["seed"] for name in names for way in WAYS for one in store.get(name, way)})
    return _render(INDEX, rows=rows, titles=titles, seeds=seeds)


def draw(store: Store, name: str) -> bytes | None:
    """AUC over the rounds of each run, and at the end against epsilon: PNG, or None if unknown."""
    lines = _drawn(store, name)
    if not lines:
        return None
    network = _first(store.get(name, _way("network")))
    with plots.styled((7.6, 2.9), 90) as figure:
        rounds, ends = figure.subplots(1, 2, width_ratios=(3, 2))
        for way, one in lines:
            numbers, values = zip(*[(r, auc) for r, auc, _ in one["curve"]], strict=True)
            label = "not private" if way.epsilon is None else f"epsilon {way.epsilon}"
            rounds.plot(numbers, values, color=_COLORS[way.key], label=label, linewidth=1.8)
        for axes in (rounds, ends):
            if network:
                axes.axhline(
                    network["auc"], color=plots.INK, linewidth=1.1, linestyle=plots.DASHES,
                    label="central",
                )  # fmt: skip
        rounds.set_xlabel("round")
        rounds.set_title("AUC on held-out rows")
        handles, labels = rounds.get_legend_handles_labels()
        private = [(way.epsilon, one) for way, one in reversed(lines) if way.epsilon is not None]
        if private:
            places = range(len(private))
            ends.plot(places, [one["auc"] for _, one in private], color=plots.BLUE, marker="o")
            ends.set_xticks(list(places), [str(epsilon) for epsilon, _ in private])
        whole = [one for way, one in lines if way.epsilon is None]
        if whole:
            ends.axhline(whole[0]["auc"], color=plots.BLUE, linewidth=1.1, linestyle=plots.DASHES)
        ends.set_xlabel("epsilon per record")
        ends.set_title("What privacy costs")
        ends.margins(x=0.12, y=0.15)
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        png = io.BytesIO()
        figure.savefig(png, format="png")
    return png.getvalue()


def _drawn(store: Store, name: str) -> list[tuple[Way, Measurement]]:
    found = [(way, _first(store.get(name, way))) for way in WAYS]
    return [(way, one) for way, one in found if one.get("curve")]


def _way(key: str) -> Way:
    return next(way for way in WAYS if way.key == key)


def _first(found: Sequence[Measurement]) -> Measurement:
    return found[0] if found else {}


def _runs(found: dict[str, list[Measurement]]) -> list[Measurement]:
    return [one for all_seeds in found.values() for one in all_seeds if "curve" in one]


def _seeds(found: dict[str, list[Measurement]]) -> list[int]:
    return sorted({one["seed"] for all_seeds in found.values() for one in all_seeds})


def _share(probability: float) -> str:
    return "all" if probability == 1 else f"{probability:g} (Poisson sampling)"


def _sent(found: dict[str, list[Measurement]]) -> str:
    sent = [one["bytes_up_per_client"] for one in _runs(found)]
    return size(max(sent)) if sent else UNKNOWN


def _row(name: str, way: Way, found: Sequence[Measurement]) -> dict[str, str]:
    epsilons = [e for one in found if (e := one.get("epsilon_record")) is not None]
    seconds = [one["seconds"] for one in found]
    command = _first(found).get("command", " ".join(way.command(name, 1)))
    return {
        "title": way.title,
        "accuracy": _spread(found, "accuracy"),
        "auc": _spread(found, "auc"),
        "spent": spent(max(epsilons)) if epsilons else UNKNOWN,
        "seconds": duration(mean(seconds)) if seconds else "not measured",
        "command": f"`{command}`",
    }


def _spread(found: Sequence[Measurement], column: str) -> str:
    """A value, or the mean of several seeds with the lowest and the highest."""
    values = [one[column] for one in found if one[column] is not None]
    if len(values) < 2:
        return decimal(values[0]) if values else UNKNOWN
    return f"{decimal(mean(values))} ({decimal(min(values))} to {decimal(max(values))})"


def _render(template: str, **values: Any) -> str:
    import jinja2

    environment = jinja2.Environment(  # noqa: S701 - Markdown of our own numbers
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    filters: dict[str, Callable[..., str]] = {"decimal": decimal, "duration": duration}
    environment.filters.update(filters)
    return environment.from_string(template).render(**values).rstrip() + "\n"
