"""The real ClientApp in a clock."""

from .trace import Traced  # isort: skip - its clock starts first

from clients.client_app import app as real

app = Traced(real)
