/* bench: a load generator for a served model: a closed loop, in which each of so many clients sends its next request
 * when the last one is answered, and the times from then to the answer's end.
 * Threads  bench_level() starts as many as it is told, each with connections of its own, sockets that never block, so
 *          that the generator is not what is measured.
 * Memory   a reply is read into 16 KB and thrown away; requests are sent from one text.
 * Wall     the driver (bench.c) owns sockets, times and counts; a struct wire owns a protocol's bytes. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/base.h"
#include "net/net.h"

struct wire;
extern const struct wire wire_http; /* HTTP/1.1: one request at a time on a connection */
extern const struct wire wire_grpc; /* HTTP/2: several calls at once */

enum { BENCH_HEADERS = 4, BENCH_PERCENTILES = 8, BENCH_REFUSALS = 8, BENCH_THREADS_MAX = 64 };
struct bench_target {
    const struct wire *wire;
    bool tls;
    struct str host, port, path; /* path: no body: it is got, not posted */
    struct header headers[BENCH_HEADERS];
    size_t headers_n;
    struct str body; /* of gRPC: the message */
};
struct bench_load {
    int clients, threads;
    double seconds; /* after a tenth of it to warm up */
    double percentiles[BENCH_PERCENTILES];
    size_t percentiles_n;
};
/* What one level of load came to. */
struct bench_level {
    double seconds;
    int64_t answered;                            /* in that time and with success: times are of these */
    int64_t all;                                 /* answers of any kind, those while it warmed up as well */
    int64_t max, percentiles[BENCH_PERCENTILES]; /* ns */
    struct {
        struct str status; /* "503", "UNAVAILABLE" */
        int64_t n;
    } refusals[BENCH_REFUSALS]; /* in that time; the last one has all further ones */
    size_t refusals_n;
};
/* Host and port of "http://127.0.0.1:7300", or of https. */
err bench_target(struct arena *, struct str url, struct bench_target *out);
/* UNAVAILABLE if the server is not there or hangs up, TIMEOUT if it does not answer for long. */
err bench_level(struct arena *, const struct bench_target *, const struct bench_load *,
                struct bench_level *out);
