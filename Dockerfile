# The program and what it needs to run; nothing of the toolchain. Build: docker build -t tidegate .
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends perl && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
RUN cargo build --release --locked -p tidegate --bin tidegate

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 8030 --home-dir /var/lib/tidegate --create-home tidegate
COPY --from=build /build/target/release/tidegate /usr/local/bin/tidegate
USER tidegate
VOLUME /var/lib/tidegate
EXPOSE 8030
# Drains within ten seconds.
STOPSIGNAL SIGTERM
ENTRYPOINT ["tidegate"]
CMD ["serve", "--listen", "0.0.0.0:8030", "--data-dir", "/var/lib/tidegate"]
