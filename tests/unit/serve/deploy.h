/* deploy: what the tests of deployments have in common. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "help.h"

/* late.1 … late.n, passed: late.i answers a row with a < 0.5 with the logistic of −i, else of i. */
static inline struct world *versions(int n)
{
    struct world *w = world_new();
    for (int i = 1; i <= n; i++)
        version_made(&w->l, i, step_model(w->l.a, 0.5f, (float)-i, (float)i), true);
    return w;
}

static inline void spec_put(struct world *w, const char *spec, int status)
{
    want(
        w, M_PUT, "/api/v1/projects/default/deployments/late",
        fmtz(
            w->l.a,
            "{\"apiVersion\":\"dhow/v1\",\"kind\":\"Deployment\",\"metadata\":{\"name\":\"late\"},\"spec\":%s}",
            spec),
        status);
}

/* How many of n requests each version answered. */
static inline void counts(struct world *w, const char *prefix, int n, int hits[10])
{
    int status;
    memset(hits, 0, 10 * sizeof *hits);
    for (int i = 0; i < n; i++) {
        struct str v = answered_by(w, fmtz(w->l.a, "%s-%d", prefix, i), 0, &status);
        CHECK(status == 200);
        hits[v.p[0] - '0']++;
    }
}

/* Until so many are ready, and none is being loaded. */
static inline void wait_traffic(struct world *w, size_t n)
{
    for (int i = 0; i < 2000; i++, nap()) {
        struct deployment_status s = deployment_now(w);
        const struct traffic *v = s.traffic.v;
        size_t ready = 0;
        for (size_t k = 0; k < s.traffic.n; k++)
            ready += v[k].state == TRAFFIC_READY;
        if (ready == n)
            return;
    }
    cr_assert_fail("%zu versions are never ready: %.*s", n, STR(deployment_now(w).message));
}

static inline void wait_phase(struct world *w, enum deployment_phase phase)
{
    for (int i = 0; i < 4000; i++, nap())
        if (deployment_now(w).phase == (int)phase)
            return;
    cr_assert_fail("phase is %s, never %s", deployment_phases[deployment_now(w).phase],
                   deployment_phases[phase]);
}

/* Does /metrics have this line, of a version of deployment late? */
static inline bool counted(struct world *w, const char *name, const char *version, const char *value)
{
    struct buf b = buf_new(w->l.a);
    serve_metrics(w->serve, &b);
    return has(buf_get(&b), fmtz(w->l.a, "\n%s{project=\"default\",deployment=\"late\",version=\"%s\"} %s\n",
                                 name, version, value));
}
