# A device: docker build -f deploy/device.Dockerfile -t lepton-device .
# Its folder is mounted, never copied into the image: it holds keys and rows.
FROM python:3.12-slim AS build
WORKDIR /src
RUN python -m venv /opt/lepton && /opt/lepton/bin/pip install --no-cache-dir --upgrade pip
COPY pyproject.toml README.md LICENSE ./
COPY lepton_flwr lepton_flwr
COPY strategies strategies
COPY clients clients
COPY simulations simulations
RUN /opt/lepton/bin/pip install --no-cache-dir .

FROM python:3.12-slim
# The uid owns the mounted folder: chown -R 10001:10001 device-001
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin lepton
COPY --from=build /opt/lepton /opt/lepton
ENV PATH=/opt/lepton/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /device
VOLUME /device
STOPSIGNAL SIGTERM
ENTRYPOINT ["lepton", "device", "run", "/device"]
