"""How a hotel's guests book; the guests' countries are clients."""

from lepton_flwr.config import RunConfig
from lepton_flwr.data import rdata
from lepton_flwr.data.assemble import assemble
from lepton_flwr.data.federated import FederatedData
from lepton_flwr.data.scenario import Scenario, Tabular
from lepton_flwr.data.schema import Number, Schema

SEGMENTS = ("corporate", "direct", "groups", "offline_travel_agent", "online_travel_agent")

# Public bounds: what a stay and its price can be; larger counts count as the bound.
SCHEMA = Schema(
    (
        Number("avg_price_per_room", 0, 300),
        Number("lead_time", 0, 400, log1p=True),
        Number("stays_in_weekend_nights", 0, 4),
        Number("stays_in_week_nights", 0, 10),
        Number("adults", 1, 3),
        Number("children", 0, 2, centred=False),
        Number("babies", 0, 1, centred=False),
        Number("is_repeated_guest", 0, 1, centred=False),
        Number("previous_cancellations", 0, 2, centred=False),
        Number("previous_bookings_not_canceled", 0, 30, log1p=True, centred=False),
        Number("booking_changes", 0, 3, centred=False),
        Number("days_in_waiting_list", 0, 180, log1p=True, centred=False),
        Number("required_car_parking_spaces", 0, 1, centred=False),
        Number("total_of_special_requests", 0, 3),
        Number("arrival_date_num", 2016, 2018),
        Number("near_christmas", 0, 1, centred=False),
        Number("near_new_years", 0, 1, centred=False),
        Number("historical_adr", 0, 200),
    )
)
TABLE = Tabular.of(
    SCHEMA, "market_segment", SEGMENTS, lambda values: rdata.classes(values, SEGMENTS)
)


def load(config: RunConfig) -> FederatedData:
    """Bookings as clients, natural ones by the guests' country."""
    bookings = rdata.read("modeldata", "hotel_rates")
    return assemble(
        config,
        TABLE.transform(bookings),
        TABLE.answers(bookings["market_segment"]),
        keys=bookings["country"].fillna("").to_numpy(),
        clients=16,
        num_classes=len(SEGMENTS),
        feature_names=SCHEMA.feature_names,
    )


SCENARIO = Scenario(
    name="customers",
    title="Hotel guests",
    description=(
        "15,402 bookings of a resort hotel in Portugal (modeldata, hotel_rates), numbers only: "
        "through which of five market segments did the guest come? A client is a country."
    ),
    model="mlp",
    load=load,
    defaults={
        "data": {"min_rows": 100},
        "train": {
            "optimizer": "adam",
            "learning_rate": 0.02,
            "local_steps": 20,
            "sampling_probability": 0.2,
        },
    },
    table=TABLE,
)
