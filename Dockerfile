# The environment of every job on Kubernetes, and of the process that starts them (profiles/kubernetes); also that of
# every job with `snakemake --sdm apptainer`, see `make container`.
# docker build -t REGISTRY/onnxproof:VERSION .
FROM python:3.11-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /onnxproof
COPY Makefile pyproject.toml ./
COPY envs/locks envs/locks
RUN make setup-cluster
ENV PATH=/onnxproof/.venv/bin:$PATH

COPY . .

# No job needs to be root, and no model is to be trusted with it.
RUN useradd --create-home --uid 1000 onnxproof && chown --recursive onnxproof /onnxproof
USER 1000
