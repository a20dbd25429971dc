# The program as an image: one static binary, no shell, an unprivileged user. It needs no writable root: run it read-only.
#
# Where the Go module proxy is reached only by settings of the host, hand them on as build arguments (docs/compose.md); they are
# not kept in the image.

FROM golang:1.26 AS build
# Without a value an argument is not set, and Go's own default holds. The proxy variables of Docker need no declaration.
ARG GOPROXY
ARG GOSUMDB
ARG GONOSUMDB
ARG GOPRIVATE
ARG GOFLAGS
ENV CGO_ENABLED=0
WORKDIR /src
COPY go.mod go.sum ./
# The largest dependencies are compiled in a layer that a change of our own code leaves alone.
RUN go mod download \
    && go build -trimpath modernc.org/sqlite github.com/riverqueue/river github.com/riverqueue/river/riverdriver/riverpgxv5 \
        github.com/jackc/pgx/v5/pgxpool github.com/pressly/goose/v3 riverqueue.com/riverui
COPY . .
# And our own in one that another version leaves alone: that is linked again, and no more.
RUN go build -trimpath -buildvcs=false -ldflags='-s -w' -o /dev/null ./cmd/worker \
    && mkdir /out /out/data
# What `worker version` says: a release, or a commit. One word.
ARG VERSION=dev
RUN go build -trimpath -buildvcs=false -ldflags="-s -w -X main.stamp=${VERSION}" -o /out/worker ./cmd/worker

FROM gcr.io/distroless/static-debian13:nonroot
ARG VERSION=dev
LABEL org.opencontainers.image.title="quorumbox" org.opencontainers.image.version="${VERSION}"
COPY --from=build /out/worker /usr/local/bin/worker
# A new volume that is mounted here belongs to the user below.
COPY --from=build --chown=65532:65532 /out/data /var/lib/quorumbox
USER 65532:65532
# Of `worker run` and `worker ui`, with the container's settings. A container of another command has to have its own, or none.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["/usr/local/bin/worker", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/worker"]
CMD ["run"]
