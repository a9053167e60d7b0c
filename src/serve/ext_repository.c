// SPDX-License-Identifier: Apache-2.0
/* The model repository as Triton's clients see it: a project's deployments. */
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

static bool answers(const struct depl *d, const struct model *m)
{
    for (size_t i = 0; i < d->now.n; i++)
        if (d->now.v[i].model == m)
            return true;
    return false;
}

/* What answers, and what ought to and does not. */
static void depl_write(struct json *j, const struct depl *d, bool ready_only)
{
    size_t n = d->now.n;
    for (size_t i = 0; i < d->now.n; i++)
        line_write(j, d, d->now.v[i].model->number, "READY", S(""));
    for (size_t i = 0; i < d->wanted_n && !ready_only; i++) {
        const struct model *m = d->wanted[i];
        if (answers(d, m))
            continue;
        line_write(j, d, m->number, m->state == MODEL_FAILED ? "UNAVAILABLE" : "LOADING", m->message);
        n++;
    }
    if (n == 0 && !ready_only)
        line_write(j, d, S(""), "UNAVAILABLE", S(""));
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
