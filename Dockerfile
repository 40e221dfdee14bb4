# ocl-bench in a container, with the versions of constraints.txt. Never built so far: it was written where no Docker daemon runs.
#
#   docker build -t ocl-bench .                             torch for CPUs
#   docker build -t ocl-bench:cuda --build-arg TORCH=cu130 .
#   docker run --rm -v ocl-bench-cache:/cache -v "$PWD:/work" --user "$(id -u)" ocl-bench eval --model dias --task clevrtex
#
# BASE    an image with Python 3.11 or newer. CUDA itself comes with torch: the base needs none, the host needs its driver
#         and the NVIDIA Container Toolkit (docker run --gpus all).
# TORCH   a folder of https://download.pytorch.org/whl: cpu, cu126, cu130, ..
# EXTRAS  what is installed beside the core (docs/install.md).
ARG BASE=python:3.12-slim

FROM ${BASE} AS build
ARG TORCH=cpu
ARG EXTRAS=all
COPY . /source
RUN python -m venv /opt/ocl-bench \
    && /opt/ocl-bench/bin/python -m pip install --no-cache-dir --extra-index-url "https://download.pytorch.org/whl/${TORCH}" \
        -c /source/constraints.txt "/source[${EXTRAS}]"

FROM ${BASE}
COPY --from=build /opt/ocl-bench /opt/ocl-bench
# Whoever runs the container, by --user, can write into both folders.
RUN useradd --create-home bench && install --directory --mode=1777 /cache /work
ENV PATH="/opt/ocl-bench/bin:${PATH}" OCL_BENCH_CACHE=/cache HF_HOME=/cache/huggingface MPLCONFIGDIR=/cache/matplotlib
USER bench
VOLUME /cache
WORKDIR /work
ENTRYPOINT ["ocl-bench"]
CMD ["--help"]
