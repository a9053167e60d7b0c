/* bench: a load generator for a served model: some connections, each with one request under way, and the times from
 * the first byte sent to the last one read. One thread, sockets that never block, so that it is not what is measured.
 * Memory   a connection's reply is read into 16 KB and thrown away; requests are sent from one text. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/base.h"

struct bench_target {
    struct str host, port;
    struct str request; /* head and body, whole */
};
/* What one level of concurrency came to. */
struct bench_level {
    int connections;
    double seconds;
    int64_t requests, refused;  /* answered with 2xx; with another status */
    int64_t p50, p90, p99, max; /* ns */
    int status;                 /* of the last that was refused */
};
/* "http://127.0.0.1:7300" only: UNSUPPORTED for https. */
err bench_target(struct arena *, struct str url, struct bench_target *out);
/* Runs for about so long, after a tenth of it to warm up. UNAVAILABLE if the server is not there or hangs up. */
err bench_level(struct arena *, const struct bench_target *, int connections, double seconds,
                struct bench_level *out);
