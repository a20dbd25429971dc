# Short names for what CI and developers run; the logic is in .ci/ and in the programs.
SHELL := /bin/bash
.DEFAULT_GOAL := help

.PHONY: help build test test/race test/integration lint fmt vuln ci up down demo bench

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z\/]+:.*## / {printf "%-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build the program as bin/worker
	go build -trimpath -o bin/worker ./cmd/worker

test: ## run all tests
	go test ./...

test/race: ## run all tests but the whole-program ones under the race detector, in a random order
	go test -race -shuffle=on $$(go list ./... | grep -v '/integration$$')

test/integration: ## run the whole-program tests, with their output
	go test ./integration -count=1 -v

lint: ## check with golangci-lint, in the pinned version
	.ci/lint

fmt: ## format all Go files
	.ci/lint fmt

vuln: ## look for known vulnerabilities that the code can reach
	.ci/vuln

ci: ## everything that CI checks
	.ci/run

up: ## start the compose project: Postgres, a worker and test peers
	docker compose up --build --detach --wait

down: ## stop the compose project; its data stays
	docker compose down

demo: ## show a quorum, a dead peer and its recovery on an embedded Postgres
	go run ./cmd/worker demo

bench: ## measure the figures on an embedded Postgres
	go run ./cmd/worker bench
