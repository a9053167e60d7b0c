/* bench/wire: a protocol's bytes on one connection of the load generator. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "cli/bench.h"

struct link { /* one connection, on one thread */
    struct arena *a;
    const struct bench_target *target;
    int slots;   /* requests at once */
    void *state; /* the wire's */
    void *arg;   /* answered's */
    /* A request is answered; asks for the next one in its slot. */
    err (*answered)(struct link *, int slot, bool ok, int status);
};
struct wire {
    int slots_max;                       /* requests at once on a connection */
    struct str protocol;                 /* as TLS names it */
    err (*open)(struct link *);          /* makes state */
    err (*ask)(struct link *, int slot); /* begins a request */
    err (*out)(struct link *,
               struct str *bytes); /* what is to be sent next, valid until asked again; empty: nothing */
    err (*in)(struct link *, struct str bytes);
    void (*close)(struct link *);
    struct str (*status)(struct arena *, int status); /* as people know it */
};
