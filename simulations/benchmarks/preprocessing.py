"""What federated statistics cost: time, and accuracy of a central model on the features.

`python -m simulations.benchmarks.preprocessing` prints a table for each of four real tables: a
logistic regression without privacy, on features by exact statistics and by statistics of several
epsilons, so that the difference is what the statistics' noise costs.
"""

import argparse
import time
import warnings

import numpy as np

from lepton_flwr.data import rdata
from lepton_flwr.data.preprocessing import Options, TableSchema, fit_tables, num_releases
from lepton_flwr.privacy.accounting import calibrate

DELTA = 1e-5
EPSILONS = (0.3, 0.9, 2.4)
# Package, item, label, and columns that tell the outcome.
TABLES = (
    ("modeldata", "hotel_rates", "market_segment", ("arrival_date",)),
    ("survival", "flchain", "death", ("futime", "chapter")),
    ("modeldata", "credit_data", "Status", ()),
    ("modeldata", "wa_churn", "churn", ()),
)


def measure(table: tuple[str, str, str, tuple[str, ...]], participants: int, runs: int) -> str:
    """One row: seconds of an exact and a private fit, and accuracies."""
    from sklearn.linear_model import LogisticRegression

    package, item, label, told = table
    frame = rdata.read(package, item).drop(columns=list(told))
    classes = frame.pop(label).to_numpy()
    schema = TableSchema.infer(frame)
    scores: dict[float, list[float]] = {epsilon: [] for epsilon in (0.0, *EPSILONS)}
    seconds: dict[float, float] = {}
    for seed in range(runs):
        order = np.random.default_rng(seed).permutation(len(frame))
        test, train = np.split(order, [len(order) // 5])
        tables = [schema.read(frame.iloc[rows]) for rows in np.array_split(train, participants)]
        for epsilon, found in scores.items():
            noise = calibrate(epsilon, DELTA, 1.0, num_releases(schema)) if epsilon else 0.0
            start = time.perf_counter()
            made = fit_tables(tables, schema, noise_multiplier=noise, options=Options())
            seconds[epsilon] = time.perf_counter() - start
            x = made.transform(frame)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it has not converged to the last digit
                model = LogisticRegression(max_iter=300).fit(x[train], classes[train])
            found.append(float(model.score(x[test], classes[test])))
    cells = [f"{np.mean(found):.3f} ± {np.std(found):.3f}" for found in scores.values()]
    return (
        f"| {item} | {len(frame):,} x {len(schema.columns)} | {seconds[0.0]:.1f} | "
        f"{seconds[EPSILONS[0]]:.1f} | {' | '.join(cells)} |"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--participants", type=int, default=5)
    parser.add_argument("--runs", type=int, default=5)
    chosen = parser.parse_args()
    columns = ["table", "records x columns", "s, exact", "s, private", "exact"]
    columns += [f"epsilon {epsilon:g}" for epsilon in EPSILONS]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for table in TABLES:
        print(measure(table, chosen.participants, chosen.runs), flush=True)


if __name__ == "__main__":
    main()
