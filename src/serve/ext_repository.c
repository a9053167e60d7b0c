// SPDX-License-Identifier: Apache-2.0
/* The model repository as Triton's clients see it: a project's deployments, taken out of memory and back. */
#include "serve/ext.h"

static void line_write(struct json *j, const struct depl *d, struct str number, const char *state,
                       struct str reason)
{
    json_obj(j);
    json_kstr(j, "name", d->name);
    if (number.n)
        json_kstr(j, "version", number);
    json_kstr(j, "state", str_of(state));
    if (reason.n)
        json_kstr(j, "reason", reason);
    json_obj_end(j);
}

/* An ensemble that is to be made anew has the number of the one that answers. */
static bool answers(const struct depl *d, const struct wanted *w)
{
    for (size_t i = 0; i < d->now.n; i++) {
        const struct model *m = d->now.v[i].model;
        if (m == w->model || m->composed || str_eq(m->name, w->version))
            return true;
    }
    return false;
}

static void wanted_write(struct json *j, const struct depl *d, const struct wanted *w)
{
    static const char *const states[] = { [MODEL_LOADING] = "LOADING",
                                          [MODEL_READY] = "LOADING", /* and is not published yet */
                                          [MODEL_FAILED] = "UNAVAILABLE" };
    const struct model *m = w->model;
    if (m)
        line_write(j, d, m->number, states[m->state], m->message);
    else
        line_write(j, d, S(""), "UNAVAILABLE",
                   d->suspended ? S("unloaded")
                   : d->asleep  ? S("asleep")
                                : S(""));
}

/* What answers, and what ought to and does not. */
static void depl_write(struct json *j, const struct depl *d, bool ready_only)
{
    size_t n = d->now.n;
    for (size_t i = 0; i < d->now.n; i++)
        line_write(j, d, d->now.v[i].model->number, "READY", S(""));
    for (size_t i = 0; i < d->wanted_n && !ready_only; i++)
        if (!answers(d, &d->wanted[i])) {
            wanted_write(j, d, &d->wanted[i]);
            n++;
        }
    if (n == 0 && !ready_only)
        line_write(j, d, S(""), "UNAVAILABLE", d->suspended ? S("unloaded") : S(""));
}

err repository_index(struct call *c)
{
    bool ready_only = yyjson_is_true(call_get(c, "ready"));
    json_arr(&c->j);
    pthread_mutex_lock(&c->s->m);
    for (const struct depl *d = c->s->depls; d; d = d->next)
        if (str_eq(d->project, c->project))
            depl_write(&c->j, d, ready_only);
    pthread_mutex_unlock(&c->s->m);
    json_arr_end(&c->j);
    return NULL;
}

/* ---- load, unload ---- */

/* Triton's clients may send a model's file or configuration along. Here a version enters by the registry, where its
 * gates judge it, and a deployment is configured by its resource. */
static err parameters_check(const struct call *c)
{
    yyjson_val *parameters, *k, *v;
    size_t i, max;
    TRY(call_parameters(c, &parameters));
    yyjson_obj_foreach (parameters, i, max, k, v) {
        struct str key = { yyjson_get_str(k), yyjson_get_len(k) };
        if (!str_is(key, "unload_dependents"))
            return err_hint(
                err_new(INVALID, "'%.*s' is not taken with a model to load", STR(str_sub(key, 0, 64))),
                "a version enters by the registry, a deployment is configured by `dhow apply`");
    }
    return NULL;
}

static err suspend(struct call *c, bool suspended)
{
    TRY(parameters_check(c));
    TRY(deployment_suspend(c->s, c->r, c->project, c->name, suspended));
    json_raw(&c->j, S("{}"));
    return NULL;
}

err repository_load(struct call *c)
{
    return suspend(c, false);
}

err repository_unload(struct call *c)
{
    return suspend(c, true);
}
