# docker build -t bertlab .
# docker run --rm -v "$PWD:/work" bertlab dataset=files dataset.train_file=reviews.csv dataset.label_column=stars
# On a CUDA GPU the same image: docker run --rm --gpus all …       (torch's wheel brings CUDA's libraries on x86-64; the host, its driver)
# A smaller image for CPUs: --build-arg TORCH_INDEX=URL of an index that holds torch without CUDA.
FROM python:3.11-slim
ARG TORCH_INDEX=""
ARG EXTRAS=hf,joblib
WORKDIR /opt/bertlab
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY conf conf
COPY src src
RUN if [ -n "$TORCH_INDEX" ]; then pip install --no-cache-dir "$(grep '^torch==' constraints.txt)" --index-url "$TORCH_INDEX"; fi \
    && pip install --no-cache-dir -c constraints.txt ".[$EXTRAS]"
RUN useradd --create-home --uid 1000 lab
USER lab
WORKDIR /work
ENV BERTLAB_CACHE=/tmp/bertlab
ENTRYPOINT ["bertlab"]
