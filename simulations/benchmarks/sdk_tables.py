"""The ten lines of `LeptonClient` on four real tables, beside central models without privacy.

Each table is exported to CSV: columns of numbers, then those of texts, the label last (the script
draws the first two columns, and matplotlib draws no texts of which some are missing). A fifth of
the rows is held out at random and never shown to the client; its ten lines run on the file of the
others, with all defaults. The central models see the same rows, all of them in one place:
scikit-learn's logistic regression on standardized numbers and one feature for each category that 20
rows have, and its histogram gradient boosting. Every accuracy is of the held-out rows.

    python -m simulations.benchmarks.sdk_tables --out sdk-tables [--seeds 1 2 3] [--picture FILE]
"""

import argparse
import contextlib
import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lepton_flwr.data import rdata

# Package, label, and columns left out: those of `flchain` tell the outcome.
TABLES = {
    "hotel_rates": ("modeldata", "market_segment", ()),
    "flchain": ("survival", "death", ("futime", "chapter")),
    "wa_churn": ("modeldata", "churn", ()),
    "credit_data": ("modeldata", "Status", ()),
}
HELD_OUT = 0.2
# The script of the README; only the import and the file's name differ between tables.
TEN_LINES = """\
data = pd.read_csv("{file}")
X = data.iloc[:, :-1].values
y = data.iloc[:, -1].values
client = LeptonClient()
client.preprocess_data(X, y)
client.encrypt_data()
client.add_differential_privacy_noise()
client.federated_learning()
model_params = client.get_model_params()
client.decrypt_model_params(model_params)
predictions = client.predict(X)
plt.scatter(X[:, 0], X[:, 1], c=predictions)
"""


@dataclass(frozen=True)
class Result:
    """One table's figures.

    Attributes:
        name: the table's.
        rows: that the client was given.
        features: of its model.
        central: accuracy of logistic regression on all rows together, without privacy.
        trees: that of gradient boosting.
        most_frequent: share of the most frequent class.
        accuracy: of the client's model.
        epsilon: what it spent.
        seconds: from reading the file to the picture.
    """

    name: str
    rows: int
    features: int
    central: float
    trees: float
    most_frequent: float
    accuracy: float
    epsilon: float
    seconds: float


def export(name: str, folder: Path, seed: int) -> tuple[Path, Any]:
    """Write a table's rows but a fifth to `folder` as CSV; return the file and the others."""
    import pandas as pd

    package, label, left_out = TABLES[name]
    table = rdata.read(package, name).drop(columns=list(left_out))
    numbers = list(table.drop(columns=label).select_dtypes("number"))
    texts = [column for column in table if column not in (label, *numbers)]
    table = table[[*numbers, *texts, label]]
    order = np.random.default_rng(seed).permutation(len(table))
    held = round(HELD_OUT * len(table))
    path = folder / f"{name}.csv"
    table.iloc[np.sort(order[held:])].to_csv(path, index=False)
    table.iloc[np.sort(order[:held])].to_csv(folder / f"{name}-held-out.csv", index=False)
    return path, pd.read_csv(folder / f"{name}-held-out.csv")


def central(path: Path, held_out: Any) -> tuple[float, float]:
    """Accuracy of logistic regression and of gradient boosting on the file's rows."""
    import pandas as pd
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

    table = pd.read_csv(path).drop_duplicates()
    x, y = table.iloc[:, :-1], table.iloc[:, -1]
    test_x, test_y = held_out.iloc[:, :-1], held_out.iloc[:, -1]
    numbers = make_column_selector(dtype_include="number")
    texts = make_column_selector(dtype_exclude="number")
    one_hot = OneHotEncoder(min_frequency=20, handle_unknown="infrequent_if_exist")
    linear = make_pipeline(
        make_column_transformer(
            (make_pipeline(SimpleImputer(), StandardScaler()), numbers), (one_hot, texts)
        ),
        LogisticRegression(max_iter=5000),
    )
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, max_categories=250)
    trees = make_pipeline(
        make_column_transformer((codes, texts), remainder="passthrough"),
        HistGradientBoostingClassifier(random_state=0),
    )
    return (
        float(linear.fit(x, y).score(test_x, test_y)),
        float(trees.fit(x, y).score(test_x, test_y)),
    )


def run_ten_lines(path: Path) -> dict[str, Any]:
    """Run the script on a file, in the file's folder; return its variables."""
    import matplotlib

    matplotlib.use("Agg")
    import pandas as pd
    from matplotlib import pyplot as plt

    from lepton_flwr import LeptonClient

    plt.figure(figsize=(6.4, 4.0), layout="constrained")
    variables: dict[str, Any] = {"pd": pd, "plt": plt, "LeptonClient": LeptonClient}
    code = compile(TEN_LINES.format(file=path.name), "ten lines", "exec")
    with contextlib.chdir(path.parent):
        exec(code, variables)  # noqa: S102 - the published script, as it is printed
        variables["report"] = variables["client"].report().resolve()
    return variables


def measure(name: str, folder: Path, seed: int, picture: Path | None = None) -> Result:
    """Run one table."""
    from matplotlib import pyplot as plt

    path, held_out = export(name, folder, seed)
    linear, trees = central(path, held_out)
    start = time.monotonic()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        found = run_ten_lines(path)
    seconds = time.monotonic() - start
    client = found["client"]
    if picture is not None:
        axes = plt.gca()
        axes.set(xlabel=held_out.columns[0], ylabel=held_out.columns[1])
        plt.savefig(picture, dpi=110)
    plt.close("all")
    predicted = client.predict(held_out.iloc[:, :-1].values)
    labels = held_out.iloc[:, -1].values
    summary = found["report"].with_name("summary.json").read_text(encoding="utf-8")
    return Result(
        name,
        len(found["X"]),
        len(client.feature_names),
        linear,
        trees,
        float(max(np.unique(labels.astype(str), return_counts=True)[1]) / len(labels)),
        float((predicted == labels).mean()),
        json.loads(summary)["epsilon_record"],
        seconds,
    )


def report(results: Sequence[Result]) -> str:
    """A Markdown table: means over the seeds."""
    lines = [
        "| table | rows | most frequent class | central logistic regression | central trees | "
        "ten lines | to the regression | epsilon | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(result.name for result in results):
        own = [result for result in results if result.name == name]

        def mean(field: str, own: Sequence[Result] = own) -> float:
            return float(np.mean([getattr(result, field) for result in own]))

        points = 100 * (mean("accuracy") - mean("central"))
        lines.append(
            f"| {name} | {own[0].rows:,} | {mean('most_frequent'):.3f} | {mean('central'):.3f} | "
            f"{mean('trees'):.3f} | **{mean('accuracy'):.3f}** | {points:+.1f} points | "
            f"{max(result.epsilon for result in own):.3g} | {mean('seconds'):.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table of results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for files and runs")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1], help="of the held-out rows")
    parser.add_argument("--picture", type=Path, help="where to keep the picture of the last table")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = []
    for name in arguments.tables:
        for seed in arguments.seeds:
            last = (name, seed) == (arguments.tables[-1], arguments.seeds[-1])
            picture = arguments.picture.resolve() if last and arguments.picture else None
            results.append(measure(name, arguments.out.resolve(), seed, picture))
            print(results[-1], flush=True)
    print(report(results))


if __name__ == "__main__":
    main()
