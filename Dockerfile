# syntax=docker/dockerfile:1
# CPU image:  docker build -t bids_muscle .
# CUDA image, every package verified: docker build -t bids_muscle:cuda --build-arg TORCH_LOCK=cuda.lock .
# With another build of torch: docker build -t bids_muscle --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
# With OpenSim, for --loading (222 MB more): docker build -t bids_muscle --build-arg EXTRAS=loading .
# With a model of others, whose licence you accept (docs/hpc.md):
#   docker build -t bids_muscle --build-arg FETCH="musclemap-wholebody --accept-licence" .
ARG BASE=python:3.11-slim-bookworm@sha256:528257d48c1da0dcecc2e725d1ae34498d60c965f1241e39cd6a85a8859bdf84
FROM ${BASE} AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python -m venv /opt/bids_muscle
ENV PATH=/opt/bids_muscle/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
ARG EXTRAS=
ARG TORCH_LOCK=
COPY requirements*.lock cuda.lock /src/
RUN pip install --no-deps --require-hashes -r /src/requirements.lock ${EXTRAS:+-r /src/requirements-${EXTRAS}.lock} ${TORCH_LOCK:+-r /src/${TORCH_LOCK}}
# Without a lock of its own, the build of torch depends on the index, so its hash cannot be pinned. What it
# needs is there by now, but for the libraries of a CUDA build.
RUN [ -n "${TORCH_LOCK}" ] || pip install torch==2.13.0 ${TORCH_INDEX:+--extra-index-url ${TORCH_INDEX}}
COPY . /src
# What only building and testing need is left out; data that do not have their checksum stop here.
RUN pip install --no-deps --no-build-isolation /src \
    && rm -rf /opt/bids_muscle/lib/python3.11/site-packages/torch/include \
        /opt/bids_muscle/lib/python3.11/site-packages/pip \
    && cp /src/LICENSE /src/NOTICE /src/sbom.cdx.json /opt/bids_muscle/ \
    && if [ -n "${TORCH_LOCK}" ]; then \
        python -P /src/.ci/notice "/src/${TORCH_LOCK}" >> /opt/bids_muscle/NOTICE \
        && cp /src/sbom-cuda.cdx.json /opt/bids_muscle/sbom.cdx.json; fi \
    && python -P /src/tests/container/check_data.py
ARG FETCH=
RUN mkdir /models && ${FETCH:+env BIDS_MUSCLE_MODELS=/models bids_muscle-model fetch ${FETCH}}

FROM ${BASE}
LABEL org.opencontainers.image.title="bids_muscle" \
      org.opencontainers.image.description="Muscle fat infiltration, volume and area from spine MRI in BIDS" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/bids_muscle /opt/bids_muscle
COPY --from=build /models /models
# Works read-only, under any UID, without a home and without network: caches go to /tmp, and libraries
# that ask who runs them are told.
ENV PATH=/opt/bids_muscle/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONNOUSERSITE=1 \
    HOME=/tmp \
    LOGNAME=bids_muscle \
    MPLCONFIGDIR=/tmp/matplotlib \
    XDG_CACHE_HOME=/tmp/cache \
    TORCH_HOME=/tmp/torch \
    BIDS_MUSCLE_MODELS=/models \
    NO_ET=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
# Nobody in particular; --user "$(id -u):$(id -g)" makes the outputs yours.
USER 65534:65534
ENTRYPOINT ["bids_muscle"]
