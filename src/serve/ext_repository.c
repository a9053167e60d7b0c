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
static err parameters_read(const struct call *c, bool *dependents)
{
    yyjson_val *parameters, *k, *v;
    size_t i, max;
    TRY(call_parameters(c, &parameters));
    if (!parameters)
        return NULL;
    yyjson_obj_foreach (parameters, i, max, k, v) {
        struct str key = json_text(k);
        if (str_is(key, "unload_dependents") && yyjson_is_bool(v))
            *dependents = yyjson_get_bool(v);
        else
            return err_hint(
                err_new(INVALID, "'%.*s' is not taken with a model to load", STR(str_sub(key, 0, 64))),
                "a version enters by the registry, a deployment is configured by `dhow apply`");
    }
    return NULL;
}

static bool listed(const struct strs *list, struct str name)
{
    for (size_t i = 0; i < list->n; i++)
        if (str_eq(list->v[i], name))
            return true;
    return false;
}

static bool asks(const struct depl *d, struct str name)
{
    const struct ensemble_step *step = d->spec.ensemble.steps.v;
    for (size_t i = 0; i < d->spec.ensemble.steps.n; i++)
        if (str_eq(step[i].deployment, name))
            return true;
    return false;
}

/* Does an ensemble that is not unloaded, other than those of the list, ask it? */
static bool asked_by_others(const struct call *c, const struct strs *list, struct str name)
{
    for (const struct depl *d = c->s->depls; d; d = d->next)
        if (str_eq(d->project, c->project) && !d->suspended && !listed(list, d->name) && asks(d, name))
            return true;
    return false;
}

/* The ensemble c->name, then the deployments that its steps ask, and those that these ask. Unloading leaves out whom
 * another one asks, loading who is loaded. */
static struct strs dependents(const struct call *c, bool suspended)
{
    struct strs list = { 0 };
    LOCKED(&c->s->m);
    push(c->a, &list, c->name);
    for (size_t i = 0; i < list.n; i++) {
        const struct depl *d = depl_find(c->s, c->project, list.v[i]);
        const struct ensemble_step *step = d ? d->spec.ensemble.steps.v : NULL;
        for (size_t k = 0; d && k < d->spec.ensemble.steps.n; k++) {
            struct str name = step[k].deployment;
            const struct depl *to = depl_find(c->s, c->project, name);
            if (to && to->suspended != suspended && !listed(&list, name) &&
                !(suspended && asked_by_others(c, &list, name)))
                push(c->a, &list, str_dup(c->a, name));
        }
    }
    return list;
}

/* An ensemble's steps are loaded with it, before it. */
err repository_load(struct call *c)
{
    bool ignored;
    TRY(parameters_read(c, &ignored));
    struct strs list = dependents(c, false);
    for (size_t i = list.n; i-- > 0;)
        TRY(deployment_suspend(c->s, c->r, c->project, list.v[i], false));
    json_raw(&c->j, S("{}"));
    return NULL;
}

err repository_unload(struct call *c)
{
    bool all = false;
    TRY(parameters_read(c, &all));
    struct strs list = dependents(c, true);
    for (size_t i = 0; i < (all ? list.n : 1); i++)
        TRY(deployment_suspend(c->s, c->r, c->project, list.v[i], true));
    json_raw(&c->j, S("{}"));
    return NULL;
}
