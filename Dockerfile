# One node. Build: docker build -t wavegate .
FROM rust:1-bookworm AS build
WORKDIR /build
COPY . .
RUN cargo build --release --locked --bin wavegate

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --no-create-home wavegate \
    && mkdir /data && chown wavegate /data
COPY --from=build /build/target/release/wavegate /usr/local/bin/wavegate
USER wavegate
VOLUME /data
EXPOSE 8080
# `docker stop` kills after 10 s: give it -t 25, more than shutdown.grace (20 s).
STOPSIGNAL SIGTERM
# What it keeps itself is in the volume: the embedded store, or on Redis the receipts of what it accepted.
ENV WAVEGATE__STORE__EMBEDDED__DATA_DIR=/data
ENV WAVEGATE__STORE__REDIS__RECEIPTS_DIR=/data/receipts
ENTRYPOINT ["wavegate"]
CMD ["serve"]
