# syntax=docker/dockerfile:1

# One image for the API, the worker and the migrations; the command chooses: `node bin/api.ts`, `node bin/worker.ts`, `node bin/migrate.ts`.
# The Node version is that of package.json.
ARG NODE_IMAGE=node:24.21.0-bookworm-slim

FROM ${NODE_IMAGE} AS packages
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
# Nothing that runs here needs an install script. The image has its own Node, and the Temporal SDK brings itself for five platforms.
RUN npm ci --omit=dev --ignore-scripts \
 && rm -rf node_modules/node node_modules/node-bin-* node_modules/.bin/node \
 && cd node_modules/@temporalio/core-bridge/releases \
 && for each in *; do if [ "$each" != "$(uname -m)-unknown-linux-gnu" ]; then rm -r "$each"; fi; done

FROM ${NODE_IMAGE} AS opencode
WORKDIR /app/harness/opencode
COPY harness/opencode/package.json harness/opencode/package-lock.json harness/opencode/.npmrc ./
# Its install script has copied the program; the packages that it came from are the same again.
RUN npm ci --omit=dev && rm -rf node_modules/opencode-linux-*

FROM ${NODE_IMAGE} AS supervisor
WORKDIR /app/supervisor
COPY supervisor/package.json supervisor/package-lock.json supervisor/.npmrc ./
RUN npm ci --omit=dev --ignore-scripts

# The workflow code as one file: a worker then starts in a second instead of three.
FROM packages AS workflows
COPY domain domain
COPY workflows workflows
COPY tools/bundle-workflows.ts tools/
RUN node tools/bundle-workflows.ts workflows.bundle.js

FROM ${NODE_IMAGE}
# What agents expect of a machine; git is needed for every clone.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates curl git openssh-client procps ripgrep \
 && rm -rf /var/lib/apt/lists/* \
 && install -d -o node -g node /var/lib/lap
WORKDIR /app
COPY --from=packages /app/node_modules node_modules
COPY --from=opencode /app/harness/opencode/node_modules harness/opencode/node_modules
COPY --from=supervisor /app/supervisor/node_modules supervisor/node_modules
COPY --from=workflows /app/workflows.bundle.js ./
COPY package.json ./
COPY activities activities
COPY api api
COPY config config
COPY db db
COPY domain domain
COPY harness harness
COPY kubernetes kubernetes
COPY local local
COPY s3 s3
COPY sandbox sandbox
COPY supervisor supervisor
COPY telemetry telemetry
COPY temporal temporal
COPY vault vault
COPY webhooks webhooks
COPY workflows workflows
COPY bin/api.ts bin/worker.ts bin/migrate.ts bin/supervisor.ts bin/checkpoints.ts bin/installation.ts bin/sandboxes.ts bin/settings.ts bin/
ENV NODE_ENV=production HOST=0.0.0.0 LAP_DATA_DIR=/var/lib/lap
USER node
# API, its metrics, the worker's metrics.
EXPOSE 3000 9090 9091
CMD ["node", "bin/api.ts"]
