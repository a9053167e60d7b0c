// SPDX-License-Identifier: Apache-2.0
/* Opening and closing, observers, and what /readyz says. */
#include "serve/internal.h"
#include <stdlib.h>

/* ---- life ---- */

/* Not ready before each stored deployment was looked at. */
static err depls_list(struct serve *s)
{
    auto_arena struct arena *a = arena_new(0);
    struct objects all;
    int64_t again;
    TRY(object_list(s->store, a, S("Deployment"), S(""), S(""), 10000, &all));
    for (size_t i = 0; i < all.n; i++) {
        err e = serve_step(s, a, &all.v[i], NULL, &again);
        if (e) /* the control loop will try it again */
            log_err("deployment.unreadable", e);
    }
    s->listed = true;
    return NULL;
}

err serve_open(const struct serve_config *config, struct serve **out)
{
    struct serve *s = aligned_alloc(_Alignof(struct serve), sizeof *s);
    if (!s)
        abort();
    memset(s, 0, sizeof *s);
    s->store = config->store;
    s->library = config->library;
    s->body_bytes_max = config->body_bytes_max ? config->body_bytes_max : BODY_BYTES_MAX;
    pthread_mutex_init(&s->m, NULL);
    pthread_mutex_init(&s->loading, NULL);
    pthread_cond_init(&s->retiring, NULL);
    setenv("ORT_DISABLE_TELEMETRY", "1", 1); /* here, while there is one thread: the library comes later */
    s->traces = trace_log_new();
    s->meter = load_meter_new();
    err e = lane_new("models", LOADERS, 1024, &s->lane);
    if (!e)
        e = request_log_open(s, &s->requests);
    e = e ? e : lane_new("shadows", 1, COPIES_MAX, &s->copies);
    e = e ? e : reaper_start(s);
    pthread_mutex_lock(&s->m);
    if (!e)
        snap_publish(s);
    pthread_mutex_unlock(&s->m);
    if (!e)
        e = depls_list(s);
    if (e) {
        serve_close(s);
        return e;
    }
    *out = s;
    return NULL;
}

void serve_close(struct serve *s)
{
    if (!s)
        return;
    lane_free(s->lane); /* what is being loaded is loaded to its end */
    lane_free(s->copies);
    pthread_mutex_lock(&s->m);
    while (s->depls) {
        struct depl *d = s->depls;
        s->depls = d->next;
        depl_free(s, d);
    }
    struct snap *last = atomic_exchange(&s->now, NULL);
    if (last) {
        last->next = s->retired;
        s->retired = last;
    }
    pthread_mutex_unlock(&s->m);
    reaper_stop(s);
    request_log_close(s->requests); /* nothing reaches it any more */
    trace_log_free(s->traces);
    load_meter_free(s->meter);
    for (int i = 0; i < RUNTIMES; i++)
        runtime_close(s->runtimes[i]);
    pthread_mutex_destroy(&s->m);
    pthread_mutex_destroy(&s->loading);
    arena_free(s->sights_a);
    pthread_cond_destroy(&s->retiring);
    free(s);
}

struct reconciler serve_reconciler(struct serve *s)
{
    static const char *const kinds[] = { "Deployment",     "Model",       "ModelVersion",
                                         "FeatureService", "FeatureView", NULL };
    return (struct reconciler){ .name = "serve", .kinds = kinds, .step = serve_step, .self = s };
}

void serve_set_control(struct serve *s, struct control *c)
{
    LOCKED(&s->m);
    s->control = c;
}

void serve_observe(struct serve *s, struct serve_observer o)
{
    if (s->observers_n < OBSERVERS_MAX)
        s->observers[s->observers_n++] = o;
}

bool serve_ready(void *arg)
{
    struct serve *s = arg;
    LOCKED(&s->m);
    bool ready = s->listed;
    for (const struct depl *d = s->depls; d; d = d->next)
        ready = ready && d->settled;
    return ready;
}
