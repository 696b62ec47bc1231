# The converter, pinned by constraints.txt (docs/install.md). A later build of the same commit
# installs the same packages; the base image alone moves with its tag.
FROM python:3.12-slim

WORKDIR /opt/kedge
COPY constraints.txt ./
RUN awk -v wanted=" device onnx convert build signing " '/^#/ {on = index(wanted, " " $2 " ")} on' constraints.txt > pins.txt \
    && python -m pip install --no-cache-dir --require-hashes -r pins.txt

COPY pyproject.toml README.md LICENSE ./
COPY runtime runtime
COPY models models
COPY convert convert
RUN python -m pip install --no-cache-dir --no-deps --no-build-isolation . \
    && useradd --create-home --uid 1000 kedge

USER 1000
WORKDIR /work
ENTRYPOINT ["kedge"]
CMD ["--help"]
