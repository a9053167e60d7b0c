/* app: the whole daemon, put together; the one place that sees every module. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "net/net.h"

struct app;
struct app_config {
    struct str listen, data;                     /* "127.0.0.1:7300", folder */
    struct str sources;                          /* folder where Source.path starts */
    struct str token_file;                       /* the first admin token goes there; empty: to stderr */
    struct str tls_cert, tls_key, tls_client_ca; /* files; empty: no TLS */
    bool allow_public;
    int loops, workers;     /* 0: by the machine */
    size_t waiting_max;     /* requests that wait for a worker; 0: net's default */
    size_t infer_bytes_max; /* body or message of a prediction; 0: serve's default */
    struct net_limits limits;
    bool grpc_gzip;
};
/* Opens the store, starts the reconcilers, then listens. */
err app_start(const struct app_config *, struct app **out);
struct str app_address(const struct app *);
/* The one-time admin token of a first start; empty otherwise. */
struct str app_first_token(const struct app *);
struct str app_openapi(const struct app *, struct arena *a);
/* Lets requests under way end; jobs go on and are found again. NULL is fine. */
void app_stop(struct app *);
