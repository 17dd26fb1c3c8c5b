# The image of everything that lvault runs on a cluster: the node agent, the controller and the executors.
#   docker build -t registry.example.com/lvault:0.1.0 .
FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
RUN cargo build --locked --release --package lvault

FROM debian:bookworm-slim
# What the engines run: mkfs, mount, losetup, fsfreeze, what grows filesystems, and LVM with what it checks thin pools with.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        btrfs-progs ca-certificates dmsetup e2fsprogs lvm2 mount thin-provisioning-tools util-linux xfsprogs \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /source/target/release/lvault /usr/local/bin/lvault
ENTRYPOINT ["/usr/local/bin/lvault"]
