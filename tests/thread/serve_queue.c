// SPDX-License-Identifier: Apache-2.0
/* Requests by every way to their run (loop, round, queue, a lane's worker) while the policy changes under them, and a
 * stop in the middle: each is answered once, with its own answer, and nothing is left. */
#include "serve/policy.h"
#include <stdlib.h>
#include <time.h>

enum { CLIENTS = 6, CHANGES = 300 };

/* y = 2 x */
static err toy_run(struct session *s, struct run_control *control, struct arena *a, const struct tensor *in,
                   size_t n_in, struct tensor *out, size_t n_out)
{
    (void)s;
    (void)control;
    size_t n = (size_t)in[0].dims[0];
    float *y = NEW_N(a, float, n);
    for (size_t i = 0; i < n; i++)
        y[i] = 2 * ((const float *)in[0].data)[i];
    if (n_in != 1 || n_out != 1)
        abort();
    out[0] = (struct tensor){
        .type = TENSOR_F32, .rank = 2, .dims = { (int64_t)n, 1 }, .data = y, .bytes = n * sizeof *y
    };
    return NULL;
}
static void toy_unload(struct session *s)
{
    (void)s;
}
static const struct runtime_ops toy_ops = { .name = "toy", .run = toy_run, .unload = toy_unload };
static struct session toy = { &toy_ops };
static const struct tensor_spec open_spec = {
    .name = S_INIT("x"), .type = TENSOR_F32, .shaped = true, .rank = 2, .dims = { -1, 1 }
};
static const struct session_info toy_info = { &open_spec, &open_spec, 1, 1 };

static err ask_reply(struct infer *c)
{
    return req_reply(c->r, 200, "text/plain", fmt(c->a, "%g", (double)((const float *)c->out[0].data)[0]));
}

static err ask_run(struct req *r)
{
    struct infer *c = NEW(r->a, struct infer);
    struct str text;
    double v = 0;
    if (!req_query(r, S("x"), &text) || !str_f64(text, &v))
        abort();
    *c = (struct infer){ .s = (struct serve *)(uintptr_t)r->route->self,
                         .r = r,
                         .a = r->a,
                         .project = S("p"),
                         .deployment = S("a"),
                         .reply = ask_reply,
                         .inputs_n = 1 };
    float *x = NEW(r->a, float);
    *x = (float)v;
    c->inputs = NEW(r->a, struct named);
    *c->inputs = (struct named){
        S("x"), { .type = TENSOR_F32, .rank = 2, .dims = { 1, 1 }, .data = x, .bytes = sizeof *x }
    };
    c->p.timeout_us = (int64_t)v % 50 == 0 ? 1 : 0;
    c->p.sequence = (int64_t)v % 7 == 0 ? S("") : fmt(r->a, "%lld", (long long)v % 5);
    c->p.sequence_start = true;
    return infer_start(c);
}

static bool ask_light(struct req *r)
{
    return r->target.p[r->target.n - 1] % 3 != 0;
}

struct client {
    struct str url;
    int number;
    int64_t answered;
};

static void *client_run(void *arg)
{
    struct client *me = arg;
    struct arena *a = arena_new(0);
    struct http *h;
    struct http_reply r;
    if (http_open(me->url, S(""), 20000, &h))
        abort();
    for (int i = me->number;; i += CLIENTS) {
        if (http_do(h, a, M_POST, fmt(a, "/ask?x=%d", i), S("text/plain"), S(""), &r))
            break; /* it has stopped */
        struct str want = fmt(a, "%g", 2.0 * i);
        bool right = r.status == 200 ? str_eq(r.body, want) : r.status >= 400 && r.status < 600;
        if (!right)
            abort();
        me->answered += r.status == 200;
        arena_reset(a);
        err_reset();
    }
    http_close(h);
    arena_free(a);
    err_reset();
    return NULL;
}

static struct depl *depl_make(struct serve *s)
{
    struct model *m = calloc(1, sizeof *m);
    struct depl *d = calloc(1, sizeof *d);
    struct tally *tally = aligned_alloc(64, sizeof *tally);
    memset(tally, 0, sizeof *tally);
    tally->refs = 1;
    m->a = arena_new(0);
    m->refs = 1;
    m->name = S("m.1");
    m->number = S("1");
    m->session = &toy;
    m->info = &toy_info;
    m->batches = true;
    s->models = m;
    d->project = (struct str){ strdup("p"), 1 };
    d->name = (struct str){ strdup("a"), 1 };
    d->now = (struct entry){
        .project = d->project, .name = d->name, .n = 1, .v = { { .model = m, .tally = tally, .share = 1 } }
    };
    s->depls = d;
    return d;
}

/* One of many policies, and the model is quick or slow. */
static void change(struct serve *s, struct depl *d, unsigned i)
{
    struct arena *a = arena_new(0);
    struct deployment_spec spec;
    schema_defaults(&deployment_spec_schema, a, &spec);
    spec.instances = 1 + i % 3;
    spec.run_timeout = i % 5 == 3 ? 1 : 0;
    spec.batching.max_batch = i % 5;
    spec.batching.delay_us = i % 4 == 1 ? 200 : 0;
    spec.batching.queue = i % 6 ? 1024 : 2;
    spec.sequence.max_sequences = i % 7 == 2 ? 8 : 0;
    spec.cache.size = i % 8 == 3 ? 4096 : 0;
    spec.limits.in_flight = i % 9 == 4 ? 3 : 0;
    static const int64_t takes[] = { 2000, 1000000, 20000000, 0 };
    atomic_store(&d->now.v[0].model->run_ns, takes[i % 4]);
    pthread_mutex_lock(&s->m);
    struct policy *old = d->now.policy;
    d->now.policy = policy_want(s, &spec, old);
    policy_unref(old);
    snap_publish(s);
    pthread_mutex_unlock(&s->m);
    arena_free(a);
}

int main(void)
{
    struct serve *s = aligned_alloc(64, sizeof *s);
    memset(s, 0, sizeof *s);
    pthread_mutex_init(&s->m, NULL);
    pthread_mutex_init(&s->loading, NULL);
    log_setup(LOG_ERROR, false);
    s->traces = trace_log_new();
    s->meter = load_meter_new();
    if (lane_new("models", 2, 64, &s->lane))
        return 1;
    struct depl *d = depl_make(s);
    change(s, d, 0);
    const struct route routes[] = {
        { M_POST, "/ask", ask_run, .may = "public", .light = ask_light, .self = s }, { 0 }
    };
    const struct route *const tables[] = { routes, NULL };
    struct net *net;
    if (net_start(
            &(struct net_config){ .listen = S("127.0.0.1:0"), .loops = 2, .workers = 3, .routes = tables },
            &net))
        return 1;
    struct client clients[CLIENTS];
    pthread_t t[CLIENTS];
    struct arena *a = arena_new(0);
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = (struct client){ fmt(a, "http://%.*s", STR(net_address(net))), i, 0 };
        if (thread_start("client", client_run, &clients[i], &t[i]))
            return 1;
    }
    for (unsigned i = 1; i <= CHANGES; i++) {
        change(s, d, i);
        nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
    }
    net_stop(net);
    int64_t answered = 0;
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(t[i], NULL);
        answered += clients[i].answered;
    }
    struct totals sum;
    tally_sum(d->now.v[0].tally, &sum);
    /* A reply that the stop cut off is counted, and not seen. */
    bool right = answered > CHANGES && sum.rows >= answered && sum.rows <= answered + CLIENTS;
    serve_close(s);
    arena_free(a);
    return right ? 0 : 1;
}
