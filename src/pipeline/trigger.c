// SPDX-License-Identifier: Apache-2.0
/* The reconciler of triggers: reads the event log from each pipeline's cursor on and starts runs. The name of a
 * run follows from the event, so an event never starts two, whatever crashes in between. */
#include "pipeline/internal.h"
#include <stdlib.h>

enum { EVENTS_AT_ONCE = 500 };

struct filler {
    const struct event *ev;
};

static bool event_lookup(void *arg, struct arena *a, struct str name, struct str *out)
{
    const struct event *ev = ((struct filler *)arg)->ev;
    struct str scope, key = name;
    yyjson_val *data;
    if (!str_cut(&key, '.', &scope) || !str_is(scope, "event"))
        return false;
    struct json j = json_new(a);
    if (str_is(key, "name") || str_is(key, "kind") || str_is(key, "type")) {
        json_str(&j, str_is(key, "name") ? ev->name : str_is(key, "kind") ? ev->kind : ev->type);
    } else {
        yyjson_val *v = ev->data.n && !json_parse(a, ev->data, &data) ? yyjson_obj_getn(data, key.p, key.n)
                                                                      : NULL;
        char *text = v ? yyjson_val_write(v, 0, NULL) : NULL;
        if (!text)
            return false;
        json_raw(&j, str_dup(a, str_of(text)));
        free(text);
    }
    *out = json_get(&j);
    return true;
}

/* "${event.until}" in a parameter becomes the value's text. */
static err params_fill(struct arena *a, const struct pairs *in, const struct event *ev, struct pairs *out)
{
    struct filler f = { ev };
    *out = (struct pairs){ 0 };
    for (size_t i = 0; i < in->n; i++) {
        struct json j = json_new(a);
        struct str filled;
        yyjson_val *v;
        json_str(&j, in->v[i].value);
        TRY(pipeline_fill(a, json_get(&j), event_lookup, &f, &filled));
        TRY(json_parse(a, filled, &v));
        if (yyjson_is_str(v))
            filled = json_text(v);
        push(a, out, (struct pair){ in->v[i].key, filled });
    }
    return NULL;
}

static err trigger_fire(struct pipelines *p, struct arena *a, const struct meta *m,
                        const struct pipeline_trigger *t, const struct event *ev)
{
    struct pairs params;
    struct str run;
    TRY(params_fill(a, &t->params, ev, &params));
    struct str name = fmt(a, "%.*s-e%lld", STR(m->name), (long long)ev->seq);
    err e = run_start(p->cfg.store, a, fmt(a, "event/%lld", (long long)ev->seq), m->project, m->name, name,
                      ev->data.n ? ev->data : S("{}"), &params, &run);
    if (e && e->code == CONFLICT)
        return NULL;
    if (e && e->code == INVALID) { /* a parameter the pipeline lost: say it once, do not stop the log */
        log_err("trigger.refused", e);
        return NULL;
    }
    return e;
}

static bool trigger_wants(const struct pipeline_trigger *t, const struct event *ev)
{
    return str_eq(t->event, ev->type) && (!t->name.n || str_eq(t->name, ev->name));
}

static err pipeline_look(struct pipelines *p, struct arena *a, struct str project, struct str name)
{
    struct meta m;
    struct pipeline_spec spec;
    struct pipeline_status status;
    struct events events;
    err e = resource_get(p->cfg.store, a, &pipeline_resource, project, name, &m, &spec, &status);
    if ((e && e->code == NOT_FOUND) || (!e && !spec.triggers.n))
        return NULL;
    TRY(e);
    int64_t from = status.cursor, cursor = from;
    if (!from) /* new: only what happens from now on */
        cursor = event_last(p->cfg.store);
    while (from) {
        TRY(event_list(p->cfg.store, a, cursor, S(""), project, S(""), EVENTS_AT_ONCE, &events));
        for (size_t i = 0; i < events.n; i++) {
            for (size_t t = 0; t < spec.triggers.n; t++)
                if (trigger_wants(&((struct pipeline_trigger *)spec.triggers.v)[t], &events.v[i]))
                    TRY(trigger_fire(p, a, &m, &((struct pipeline_trigger *)spec.triggers.v)[t],
                                     &events.v[i]));
            cursor = events.v[i].seq;
        }
        if (events.n < EVENTS_AT_ONCE)
            break;
    }
    if (cursor == from)
        return NULL;
    /* The run counter may have moved under us: take the status afresh. */
    TRY(resource_get(p->cfg.store, a, &pipeline_resource, project, name, NULL, NULL, &status));
    status.cursor = cursor;
    return resource_status(p->cfg.store, a, &pipeline_resource, project, name, -1, &status);
}

static err trigger_step(void *self, struct arena *a, const struct object *o, const struct event *ev,
                        int64_t *again_ms)
{
    struct pipelines *p = self;
    struct objects all;
    (void)again_ms;
    if (str_is(o->kind, "Pipeline")) {
        if (ev && (str_is(ev->type, "status") || str_is(ev->type, "deleted")))
            return NULL; /* our own writing */
        return pipeline_look(p, a, o->project, o->name);
    }
    if (!ev || str_find(ev->type, '.') == ev->type.n)
        return NULL; /* plain changes start nothing */
    TRY(object_list(p->cfg.store, a, S("Pipeline"), o->project, S(""), 10000, &all));
    for (size_t i = 0; i < all.n; i++)
        TRY(pipeline_look(p, a, o->project, all.v[i].name));
    return NULL;
}

struct reconciler pipelines_trigger_reconciler(struct pipelines *p)
{
    static const char *const kinds[] = { "Pipeline",   "Monitor",     "Dataset", "Model",
                                         "Deployment", "PipelineRun", NULL };
    return (
        struct reconciler){ .name = "pipeline-triggers", .kinds = kinds, .step = trigger_step, .self = p };
}

err pipelines_open(const struct pipelines_config *cfg, struct pipelines **out)
{
    struct pipelines *p = calloc(1, sizeof *p);
    p->cfg = *cfg;
    *out = p;
    return NULL;
}

void pipelines_close(struct pipelines *p)
{
    free(p);
}

void pipelines_set_control(struct pipelines *p, struct control *c)
{
    p->control = c;
}
