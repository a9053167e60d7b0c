// SPDX-License-Identifier: Apache-2.0
/* One row on an event loop's thread: tensors in memory that stays, bound to the session once for each loop, so that a
 * run wraps, checks and allocates nothing (0.4 to 0.7 us of some 3). Each loop touches its own alone; model_free() has
 * no readers. */
#include "serve/policy.h"

enum { INPUT_BYTES_MAX = 16 << 10, OUTPUT_BYTES_MAX = 4096 }; /* copied before and after each run */
struct bound {
    struct arena *a;
    struct session_call *call; /* NULL: it cannot be bound */
    float *x;
    struct tensor *out;
};

void bounds_free(struct model *m)
{
    for (size_t i = 0; m->bounds && i < LOOPS_MAX; i++)
        if (m->bounds[i]) {
            session_call_free(m->bounds[i]->call);
            arena_free(m->bounds[i]->a);
        }
}

/* All outputs in their order, in memory of ours whose size the model fixes. */
static bool outputs_fit(const struct infer *c)
{
    bool fit = c->out_n == c->to->model->info->n_outputs;
    for (size_t i = 0; fit && i < c->out_n; i++)
        fit = c->out[i].slot == i && c->out[i].data && c->out[i].bytes <= OUTPUT_BYTES_MAX;
    return fit;
}

bool bound_fits(const struct infer *c)
{
    const struct model *m = c->to->model;
    return m->bounds && m->by_rows && c->n == 1 && c->features == m->features &&
           c->in[0].bytes <= INPUT_BYTES_MAX && req_on_loop(c->r) && req_loop(c->r) < LOOPS_MAX &&
           outputs_fit(c);
}

static struct bound *bound_new(const struct infer *c)
{
    const struct model *m = c->to->model;
    struct arena *a = arena_new(0);
    struct bound *b = NEW(a, struct bound);
    struct tensor in = c->in[0];
    b->a = a;
    in.data = b->x = arena_alloc(a, in.bytes, 64);
    b->out = NEW_N(a, struct tensor, c->out_n);
    for (size_t i = 0; i < c->out_n; i++) {
        b->out[i] = c->out[i];
        b->out[i].data = arena_alloc(a, c->out[i].bytes, 64);
    }
    if (session_call_new(m->session, &in, 1, b->out, c->out_n, &b->call))
        b->call = NULL;
    err_reset();
    return b;
}

err bound_run(struct infer *c)
{
    struct model *m = c->to->model;
    struct bound **place = &m->bounds[req_loop(c->r)];
    if (!*place)
        *place = bound_new(c);
    struct bound *b = *place;
    if (!b->call)
        return session_run(m->session, c->a, c->in, 1, c->out, c->out_n);
    memcpy(b->x, c->in[0].data, c->in[0].bytes);
    TRY(session_call_run(b->call, NULL));
    for (size_t i = 0; i < c->out_n; i++)
        memcpy(c->out[i].data, b->out[i].data, b->out[i].bytes);
    return NULL;
}
