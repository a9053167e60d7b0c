// SPDX-License-Identifier: Apache-2.0
/* Plans: a service compiled for reading. Everything that takes a name is done when the plan or the binding is
 * made; a row then is one look into the snapshot per view, and arithmetic. */
#include "feature/internal.h"

#include <stdatomic.h>

struct plan_view {
    struct str prefix;                      /* "r|project|view|" */
    uint16_t keys[KEYS_MAX];                /* inputs */
    enum absence lacking[FEATURE_STATUSES]; /* what is done without a row; no part of the definition */
    double *defaults;                       /* of its features */
};
struct feature_plan {
    struct arena *a;
    _Atomic int refs;
    struct service service;
    struct plan_view *views;
    struct str *view_names;
    uint16_t *request; /* input of each request feature */
    struct plan_input *inputs;
    size_t inputs_n;
    int time; /* input; -1: none */
};

/* ---- making ---- */

struct types { /* columns of the datasets that the views are over */
    struct column_def *v[VIEWS_MAX];
    size_t n[VIEWS_MAX], datasets;
};

static bool type_of(const struct types *t, struct str name, enum column_type *out)
{
    for (size_t d = 0; d < t->datasets; d++)
        for (size_t i = 0; i < t->n[d]; i++)
            if (str_eq(t->v[d][i].name, name)) {
                *out = t->v[d][i].type;
                return true;
            }
    return false;
}

static err types_read(struct store *s, struct arena *a, struct str project, const struct service *svc,
                      struct types *out)
{
    for (size_t i = 0; i < svc->views_n && i < VIEWS_MAX; i++)
        TRY(dataset_columns(s, a, project, svc->views[i].def.dataset, &out->v[i], &out->n[out->datasets++]));
    return NULL;
}

static err input_add(struct feature_plan *p, struct plan_input in, uint16_t *out)
{
    for (size_t i = 0; i < p->inputs_n; i++)
        if (str_eq(p->inputs[i].name, in.name)) {
            p->inputs[i].key |= in.key;
            p->inputs[i].time |= in.time;
            p->inputs[i].optional &= in.optional;
            *out = (uint16_t)i;
            return NULL;
        }
    if (p->inputs_n == PLAN_INPUTS_MAX)
        FAIL(INVALID, "a service may need at most %d columns of a request", PLAN_INPUTS_MAX);
    *out = (uint16_t)p->inputs_n;
    p->inputs[p->inputs_n++] = in;
    return NULL;
}

static err view_lacks(struct feature_plan *p, size_t i, struct store *s, struct str project)
{
    const struct view *v = &p->service.views[i];
    const struct view_aggregate *g = v->def.aggregates.v;
    struct plan_view *pv = &p->views[i];
    struct feature_view_spec spec;
    TRY(resource_get(s, p->a, &feature_view_resource, project, v->def.name, NULL, &spec, NULL));
    pv->lacking[FEATURE_NOT_FOUND] = (enum absence)spec.missing;
    pv->lacking[FEATURE_OUTSIDE_MAX_AGE] = (enum absence)spec.stale;
    pv->defaults = NEW_N(p->a, double, v->features_n + 1);
    for (size_t f = 0; f < v->features_n; f++)
        TRY(view_default(&spec, g[f % v->aggregates_n].name, &pv->defaults[f]));
    return NULL;
}

static err view_inputs(struct feature_plan *p, size_t i, struct str project, const struct types *t)
{
    const struct view *v = &p->service.views[i];
    struct plan_view *pv = &p->views[i];
    pv->prefix = row_prefix(p->a, project, v->def.name);
    p->view_names[i] = v->def.name;
    for (size_t k = 0; k < v->def.keys.n; k++) {
        struct plan_input in = { .name = v->def.keys.v[k], .key = true };
        if (!type_of(t, in.name, &in.type))
            FAIL(INVALID, "view '%.*s': dataset '%.*s' has no column '%.*s'", STR(v->def.name),
                 STR(v->def.dataset), STR(in.name));
        if (in.type == COL_F64)
            FAIL(INVALID, "view '%.*s': key column '%.*s' is DOUBLE", STR(v->def.name), STR(in.name));
        TRY(input_add(p, in, &pv->keys[k]));
    }
    return NULL;
}

static err request_inputs(struct feature_plan *p, const struct types *t)
{
    const struct request_feature *r = p->service.def.request.v;
    for (size_t i = 0; i < p->service.def.request.n; i++) {
        struct plan_input in = { .name = r[i].column,
                                 .type = request_is_text(&r[i])                 ? COL_STR
                                         : request_table[r[i].function].of_time ? COL_TIME
                                                                                : COL_F64 };
        (void)type_of(t, in.name, &in.type);
        TRY(request_bind(&r[i], in.type));
        TRY(input_add(p, in, &p->request[i]));
    }
    return NULL;
}

static err plan_make(struct feature_plan *p, struct store *s, struct str project, struct str name)
{
    struct types types = { 0 };
    uint16_t time;
    TRY(service_load(s, p->a, str_dup(p->a, project), str_dup(p->a, name), &p->service));
    TRY(types_read(s, p->a, project, &p->service, &types));
    p->views = NEW_N(p->a, struct plan_view, p->service.views_n + 1);
    p->view_names = NEW_N(p->a, struct str, p->service.views_n + 1);
    p->request = NEW_N(p->a, uint16_t, p->service.def.request.n + 1);
    p->inputs = NEW_N(p->a, struct plan_input, PLAN_INPUTS_MAX);
    for (size_t i = 0; i < p->service.views_n; i++) {
        TRY(view_inputs(p, i, project, &types));
        TRY(view_lacks(p, i, s, project));
    }
    TRY(request_inputs(p, &types));
    p->time = -1;
    if (p->service.views_n) {
        TRY(input_add(p,
                      (struct plan_input){ .name = p->service.views[0].def.event_time,
                                           .type = COL_TIME,
                                           .time = true,
                                           .optional = true },
                      &time));
        p->time = time;
    }
    return NULL;
}

err feature_plan_new(struct store *s, struct str project, struct str service, struct feature_plan **out)
{
    struct arena *a = arena_new(0);
    struct feature_plan *p = NEW(a, struct feature_plan);
    p->a = a;
    p->refs = 1;
    err e = plan_make(p, s, project, service);
    if (e) {
        arena_free(a);
        return err_wrap(e, "plan of service '%.*s'", STR(service));
    }
    *out = p;
    return NULL;
}

struct feature_plan *feature_plan_ref(struct feature_plan *p)
{
    atomic_fetch_add(&p->refs, 1);
    return p;
}

void feature_plan_free(struct feature_plan *p)
{
    if (p && atomic_fetch_sub(&p->refs, 1) == 1)
        arena_free(p->a);
}

size_t feature_plan_inputs(const struct feature_plan *p, const struct plan_input **out)
{
    *out = p->inputs;
    return p->inputs_n;
}

size_t feature_plan_features(const struct feature_plan *p, const struct str **out)
{
    *out = p->service.features;
    return p->service.features_n;
}

size_t feature_plan_texts(const struct feature_plan *p, const struct str **out)
{
    *out = p->service.texts.v;
    return p->service.texts.n;
}

size_t feature_plan_views(const struct feature_plan *p, const struct str **out)
{
    *out = p->view_names;
    return p->service.views_n;
}

int feature_plan_view_of(const struct feature_plan *p, size_t feature)
{
    for (size_t i = 0; i < p->service.views_n; i++) {
        if (feature < p->service.views[i].features_n)
            return (int)i;
        feature -= p->service.views[i].features_n;
    }
    return -1;
}

struct str feature_plan_name(const struct feature_plan *p)
{
    return p->service.def.service;
}

struct str feature_plan_definition(const struct feature_plan *p)
{
    return p->service.text;
}

bool feature_plan_same(const struct feature_plan *a, const struct feature_plan *b)
{
    bool same = str_eq(a->service.text, b->service.text);
    for (size_t i = 0; same && i < a->service.views_n; i++) {
        const struct plan_view *x = &a->views[i], *y = &b->views[i];
        same = memcmp(x->lacking, y->lacking, sizeof x->lacking) == 0 &&
               memcmp(x->defaults, y->defaults, a->service.views[i].features_n * sizeof *x->defaults) == 0;
    }
    return same;
}

bool feature_plan_refuses(const struct feature_plan *p, size_t view, enum feature_status status)
{
    return p->views[view].lacking[status] == ABSENT_REFUSE;
}

const struct service *feature_plan_service(const struct feature_plan *p)
{
    return &p->service;
}

/* ---- a request ---- */

err feature_plan_read(const struct feature_plan *p, struct arena *a, struct str path, yyjson_val *entities,
                      struct columns *out)
{
    struct column_def *defs = NEW_N(a, struct column_def, p->inputs_n + 1);
    for (size_t i = 0; i < p->inputs_n; i++)
        defs[i] = (struct column_def){ p->inputs[i].name, p->inputs[i].type };
    TRY(columns_read(a, path, entities, defs, p->inputs_n, COLUMNS_ROWS_MAX, COLUMNS_IGNORE, out));
    for (size_t i = 0; i < p->inputs_n; i++)
        if (!p->inputs[i].optional && !columns_find(out, p->inputs[i].name))
            return err_field(err_new(INVALID, "%.*s.%.*s is missing: the features need it", STR(path),
                                     STR(p->inputs[i].name)),
                             fmt(a, "%.*s.%.*s", STR(path), STR(p->inputs[i].name)));
    return NULL;
}

static bool type_fits(enum column_type have, const struct plan_input *in)
{
    bool number = have == COL_I64 || have == COL_F64 || have == COL_BOOL;
    if (have == in->type)
        return true;
    return !in->key && number && (in->type == COL_I64 || in->type == COL_F64 || in->type == COL_BOOL);
}

err feature_plan_bind(const struct feature_plan *p, const struct columns *c, struct plan_binding *out)
{
    for (size_t i = 0; i < p->inputs_n; i++) {
        const struct plan_input *in = &p->inputs[i];
        const struct column *col = columns_find(c, in->name);
        out->at[i] = col ? (int16_t)(col - c->v) : -1;
        if (!col && !in->optional)
            FAIL(INVALID, "column '%.*s' is missing: the features need it", STR(in->name));
        if (col && !type_fits(col->type, in))
            FAIL(INVALID, "column '%.*s' is %s, not %s", STR(in->name), column_type_names[col->type],
                 column_type_names[in->type]);
    }
    return NULL;
}

static void view_read(const struct feature_plan *p, size_t i, struct kv_snap *snap, const struct columns *c,
                      const struct plan_binding *b, size_t row, int64_t t, double *out, uint8_t *status,
                      int64_t *known)
{
    const struct view *v = &p->service.views[i];
    const struct column *keys[KEYS_MAX];
    uint8_t key[KEY_BYTES];
    size_t n;
    *known = 0;
    *status = FEATURE_NOT_FOUND;
    for (size_t k = 0; k < v->def.keys.n; k++)
        keys[k] = &c->v[b->at[p->views[i].keys[k]]];
    if (key_encode(keys, v->def.keys.n, row, key, &n) &&
        row_get(snap, v, p->views[i].prefix, (struct str){ (const char *)key, n }, out, known))
        *status = v->ttl_us && *known < time_minus(t, v->ttl_us) ? FEATURE_OUTSIDE_MAX_AGE : FEATURE_PRESENT;
    const struct plan_view *pv = &p->views[i];
    for (size_t f = 0; *status != FEATURE_PRESENT && f < v->features_n; f++)
        out[f] = pv->lacking[*status] == ABSENT_DEFAULT ? pv->defaults[f] : (double)NAN;
}

void feature_plan_row(const struct feature_plan *p, struct kv_snap *snap, const struct columns *c,
                      const struct plan_binding *b, size_t row, int64_t now, const struct plan_row *out)
{
    double *f = out->features;
    const struct request_feature *r = p->service.def.request.v;
    const struct column *time = p->time >= 0 && b->at[p->time] >= 0 ? &c->v[b->at[p->time]] : NULL;
    int64_t t = time && !column_null(time, row) ? time->i[row] : now;
    for (size_t i = 0; i < p->service.views_n; i++) {
        view_read(p, i, snap, c, b, row, t, f, &out->status[i], &out->known_at[i]);
        f += p->service.views[i].features_n;
    }
    for (size_t i = 0; i < p->service.def.request.n; i++) {
        const struct column *col = &c->v[b->at[p->request[i]]];
        const struct request_function *fn = &request_table[r[i].function];
        if (!fn->of)
            continue;
        *f++ = column_null(col, row) ? (double)NAN
               : fn->of_time         ? fn->of(col->i[row], 0)
                                     : fn->of(0, column_f64(col, row));
    }
}

void feature_plan_row_texts(const struct feature_plan *p, const struct columns *c,
                            const struct plan_binding *b, size_t row, struct str *out)
{
    const struct request_feature *r = p->service.def.request.v;
    for (size_t i = 0; i < p->service.def.request.n; i++) {
        const struct column *col = &c->v[b->at[p->request[i]]];
        if (request_is_text(&r[i]))
            *out++ = column_null(col, row) ? S("") : column_str(col, row);
    }
}
