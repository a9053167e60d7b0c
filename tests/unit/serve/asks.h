/* asks: a world whose model is a function here that can be held up, and a protocol of its own in front of the core, so
 * that each parameter of a request can be said: POST /ask?x=1,2 → "y,y", or an error. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "help.h"
#include "net/help.h"
#include "serve/policy.h"

enum { RUNS_MAX = 64, WIDTH = 2, POISON = 13 };

/* y = 2 x; with state: y = x + state, and next = y. */
struct toy {
    struct session base; /* first member */
    struct session_info info;
    struct tensor_spec in[2], out[2];
    pthread_mutex_t m;
    pthread_cond_t changed;
    bool held, stateful, stopped; /* stopped: by its run_control */
    size_t runs, running, rows[RUNS_MAX];
    float first[RUNS_MAX]; /* x of the first row of each run */
};

struct asks {
    struct world *w;
    struct net *net;
    struct toy toy;
    struct model *model;
    struct session *was;
    const struct session_info *was_info;
    const struct route *tables[2];
    struct route routes[3];
    struct principal who[2];
};

/* ---- the model ---- */

static inline const struct session_info *toy_describe(struct session *s)
{
    return &((struct toy *)s)->info;
}

static inline void toy_enter(struct toy *t, const struct tensor *x)
{
    pthread_mutex_lock(&t->m);
    CHECK(t->runs < RUNS_MAX);
    t->rows[t->runs] = (size_t)x->dims[0];
    t->first[t->runs++] = ((const float *)x->data)[0];
    t->running++;
    t->stopped = false;
    pthread_cond_broadcast(&t->changed);
    while (t->held && !t->stopped)
        pthread_cond_wait(&t->changed, &t->m);
    t->running--;
    pthread_mutex_unlock(&t->m);
}

static inline void toy_stop(void *run)
{
    struct toy *t = run;
    LOCKED(&t->m);
    t->stopped = true;
    pthread_cond_broadcast(&t->changed);
}

static inline err toy_run(struct session *s, struct run_control *control, struct arena *a,
                          const struct tensor *in, size_t n_in, struct tensor *out, size_t n_out)
{
    struct toy *t = (struct toy *)s;
    const struct tensor *x = &in[0], *state = t->stateful ? &in[1] : NULL;
    CHECK(n_in == t->info.n_inputs);
    TRY(run_control_enter(control, toy_stop, t));
    toy_enter(t, x);
    TRY(run_control_leave(control, t->stopped ? err_new(INTERNAL, "it was told to stop") : NULL));
    size_t n = (size_t)x->dims[0];
    for (size_t i = 0; i < n; i++)
        if (((const float *)x->data)[i] == POISON)
            FAIL(INVALID, "no model likes %d", POISON);
    for (size_t k = 0; k < n_out; k++) {
        float *y = NEW_N(a, float, n);
        for (size_t i = 0; i < n; i++)
            y[i] = state ? ((const float *)x->data)[i] + ((const float *)state->data)[i]
                         : 2 * ((const float *)x->data)[i];
        out[k] = (struct tensor){ .slot = out[k].slot,
                                  .type = TENSOR_F32,
                                  .rank = 2,
                                  .dims = { (int64_t)n, 1 },
                                  .data = y,
                                  .bytes = n * sizeof *y };
    }
    return NULL;
}

static const struct runtime_ops runtime_toy = { .name = "toy", .describe = toy_describe, .run = toy_run };

static inline void toy_init(struct toy *t, bool stateful)
{
    const struct tensor_spec open = { .type = TENSOR_F32, .shaped = true, .rank = 2, .dims = { -1, 1 } };
    t->base.ops = &runtime_toy;
    t->stateful = stateful;
    t->in[0] = t->in[1] = t->out[0] = t->out[1] = open;
    t->in[0].name = S("x");
    t->in[1].name = S("state");
    t->out[0].name = S("y");
    t->out[1].name = S("next");
    size_t n = stateful ? 2 : 1;
    t->info = (struct session_info){
        .inputs = t->in, .outputs = t->out, .n_inputs = n, .n_outputs = n, .device = "cpu", .why = ""
    };
    pthread_mutex_init(&t->m, NULL);
    pthread_cond_init(&t->changed, NULL);
}

static inline void toy_hold(struct asks *k, bool held)
{
    LOCKED(&k->toy.m);
    k->toy.held = held;
    pthread_cond_broadcast(&k->toy.changed);
}

/* Until so many runs are under way. */
static inline void toy_running(struct asks *k, size_t n)
{
    LOCKED(&k->toy.m);
    while (k->toy.running != n)
        pthread_cond_wait(&k->toy.changed, &k->toy.m);
}

/* How long the model is said to run: decides between loop and runners. */
static inline void toy_takes(struct asks *k, int64_t ns)
{
    atomic_store(&k->model->run_ns, ns);
}

/* ---- the protocol ---- */

static inline err ask_reply(struct infer *c)
{
    struct buf b = buf_new(c->a);
    const float *y = c->out[0].data;
    CHECK(c->out_n == 1 && c->out[0].bytes == c->n * sizeof *y);
    for (size_t i = 0; i < c->n; i++)
        buf_fmt(&b, "%s%g", i ? "," : "", (double)y[i]);
    return req_reply(c->r, 200, "text/plain", buf_get(&b));
}

static inline int64_t ask_number(struct req *r, const char *name)
{
    struct str text;
    int64_t v = 0;
    return req_query(r, str_of(name), &text) && str_i64(text, &v) ? v : 0;
}

static inline err ask_run(struct req *r)
{
    struct asks *k = (struct asks *)(uintptr_t)r->route->self;
    struct infer *c = NEW(r->a, struct infer);
    struct str list;
    CHECK(req_query(r, S("x"), &list));
    *c = (struct infer){
        .s = k->w->serve, .r = r, .a = r->a, .project = S("default"), .deployment = S("late")
    };
    c->reply = ask_reply;
    c->p.priority = (uint32_t)ask_number(r, "priority");
    c->p.timeout_us = ask_number(r, "timeout");
    if (ask_number(r, "deadline")) /* ms from now, as gRPC's */
        r->deadline_ns = mono_ns() + ask_number(r, "deadline") * 1000000;
    (void)req_query(r, S("sequence"), &c->p.sequence);
    c->p.sequence_start = ask_number(r, "start") != 0;
    c->p.sequence_end = ask_number(r, "end") != 0;
    r->who = &k->who[ask_number(r, "who")];
    float *x = NEW_N(r->a, float, list.n + 1);
    for (size_t at = 0; at < list.n; c->n++) {
        size_t end = at + str_find(str_sub(list, at, list.n), ',');
        double v;
        CHECK(str_f64(str_sub(list, at, end), &v));
        x[c->n] = (float)v;
        at = end + 1;
    }
    c->inputs = NEW(r->a, struct named);
    c->inputs_n = c->asked_n = 1;
    c->asked = NEW(r->a, struct asked);
    c->asked->name = S("y");
    c->inputs->name = S("x");
    c->inputs->t = (struct tensor){
        .type = TENSOR_F32, .rank = 2, .dims = { (int64_t)c->n, 1 }, .data = x, .bytes = c->n * sizeof *x
    };
    return infer_start(c);
}

static inline bool ask_light(struct req *r)
{
    struct str lane;
    return !req_query(r, S("lane"), &lane);
}

/* ---- the world ---- */

static inline struct asks *asks_new(const char *yaml, bool stateful)
{
    struct asks *k = aligned_alloc(64, (sizeof *k + 63) / 64 * 64);
    struct str out;
    memset(k, 0, sizeof *k);
    k->w = world_new();
    deployment_make(k->w, yaml);
    version_made(&k->w->l, 1, step_model(k->w->l.a, 0.5f, -1, 1), true);
    CHECK_OK(deploy(k->w, "late-1", "late.1", &out));
    toy_init(&k->toy, stateful);
    pthread_mutex_lock(&k->w->serve->m);
    k->model = model_find(k->w->serve, S("default"), S("late.1"), NULL);
    k->was = k->model->session;
    k->was_info = k->model->info;
    k->model->session = &k->toy.base;
    k->model->info = &k->toy.info;
    k->model->by_rows = false;
    k->model->batches = true;
    atomic_store(&k->model->run_ns, 0); /* nothing is known of how long the toy takes */
    pthread_mutex_unlock(&k->w->serve->m);
    k->who[0].token_id = S("one");
    k->who[1].token_id = S("two");
    k->routes[0] = (struct route){ M_POST, "/ask", ask_run, .may = "public", .light = ask_light, .self = k };
    k->tables[0] = k->routes;
    k->net = help_start((struct net_config){ .routes = k->tables, .loops = 1, .workers = 4 });
    return k;
}

static inline void asks_free(struct asks *k)
{
    net_stop(k->net);
    k->model->session = k->was;
    k->model->info = k->was_info;
    world_free(k->w);
    free(k);
}

/* The counts of the one version. */
static inline struct totals asks_totals(struct asks *k)
{
    struct totals t;
    unsigned slot;
    const struct snap *snap = snap_enter(k->w->serve, &slot);
    tally_sum(snap_find(snap, S("default"), S("late"))->v[0].tally, &t);
    snap_leave(k->w->serve, slot);
    return t;
}

static inline struct policy *asks_policy(struct asks *k)
{
    return depl_find(k->w->serve, S("default"), S("late"))->now.policy;
}

/* Sends, and reads later. */
static inline int query(struct asks *k, const char *text)
{
    int fd = help_connect(k->net);
    help_send(
        fd, fmt(k->w->l.a,
                "POST /ask?%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
                text));
    return fd;
}
static inline struct str answer(struct asks *k, int fd, int status)
{
    struct str got = help_drain(k->w->l.a, fd);
    close(fd);
    cr_assert(help_status(got) == status, "%.*s", STR(got));
    char *body = memmem(got.p, got.n, "\r\n\r\n", 4);
    return str_sub(got, (size_t)(body - got.p) + 4, got.n);
}
static inline struct str answer_to(struct asks *k, const char *text, int status)
{
    return answer(k, query(k, text), status);
}

/* Until so many requests wait in the queue. */
static inline void wait_queue(struct asks *k, size_t n)
{
    struct policy *p = asks_policy(k);
    for (int i = 0; i < 4000; i++) {
        pthread_mutex_lock(&p->m);
        size_t waiting = p->waiting;
        pthread_mutex_unlock(&p->m);
        if (waiting == n)
            return;
        nap();
    }
    cr_assert_fail("the queue never has %zu", n);
}
