"""Flights late on arrival, from what is known before departure; airlines' stations are clients."""

from typing import Any

import numpy as np

from lepton_flwr.config import RunConfig
from lepton_flwr.data import rdata
from lepton_flwr.data.assemble import assemble
from lepton_flwr.data.federated import FederatedData
from lepton_flwr.data.scenario import Scenario, Tabular
from lepton_flwr.data.schema import Category, Cycle, Number, Schema, numbers
from lepton_flwr.errors import DataError

LATE_MINUTES = 15
_CARRIERS = "9E AA AS B6 DL EV F9 FL HA MQ OO UA US VX WN YV"
_DESTINATIONS = """
    ABQ ACK ALB ANC ATL AUS AVL BDL BGR BHM BNA BOS BQN BTV BUF BUR BWI BZN CAE CAK CHO
    CHS CLE CLT CMH CRW CVG DAY DCA DEN DFW DSM DTW EGE EYW FLL GRR GSO GSP HDN HNL HOU
    IAD IAH ILM IND JAC JAX LAS LAX LEX LGA LGB MCI MCO MDW MEM MHT MIA MKE MSN MSP MSY
    MTJ MVY MYR OAK OKC OMA ORD ORF PBI PDX PHL PHX PIT PSE PSP PVD PWM RDU RIC ROC RSW
    SAN SAT SAV SBN SDF SEA SFO SJC SJU SLC SMF SNA SRQ STL STT SYR TPA TUL TVC TYS XNA
"""

# Public bounds: the calendar, the published network, New York's weather in imperial units.
SCHEMA = Schema(
    (
        Category("week", tuple(range(53))),
        Category("weekday", tuple(range(7))),
        Category("hour", tuple(range(24))),
        Cycle("departure_minute", 24 * 60),
        Cycle("day_of_year", 365.25),
        Category("carrier", tuple(_CARRIERS.split())),
        Category("origin", ("EWR", "JFK", "LGA")),
        Category("dest", tuple(_DESTINATIONS.split())),
        Number("distance", 0, 5000, log1p=True),
        Number("temp", 0, 110, fill=55, indicator=True),
        Number("dewp", -20, 80, fill=40),
        Number("humid", 0, 100, fill=60),
        Cycle("wind_dir", 360, optional=True),
        Number("wind_speed", 0, 50, centred=False, fill=0),
        Number("wind_gust", 0, 70, centred=False, fill=0, indicator=True),
        Number("precip_hundredths", 0, 200, log1p=True, centred=False, fill=0),
        Number("pressure", 980, 1050, fill=1015, indicator=True),
        Number("visib", 0, 10, fill=10),
    )
)

_CALENDAR = {
    "year": (1900, 2200), "month": (1, 12), "day": (1, 31), "hour": (0, 24), "minute": (0, 59),
}  # fmt: skip
_HOUR = ["origin", "year", "month", "day", "hour"]
_FLIGHT = [*_HOUR, "minute", "carrier", "dest", "distance", "arr_delay"]
_WEATHER = [
    *_HOUR,
    *("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust"),
    *("precip", "pressure", "visib"),
]


def columns(flights: Any) -> dict[str, Any]:
    """The schema's columns from flights joined with weather, row by row.

    Only the schedule and the weather of the scheduled hour are read, so nothing here is known
    later than the scheduled departure.
    """
    table = {name: flights[name] for name in flights if name != "arr_delay"}
    year, month, day, hour, minute = (
        _whole(part, flights[part], *bounds) for part, bounds in _CALENDAR.items()
    )
    january = (year - 1970).astype("datetime64[Y]")
    first = (january.astype(np.int64) * 12 + month - 1).astype("datetime64[M]")
    date = first.astype("datetime64[D]") + (day - 1)
    table["weekday"] = (date.astype(np.int64) + 3) % 7  # day 0 was a Thursday; Monday is 0
    day_of_year = (date - january.astype("datetime64[D]")).astype(np.int64)
    table["day_of_year"] = day_of_year + 1
    table["week"] = day_of_year // 7
    table["departure_minute"] = hour * 60 + minute
    table["precip_hundredths"] = numbers("precip", flights["precip"]) * 100
    return table


def _whole(column: str, values: Any, low: int, high: int) -> np.ndarray:
    """A calendar's numbers, int64."""
    found = numbers(column, values)
    if not ((found >= low) & (found <= high) & (found == np.rint(found))).all():
        raise DataError(f"column {column}: expected whole numbers from {low} to {high} in all rows")
    return found.astype(np.int64)


def late(arrival_delay: Any) -> np.ndarray:
    """Class 1 where a flight arrives over 15 minutes late: int32 (n,).

    Raises:
        DataError: a delay is missing or no number.
    """
    minutes = numbers("arr_delay", arrival_delay)
    if np.isnan(minutes).any():
        raise DataError(f"column arr_delay: {int(np.isnan(minutes).sum())} delays are missing")
    return (minutes > LATE_MINUTES).astype(np.int32)


TABLE = Tabular(
    (*_FLIGHT[:-1], *_WEATHER[len(_HOUR) :]),
    lambda flights, unseen: SCHEMA.transform(columns(flights), unseen=unseen),
    "arr_delay",
    ("on time", "late"),
    late,
)


def read() -> Any:
    """Flights with a known arrival, joined with the weather of their scheduled hour."""
    flights = rdata.read("nycflights13", "flights")[_FLIGHT]
    weather = rdata.read("nycflights13", "weather")[_WEATHER].drop_duplicates(_HOUR)
    flights = flights[flights["arr_delay"].notna()]
    return flights.merge(weather, on=_HOUR, how="left", validate="many_to_one")


def load(config: RunConfig) -> FederatedData:
    """Flights as clients, natural ones by carrier and origin."""
    flights = read()
    return assemble(
        config,
        TABLE.transform(flights),
        TABLE.answers(flights["arr_delay"]),
        keys=(flights["carrier"] + "-" + flights["origin"]).to_numpy(),
        clients=29,
        num_classes=2,
        feature_names=SCHEMA.feature_names,
    )


SCENARIO = Scenario(
    name="transport",
    title="Flight delays",
    description=(
        "The 327,346 flights that left New York's airports in 2013 and arrived (nycflights13), "
        "with the weather of the scheduled hour: does a flight arrive over 15 minutes late? "
        "A client is one carrier at one airport."
    ),
    model="mlp",
    load=load,
    defaults={
        "data": {"min_rows": 1000},
        "train": {"optimizer": "adam", "learning_rate": 0.01, "sampling_probability": 0.05},
        "dp": {"record": {"l2_norm_clip": 4.0}},
    },
    table=TABLE,
)
