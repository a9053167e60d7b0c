// SPDX-License-Identifier: Apache-2.0
/* POST /v2/models/{name}[/versions/{v}]/infer: one snapshot, one run on this thread, one reply. Memory is the
 * request's arena; nothing here takes a lock or asks the database. */
#include "serve/internal.h"

struct call {
    struct serve *s;
    struct req *r;
    struct arena *a;
    const struct entry *entry;
    const struct served *to;
    struct stripe *count;
    /* the body */
    struct str id;
    yyjson_val *inputs, *outputs, *entities, *ids, *parameters;
    /* what goes through the model */
    struct tensor *in, *out; /* as many as the model has */
    size_t out_n;
    size_t n;       /* rows */
    const float *x; /* by rows: n × features */
    size_t features;
    struct str *row_ids;
    int64_t *at;                 /* event time of each row; may be NULL */
    const struct plan_row *rows; /* with return_features: all rows */
    int64_t now;
};

static struct str text_of(yyjson_val *v)
{
    return (struct str){ yyjson_get_str(v), yyjson_get_len(v) };
}

/* ---- the body ---- */

static err body_read(struct call *c)
{
    struct {
        struct str key;
        yyjson_val **to;
    } const keys[] = {
        { S("id"), NULL },           { S("model_name"), NULL },          { S("model_version"), NULL },
        { S("inputs"), &c->inputs }, { S("outputs"), &c->outputs },      { S("entities"), &c->entities },
        { S("ids"), &c->ids },       { S("parameters"), &c->parameters }
    };
    size_t i, max, n = sizeof keys / sizeof *keys;
    yyjson_val *root, *k, *v;
    TRY(json_parse(c->a, c->r->body, &root));
    if (!yyjson_is_obj(root))
        FAIL(INVALID, "the body is an object with inputs, or with entities");
    yyjson_obj_foreach (root, i, max, k, v) {
        size_t at = 0;
        while (at < n && !str_eq(keys[at].key, text_of(k)))
            at++;
        if (at == n)
            FAIL(INVALID, "'%.*s' is not known; there are id, parameters, inputs, outputs, entities and ids",
                 STR(str_sub(text_of(k), 0, 64)));
        if (at == 0 && !yyjson_is_str(v))
            FAIL(INVALID, "id is a text");
        if (at == 0)
            c->id = text_of(v);
        if (keys[at].to)
            *keys[at].to = v;
    }
    if (!c->inputs == !c->entities)
        FAIL(INVALID, "the body has either inputs (tensors) or entities (keys)");
    if (c->parameters && !yyjson_is_obj(c->parameters))
        FAIL(INVALID, "parameters is an object");
    return NULL;
}

static err ids_read(struct call *c)
{
    size_t i, max;
    yyjson_val *v;
    if (!c->ids || yyjson_is_null(c->ids))
        return NULL;
    if (!yyjson_is_arr(c->ids) || yyjson_arr_size(c->ids) != c->n)
        FAIL(INVALID, "ids is a list of %zu texts, one a row", c->n);
    c->row_ids = NEW_N(c->a, struct str, c->n);
    yyjson_arr_foreach (c->ids, i, max, v) {
        if (!yyjson_is_str(v) && !yyjson_is_int(v))
            FAIL(INVALID, "ids[%zu] is no text and no whole number", i);
        c->row_ids[i] = yyjson_is_str(v)    ? text_of(v)
                        : yyjson_is_uint(v) ? fmt(c->a, "%llu", (unsigned long long)yyjson_get_uint(v))
                                            : fmt(c->a, "%lld", (long long)yyjson_get_sint(v));
    }
    return NULL;
}

/* ---- which version ---- */

/* "3" or "late.3" */
static const struct served *version_at(const struct entry *e, struct str version)
{
    for (size_t i = 0; i < e->n; i++)
        if (str_eq(e->v[i].model->number, version) || str_eq(e->v[i].model->name, version))
            return &e->v[i];
    return NULL;
}

static err version_wanted(struct call *c, struct str *out)
{
    *out = req_param(c->r, S("version"));
    yyjson_val *v = c->parameters ? yyjson_obj_get(c->parameters, "version") : NULL;
    if (out->n || !v)
        return NULL;
    if (yyjson_is_uint(v))
        *out = fmt(c->a, "%llu", (unsigned long long)yyjson_get_uint(v));
    else if (yyjson_is_str(v))
        *out = text_of(v);
    else
        FAIL(INVALID, "parameters.version is a number or a name");
    return NULL;
}

/* The same id meets the same version while the shares stay; a share that grows takes nobody away from the version. */
static const struct served *by_share(const struct call *c)
{
    yyjson_val *first = yyjson_arr_get_first(c->ids);
    struct str key = c->id.n ? c->id : yyjson_is_str(first) ? text_of(first) : c->r->id;
    uint64_t whole = yyjson_is_uint(first) && !c->id.n ? yyjson_get_uint(first) : 0;
    if (whole)
        key = (struct str){ (const char *)&whole, sizeof whole };
    double at = (double)(hash64(key) >> 11) * 0x1p-53;
    const struct served *most = NULL;
    for (size_t i = 0; i < c->entry->n; i++) {
        const struct served *v = &c->entry->v[i];
        if (v->share > 0 && at < v->share)
            return v;
        at -= v->share;
        if (v->share > 0 && (!most || v->share > most->share))
            most = v;
    }
    return most;
}

static err version_choose(struct call *c)
{
    struct str version;
    TRY(version_wanted(c, &version));
    c->to = version.n ? version_at(c->entry, version) : by_share(c);
    if (c->to)
        return NULL;
    if (version.n)
        FAIL(NOT_FOUND, "version '%.*s' of '%.*s' is not loaded", STR(str_sub(version, 0, 64)),
             STR(c->entry->name));
    FAIL(UNAVAILABLE, "'%.*s' has no version ready", STR(c->entry->name));
}

/* ---- inputs: tensors ---- */

static err tensor_take(struct call *c, size_t i, yyjson_val *v, uint64_t *seen)
{
    const struct session_info *info = c->to->model->info;
    struct str path = fmt(c->a, "inputs[%zu]", i);
    struct tensor_in in;
    size_t slot = 0;
    TRY(tensor_read(c->a, path, v, &in));
    while (slot < info->n_inputs && !str_eq(info->inputs[slot].name, in.name))
        slot++;
    if (slot == info->n_inputs)
        FAIL(INVALID, "%.*s: the model has no input '%.*s'", STR(path), STR(str_sub(in.name, 0, 64)));
    if (*seen >> slot & 1)
        FAIL(INVALID, "%.*s: input '%.*s' is given twice", STR(path), STR(in.name));
    *seen |= (uint64_t)1 << slot;
    TRY(tensor_fill(c->a, path, &in, &info->inputs[slot], c->r->body.n, &c->in[slot]));
    c->in[slot].slot = slot;
    return NULL;
}

static err tensors_take(struct call *c)
{
    const struct session_info *info = c->to->model->info;
    uint64_t seen = 0;
    size_t i, max;
    yyjson_val *v;
    if (!yyjson_is_arr(c->inputs) || yyjson_arr_size(c->inputs) > info->n_inputs)
        FAIL(INVALID, "inputs is a list of the model's %zu inputs", info->n_inputs);
    yyjson_arr_foreach (c->inputs, i, max, v)
        TRY(tensor_take(c, i, v, &seen));
    for (i = 0; i < info->n_inputs; i++)
        if (!(seen >> i & 1))
            FAIL(INVALID, "input '%.*s' is missing", STR(info->inputs[i].name));
    c->n = info->n_inputs && c->in[0].rank ? (size_t)c->in[0].dims[0] : 1;
    if (c->to->model->by_rows) {
        c->x = c->in[0].data;
        c->features = (size_t)c->in[0].dims[1];
    }
    return NULL;
}

/* ---- inputs: keys ---- */

static int64_t *times_of(struct call *c, const struct columns *cols, const struct plan_binding *b)
{
    const struct plan_input *in;
    size_t n = feature_plan_inputs(c->entry->plan->plan, &in);
    for (size_t i = 0; i < n; i++) {
        if (!in[i].time || b->at[i] < 0)
            continue;
        const struct column *col = &cols->v[b->at[i]];
        if (!col->i)
            return NULL;
        int64_t *at = NEW_N(c->a, int64_t, c->n);
        for (size_t r = 0; r < c->n; r++)
            at[r] = column_null(col, r) ? c->now : col->i[r];
        return at;
    }
    return NULL;
}

/* Room for one row, or for all of them if they are to be returned. */
static struct plan_row *rows_new(struct call *c, size_t n, size_t features, size_t views)
{
    struct plan_row *rows = NEW_N(c->a, struct plan_row, n);
    double *values = NEW_N(c->a, double, n *features);
    uint8_t *status = NEW_N(c->a, uint8_t, n * views + 1);
    int64_t *known_at = NEW_N(c->a, int64_t, n * views + 1);
    for (size_t i = 0; i < n; i++)
        rows[i] = (struct plan_row){ values + i * features, status + i * views, known_at + i * views };
    return rows;
}

static err keys_take(struct call *c)
{
    const struct feature_plan *plan = c->entry->plan ? c->entry->plan->plan : NULL;
    const struct str *names;
    struct columns cols;
    struct plan_binding binding;
    struct kv_snap *kv;
    if (!plan || c->to->unfit.n)
        FAIL(UNAVAILABLE, "requests by key are not answered: %.*s",
             STR(c->to->unfit.n ? c->to->unfit : S("no feature service")));
    TRY(feature_plan_read(plan, c->a, S("entities"), c->entities, &cols));
    TRY(feature_plan_bind(plan, &cols, &binding));
    c->n = cols.rows;
    c->features = feature_plan_features(plan, &names);
    size_t views = feature_plan_views(plan, &names);
    if (!c->n)
        FAIL(INVALID, "entities has no rows");
    if (c->n > CELLS_MAX / c->features)
        FAIL(TOO_LARGE, "%zu rows of %zu features are more than %d values", c->n, c->features, CELLS_MAX);
    bool keep = c->parameters && yyjson_is_true(yyjson_obj_get(c->parameters, "return_features"));
    struct plan_row *rows = rows_new(c, keep ? c->n : 1, c->features, views);
    float *x = NEW_N(c->a, float, c->n * c->features);
    c->at = times_of(c, &cols, &binding);
    TRY(kv_snap_begin(store_kv(c->s->store), &kv));
    for (size_t r = 0; r < c->n; r++) {
        const struct plan_row *row = &rows[keep ? r : 0];
        feature_plan_row(plan, kv, &cols, &binding, r, c->now, row);
        for (size_t f = 0; f < c->features; f++)
            x[r * c->features + f] = (float)row->features[f];
    }
    kv_snap_end(kv);
    c->x = x;
    c->rows = keep ? rows : NULL;
    c->in[0] = (struct tensor){ .type = TENSOR_F32,
                                .rank = 2,
                                .dims = { (int64_t)c->n, (int64_t)c->features },
                                .data = x,
                                .bytes = c->n * c->features * sizeof *x };
    return NULL;
}

/* ---- outputs ---- */

static err output_take(struct call *c, size_t i, yyjson_val *v, uint64_t *seen)
{
    const struct session_info *info = c->to->model->info;
    yyjson_val *name = yyjson_obj_get(v, "name");
    size_t slot = 0;
    if (!yyjson_is_str(name))
        FAIL(INVALID, "outputs[%zu] is an object with a name", i);
    while (slot < info->n_outputs && !str_eq(info->outputs[slot].name, text_of(name)))
        slot++;
    if (slot == info->n_outputs)
        FAIL(INVALID, "outputs[%zu]: the model has no output '%.*s'", i, STR(str_sub(text_of(name), 0, 64)));
    if (*seen >> slot & 1)
        FAIL(INVALID, "outputs[%zu]: '%.*s' is asked for twice", i, STR(text_of(name)));
    *seen |= (uint64_t)1 << slot;
    c->out[c->out_n++].slot = slot;
    return NULL;
}

/* [N] or [N, k…] with the rows' own N: memory of ours, and nothing is copied. */
static void output_place(struct call *c, struct tensor *t)
{
    const struct session_info *info = c->to->model->info;
    const struct tensor_spec *spec = &info->outputs[t->slot], *in = info->inputs;
    int64_t n;
    if (!c->to->model->by_rows || !spec->shaped || !spec->rank || !tensor_size(spec->type) ||
        spec->dims[0] >= 0 || !spec->symbols[0].n || !str_eq(spec->symbols[0], in->symbols[0]))
        return;
    struct tensor out = { .slot = t->slot, .type = spec->type, .rank = spec->rank };
    memcpy(out.dims, spec->dims, sizeof out.dims);
    out.dims[0] = (int64_t)c->n;
    if (!tensor_count(out.dims, out.rank, CELLS_MAX, &n))
        return;
    out.bytes = (size_t)n * tensor_size(spec->type);
    out.data = arena_alloc(c->a, out.bytes, 64);
    *t = out;
}

static err outputs_take(struct call *c)
{
    const struct session_info *info = c->to->model->info;
    uint64_t seen = 0;
    size_t i, max;
    yyjson_val *v;
    if (c->outputs && !yyjson_is_null(c->outputs)) {
        if (!yyjson_is_arr(c->outputs) || yyjson_arr_size(c->outputs) > info->n_outputs)
            FAIL(INVALID, "outputs is a list of at most the model's %zu outputs", info->n_outputs);
        yyjson_arr_foreach (c->outputs, i, max, v)
            TRY(output_take(c, i, v, &seen));
    }
    if (!c->out_n)
        for (; c->out_n < info->n_outputs; c->out_n++)
            c->out[c->out_n].slot = c->out_n;
    for (i = 0; i < c->out_n; i++)
        output_place(c, &c->out[i]);
    return NULL;
}

/* ---- the reply ---- */

static void text_put(struct buf *b, struct str s)
{
    struct json j = { .b = *b };
    json_str(&j, s);
    *b = j.b;
}

static void features_write(struct buf *b, const struct call *c)
{
    const struct str *names;
    size_t views = feature_plan_views(c->entry->plan->plan, &names);
    buf_fmt(b, ",{\"name\":\"features\",\"datatype\":\"FP64\",\"shape\":[%zu,%zu],\"data\":[", c->n,
            c->features);
    for (size_t i = 0; i < c->n * c->features; i++) {
        if (i)
            buf_str(b, S(","));
        write_f64(b, c->rows[0].features[i]);
    }
    buf_fmt(b, "]},{\"name\":\"known_at\",\"datatype\":\"INT64\",\"shape\":[%zu,%zu],\"data\":[", c->n,
            views);
    for (size_t i = 0; i < c->n * views; i++) {
        if (i)
            buf_str(b, S(","));
        write_i64(b, c->rows[0].known_at[i]);
    }
    buf_str(b, S("]}"));
}

static void names_write(struct buf *b, const char *key, const struct str *names, size_t n)
{
    buf_fmt(b, "\"%s\":[", key);
    for (size_t i = 0; i < n; i++) {
        if (i)
            buf_str(b, S(","));
        text_put(b, names[i]);
    }
    buf_str(b, S("]"));
}

/* What the columns of `features` and `known_at` are. */
static void parameters_write(struct buf *b, const struct call *c)
{
    const struct feature_plan *plan = c->entry->plan->plan;
    const struct str *features, *views;
    size_t n = feature_plan_features(plan, &features), m = feature_plan_views(plan, &views);
    buf_str(b, S(",\"parameters\":{"));
    names_write(b, "features", features, n);
    buf_str(b, S(","));
    names_write(b, "views", views, m);
    buf_str(b, S("}"));
}

static err reply(struct call *c)
{
    const struct session_info *info = c->to->model->info;
    struct buf b = buf_new(c->a);
    (void)buf_room(&b, 256 + c->n * (12 + (c->rows ? 20 * c->features : 0)));
    buf_str(&b, S("{\"model_name\":\""));
    buf_str(&b, c->entry->name); /* the grammar of names needs no escapes */
    buf_str(&b, S("\",\"model_version\":\""));
    buf_str(&b, c->to->model->number);
    if (c->id.n) {
        buf_str(&b, S("\",\"id\":"));
        text_put(&b, c->id);
        buf_str(&b, S(",\"outputs\":["));
    } else {
        buf_str(&b, S("\",\"outputs\":["));
    }
    for (size_t i = 0; i < c->out_n; i++) {
        if (i)
            buf_str(&b, S(","));
        TRY(tensor_write(&b, info->outputs[c->out[i].slot].name, &c->out[i]));
    }
    if (c->rows)
        features_write(&b, c);
    buf_str(&b, S("]"));
    if (c->rows)
        parameters_write(&b, c);
    buf_str(&b, S("}"));
    return req_reply(c->r, 200, "application/json", buf_get(&b));
}

/* ---- counting and observing ---- */

static const float *scores_of(const struct call *c)
{
    const struct tensor *t = &c->out[0];
    int64_t n;
    bool one_a_row = t->type == TENSOR_F32 && tensor_count(t->dims, t->rank, INT32_MAX, &n) &&
                     (size_t)n == c->n;
    return one_a_row ? t->data : NULL;
}

static void observe(const struct call *c)
{
    const struct model *m = c->to->model;
    struct prediction p = { .project = c->entry->project,
                            .deployment = c->entry->name,
                            .version = m->name,
                            .n = c->n,
                            .n_features = c->features,
                            .features = c->x,
                            .names = m->names,
                            .scores = scores_of(c),
                            .ids = c->row_ids,
                            .at = c->at,
                            .time = c->now };
    for (size_t i = 0; i < c->s->observers_n; i++)
        c->s->observers[i].predicted(c->s->observers[i].self, &p);
}

static int64_t missing_of(const struct call *c)
{
    int64_t n = 0;
    for (size_t i = 0; c->x && i < c->n * c->features; i++)
        n += isnan(c->x[i]);
    return n;
}

static void add(_Atomic int64_t *to, int64_t v)
{
    if (v)
        atomic_fetch_add_explicit(to, v, memory_order_relaxed);
}

/* ---- the whole way ---- */

static err prepare(struct call *c)
{
    const struct session_info *info = c->to->model->info;
    c->in = NEW_N(c->a, struct tensor, info->n_inputs + 1);
    c->out = NEW_N(c->a, struct tensor, info->n_outputs + 1);
    TRY(c->entities ? keys_take(c) : tensors_take(c));
    TRY(ids_read(c));
    return outputs_take(c);
}

/* What a request asks for wrongly is the client's fault, but for what we made ourselves of its keys. */
static err counted(struct call *c, err e, bool made_by_us)
{
    bool theirs = !made_by_us && (e->code == INVALID || e->code == TOO_LARGE || e->code == NOT_FOUND);
    add(theirs ? &c->count->refused : &c->count->failed, 1);
    return e;
}

static err answer(struct call *c, unsigned slot)
{
    TRY(body_read(c));
    TRY(version_choose(c));
    c->count = &c->to->tally->stripe[slot % STRIPES];
    c->now = now_us();
    int64_t start = mono_ns();
    add(&c->count->requests, 1);
    err e = prepare(c);
    if (e)
        return counted(c, e, false);
    e = session_run(c->to->model->session, c->a, c->in, c->to->model->info->n_inputs, c->out, c->out_n);
    if (!e)
        e = reply(c);
    if (e)
        return counted(c, e, c->entities);
    add(&c->count->rows, (int64_t)c->n);
    add(&c->count->missing, missing_of(c));
    observe(c);
    tally_time(c->count, mono_ns() - start);
    return NULL;
}

err infer_post(struct req *r)
{
    struct serve *s = (struct serve *)(uintptr_t)r->route->self;
    unsigned slot;
    struct call *c = NEW(r->a, struct call);
    c->s = s;
    c->r = r;
    c->a = r->a;
    struct str project = req_project(r), name = req_param(r, S("name"));
    const struct snap *snap = snap_enter(s, &slot);
    c->entry = snap_find(snap, project, name);
    err e = c->entry ? answer(c, slot)
                     : err_new(NOT_FOUND, "there is no deployment '%.*s'", STR(str_sub(name, 0, 64)));
    snap_leave(s, slot);
    return e;
}
