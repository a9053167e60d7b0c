// SPDX-License-Identifier: Apache-2.0
/* Statistics as Triton's: counts since the daemon started, times in nanoseconds. */
#include "serve/ext.h"

static void duration(struct json *j, const char *key, int64_t count, int64_t ns)
{
    json_key(j, str_of(key));
    json_obj(j);
    json_ki64(j, "count", count);
    json_ki64(j, "ns", ns);
    json_obj_end(j);
}

/* The parts of the way are of requests that ran: an answer from the cache has none. */
static void times_write(struct json *j, const struct totals *t)
{
    int64_t wrong = t->failed + t->refused, right = t->requests - wrong;
    int64_t ran = right > t->cache_hits ? right - t->cache_hits : 0;
    duration(j, "success", right, t->took_ns);
    duration(j, "fail", wrong, t->fail_ns);
    duration(j, "queue", ran, t->queue_ns);
    duration(j, "compute_input", ran, t->input_ns);
    duration(j, "compute_infer", ran, t->infer_ns);
    duration(j, "compute_output", ran, t->output_ns);
    duration(j, "cache_hit", t->cache_hits, t->hit_ns);
    duration(j, "cache_miss", t->cache_misses, t->miss_ns);
}

/* Runs by their rows; only the runs themselves are told apart so. */
static void batches_write(struct json *j, const struct tally *tally)
{
    struct batches b;
    tally_batches(tally, &b);
    json_key(j, S("batch_stats"));
    json_arr(j);
    for (size_t i = 0; i < BATCH_SIZES; i++) {
        if (!b.n[i])
            continue;
        json_obj(j);
        json_ki64(j, "batch_size", (int64_t)i + 1);
        duration(j, "compute_input", 0, 0);
        duration(j, "compute_infer", b.n[i], b.ns[i]);
        duration(j, "compute_output", 0, 0);
        json_obj_end(j);
    }
    json_arr_end(j);
}

static void version_write(struct json *j, const struct entry *e, const struct served *v)
{
    struct totals t;
    tally_sum(v->tally, &t);
    json_obj(j);
    json_kstr(j, "name", e->name);
    json_kstr(j, "version", v->model->number);
    json_ki64(j, "last_inference", t.last_us / 1000);
    json_ki64(j, "inference_count", t.rows);
    json_ki64(j, "execution_count", t.executions);
    json_key(j, S("inference_stats"));
    json_obj(j);
    times_write(j, &t);
    json_obj_end(j);
    json_kraw(j, "response_stats", S("{}"));
    batches_write(j, v->tally);
    json_kraw(j, "memory_usage", S("[]")); /* what a session takes beside its file is not known */
    json_obj_end(j);
}

static void entry_write(struct call *c, const struct entry *e, const struct served *only)
{
    for (size_t i = 0; i < e->n; i++)
        if (!only || only == &e->v[i])
            version_write(&c->j, e, &e->v[i]);
}

/* All deployments of the project, or one, or one version of it. */
err model_stats(struct call *c)
{
    const struct entry *e;
    const struct served *v;
    unsigned slot;
    const struct snap *snap = snap_enter(c->s, &slot);
    err failed = c->name.n ? served_find(c, snap, &e, &v) : NULL;
    json_obj(&c->j);
    json_key(&c->j, S("model_stats"));
    json_arr(&c->j);
    if (!failed && c->name.n)
        entry_write(c, e, c->version.n ? v : NULL);
    for (size_t i = 0; !c->name.n && i < snap->n; i++)
        if (str_eq(snap->v[i].project, c->project))
            entry_write(c, &snap->v[i], NULL);
    json_arr_end(&c->j);
    json_obj_end(&c->j);
    snap_leave(c->s, slot);
    return failed;
}
