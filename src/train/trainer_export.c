// SPDX-License-Identifier: Apache-2.0
/* What a training leaves: the model as ONNX, compared with the engine by ONNX Runtime, its baseline, signature and facts. */
#include "train/internal.h"
#include "train/runtime.h"
#include "train/trainer_internal.h"

#include <math.h>

enum { PARITY_ROWS = 64 };
static const double parity_max = 1e-4;

/* ---- the model ---- */

static void names_put(struct graph *g, const char *key, const struct strs *names)
{
    struct json j = json_new(g->a);
    json_arr(&j);
    for (size_t i = 0; i < names->n; i++)
        json_str(&j, names->v[i]);
    json_arr_end(&j);
    push(g->a, &g->metadata, ((struct onnx_text){ str_of(key), json_get(&j) }));
}

/* Names of the columns of the only input of numbers; of a model that takes other things beside a table: none. */
static struct strs features_of(const struct training_net *t)
{
    const struct train_set *s = &t->set;
    struct strs own = { 0 };
    for (size_t i = 0; i < s->n_in; i++) {
        const struct loader_tensor *x = &s->t[s->tensor[i]];
        bool texts = t->eval_net.texts && t->eval_net.texts[i];
        if ((x->kind != KIND_NUMBERS && x->kind != KIND_CATEGORIES) ||
            (!s->in[i].from && !texts && (own.n || x->kind != KIND_NUMBERS)))
            return (struct strs){ 0 };
        if (!s->in[i].from && !texts)
            own = x->columns;
    }
    return own.n ? own : s->task.given.numbers;
}

/* Of the only input of texts. */
static struct strs categories_of(const struct training_net *t)
{
    const struct train_set *s = &t->set;
    for (size_t i = 0; i < s->n_in && t->eval_net.texts; i++)
        if (t->eval_net.texts[i])
            return s->t[s->tensor[i]].columns;
    return s->task.given.texts;
}

static void metadata_make(const struct training_net *t, struct graph *g)
{
    const struct train_set *s = &t->set;
    struct strs features = features_of(t), categories = categories_of(t);
    push(g->a, &g->metadata, ((struct onnx_text){ S("dhow.model"), g->name }));
    if (features.n)
        names_put(g, "dhow.features", &features);
    if (categories.n)
        names_put(g, "dhow.categories", &categories);
    if (s->label >= 0 && s->t[s->label].class_names.n)
        names_put(g, "dhow.classes", &s->t[s->label].class_names);
    for (size_t i = 0; i < s->n_in; i++) {
        const struct loader_tensor *x = &s->t[s->tensor[i]];
        if (x->kind == KIND_TOKENS && x->vocabulary)
            names_put(g, "dhow.vocabulary.tokens", &x->vocabulary[0]);
    }
}

static err model_write(struct training_net *t, struct str *out)
{
    struct net net;
    struct params *p;
    TRY(net_build(t->a, &t->with->model, t->job->chosen, t->set.in, t->set.n_in, &t->set.task, NET_EXPORT,
                  &net));
    TRY(params_under(t->a, t->eval_params, net.g, &p));
    metadata_make(t, net.g);
    return graph_write(net.g, t->a, params_data(p, net.g, t->a), out);
}

/* ---- parity ---- */

/* x as the exported model takes it: before filling and normalising. */
static void raw_of(const struct loader_tensor *t, const float *x, int64_t rows, float *out)
{
    int64_t k = t->indicator ? t->n / 2 : t->n, each = t->each > 0 ? t->each : 1;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < k; i++) {
            float v = x[r * t->n + i], scale = t->scale ? t->scale[i / each] : 1,
                  shift = t->shift ? t->shift[i / each] : 0;
            bool gone = t->indicator && x[r * t->n + k + i] > 0;
            out[r * k + i] = gone ? NAN : scale != 0 ? v / scale + shift : shift;
        }
}

static void runtime_end(void *rt)
{
    runtime_close(rt);
}

static void session_end(void *s)
{
    session_unload(s);
}

/* A number that training saw for an id, NaN for one that was missing, and for what it did not know one that it does not know. */
static float number_of(const struct strs *vocabulary, int64_t id)
{
    double most = -1;
    for (size_t i = 0; id == 0 && i < vocabulary->n; i++)
        most = fmax(most, net_category_number(vocabulary->v[i]));
    return id == 0 ? (float)most + 1 : id == 1 ? NAN : (float)net_category_number(vocabulary->v[id - 2]);
}

static struct str text_of(const struct strs *vocabulary, int64_t id)
{
    return id == 0 ? S("\x01 not in any vocabulary") : id == 1 ? S("") : vocabulary->v[id - 2];
}

/* One of the two matrices, from the tensors that have its columns. */
static err matrix_make(struct arena *a, const struct training_net *t, const struct feed_batch *b, bool text,
                       struct tensor *out)
{
    const struct net_given *given = &t->set.task.given;
    int64_t columns = (int64_t)(text ? given->texts.n : given->numbers.n);
    *out = (struct tensor){ .type = text ? TENSOR_TEXT : TENSOR_F32,
                            .rank = 2,
                            .dims = { b->rows, columns } };
    struct str *texts = text ? NEW_N(a, struct str, b->rows * columns + 1) : NULL;
    float *numbers = text ? NULL : NEW_N(a, float, b->rows *columns + 1);
    for (size_t i = 0; i < t->set.n_in; i++) {
        const struct loader_tensor *x = &t->set.t[t->set.tensor[i]];
        const int *from = t->set.in[i].from;
        const void *data = b->data[t->set.tensor[i]];
        int64_t width = from ? (int64_t)x->columns.n : 0;
        float *raw = from && x->type == TENSOR_F32 ? NEW_N(a, float, b->rows *width + 1) : NULL;
        if (raw)
            raw_of(x, data, b->rows, raw);
        for (int64_t k = 0; k < b->rows * width; k++) {
            int64_t c = k % width, id = raw ? 0 : ((const int64_t *)data)[k];
            int64_t at = k / width * columns + (from[c] >= 0 ? from[c] : -1 - from[c]);
            if (from[c] < 0 && text)
                texts[at] = text_of(&x->vocabulary[c], id);
            else if (from[c] >= 0 && !text)
                numbers[at] = raw ? raw[k] : number_of(&x->vocabulary[c], id);
        }
    }
    out->data = text ? (void *)texts : (void *)numbers;
    out->bytes = (size_t)(b->rows * columns) * (text ? sizeof *texts : sizeof *numbers);
    return NULL;
}

/* Texts of a given model that takes them. */
static void texts_make(struct arena *a, const struct loader_tensor *x, const int64_t *ids, int64_t rows,
                       struct tensor *out)
{
    struct str *texts = NEW_N(a, struct str, rows * x->n + 1);
    for (int64_t i = 0; i < rows * x->n; i++)
        texts[i] = text_of(&x->vocabulary[i % x->n], ids[i]);
    *out = (struct tensor){ .type = TENSOR_TEXT,
                            .rank = 2,
                            .dims = { rows, x->n },
                            .data = texts,
                            .bytes = (size_t)(rows * x->n) * sizeof *texts };
}

/* A tensor that is given as it is. */
static void tensor_make(struct arena *a, const struct loader_tensor *x, const void *data, int64_t rows,
                        struct tensor *out)
{
    int64_t n = x->indicator ? x->n / 2 : x->n;
    *out = (struct tensor){ .type = x->type, .rank = (size_t)x->rank + 1, .dims = { rows } };
    for (int k = 0; k < x->rank; k++)
        out->dims[k + 1] = x->shape[k];
    if (x->indicator)
        out->dims[1] /= 2;
    out->bytes = (size_t)(rows * n) * tensor_size(x->type);
    float *raw = arena_alloc(a, out->bytes + 1, 64);
    if (x->type == TENSOR_F32)
        raw_of(x, data, rows, raw);
    else
        memcpy(raw, data, out->bytes);
    out->data = raw;
}

static err tensors_make(struct arena *a, const struct training_net *t, const struct session_info *info,
                        const struct feed_batch *b, struct tensor *in)
{
    const struct net_given *given = &t->set.task.given;
    for (size_t i = 0; i < info->n_inputs; i++) {
        struct str name = info->inputs[i].name;
        const struct loader_tensor *x = NULL;
        bool numbers = given->numbers.n && str_eq(name, given->number),
             texts = given->texts.n && str_eq(name, given->text) && info->inputs[i].type == TENSOR_TEXT;
        for (size_t k = 0; k < t->set.n_in; k++)
            if (!t->set.in[k].from && (t->set.n_in == 1 || str_eq(t->set.t[t->set.tensor[k]].name, name)))
                x = &t->set.t[t->set.tensor[k]];
        if (numbers || texts)
            TRY(matrix_make(a, t, b, texts, &in[i]));
        else if (x && info->inputs[i].type == TENSOR_TEXT)
            texts_make(a, x, b->data[x - t->set.t], b->rows, &in[i]);
        else if (x)
            tensor_make(a, x, b->data[x - t->set.t], b->rows, &in[i]);
        else
            FAIL(INTERNAL, "the exported model wants an input '%.*s'", STR(name));
        in[i].slot = i;
    }
    return NULL;
}

/* Largest difference, as a share of the prediction or, of small ones, of a hundredth of the largest. */
static double difference(const float *x, const float *y, int64_t n)
{
    double large = 0, worst = 0;
    for (int64_t i = 0; i < n; i++)
        large = fmax(large, fabs((double)y[i]));
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)x[i] - y[i]) / fmax(fmax(fabs((double)y[i]), 0.01 * large), 1e-30);
        worst = d > worst || isnan(d) ? d : worst;
    }
    return worst;
}

static err parity(struct training_net *t, struct str onnx, double *out, int64_t *rows)
{
    auto_arena struct arena *a = arena_new(0);
    struct runtime *rt;
    struct session *session;
    struct feed *feed;
    struct program *program;
    struct feed_batch b;
    struct run_report r;
    const void *in[LOADER_TENSORS_MAX];
    enum loader_part part = t->valid.feed ? LOADER_VALID : LOADER_TRAIN;
    *rows = t->set.facts.rows[part] < PARITY_ROWS ? t->set.facts.rows[part] : PARITY_ROWS;
    TRY(runtime_open(&(struct runtime_config){ 0 }, &rt));
    arena_defer(a, runtime_end, rt);
    TRY(session_load(rt, onnx, &(struct session_config){ 0 }, &session));
    arena_defer(a, session_end, session);
    TRY(feed_open(t->set.loader, a,
                  &(struct feed_options){ .part = part, .rows = *rows, .once = true, .depth = -1 }, &feed));
    TRY(program_new(
        a, t->eval_net.g, t->eval_params,
        &(struct program_options){ .team = t->team, .rows = *rows, .loss = -1, .turns = t->program },
        &program));
    TRY(feed_next(feed, &b));
    for (size_t i = 0; i < t->set.n_in; i++)
        in[i] = b.data[t->set.tensor[i]];
    program_run(program, in, 0, 0, &r);
    const struct session_info *info = session_describe(session);
    struct tensor x[LOADER_TENSORS_MAX], y = { 0 };
    TRY(tensors_make(a, t, info, &b, x));
    TRY(session_run(session, a, x, info->n_inputs, &y, 1));
    *out = difference(y.data, program_output(program, 0, NULL, NULL),
                      *rows * t->set.row_elements * t->set.task.outputs);
    return NULL;
}

/* ---- the baseline ---- */

/* What the model says of rows it learned from: the first output, or the greatest probability. */
static err scores(struct training_net *t, struct arena *a, float **out, size_t *n)
{
    struct feed *feed;
    struct program *program;
    struct feed_batch b;
    struct run_report r;
    const void *in[LOADER_TENSORS_MAX];
    int64_t rows = t->set.facts.rows[LOADER_TRAIN] < 256 ? t->set.facts.rows[LOADER_TRAIN] : 256,
            outputs = t->set.task.outputs;
    *n = 0;
    *out = NEW_N(a, float, SAMPLE_ROWS);
    TRY(feed_open(t->set.loader, a,
                  &(struct feed_options){
                      .part = LOADER_TRAIN, .rows = rows, .shuffle = true, .once = true, .depth = -1 },
                  &feed));
    TRY(program_new(
        a, t->eval_net.g, t->eval_params,
        &(struct program_options){ .team = t->team, .rows = rows, .loss = -1, .turns = t->program },
        &program));
    for (size_t most = t->set.row_elements > 1 ? 512 : SAMPLE_ROWS / 4; *n < most;) {
        TRY(feed_next(feed, &b));
        if (b.rows < rows)
            break;
        for (size_t i = 0; i < t->set.n_in; i++)
            in[i] = b.data[t->set.tensor[i]];
        program_run(program, in, 0, 0, &r);
        const float *p = program_output(program, 0, NULL, NULL);
        for (int64_t i = 0; i < rows && *n < SAMPLE_ROWS; i++, p += t->set.row_elements * outputs) {
            float v = p[0];
            for (int64_t k = 1; k < outputs && t->set.task.kind == TASK_CLASSIFICATION; k++)
                v = p[k] > v ? p[k] : v;
            (*out)[(*n)++] = v;
        }
    }
    return NULL;
}

static err baseline_make_text(struct training_net *t, struct str *out)
{
    auto_arena struct arena *a = arena_new(0);
    struct strs features = features_of(t);
    struct baseline b = { .rows = t->set.facts.rows[LOADER_TRAIN], .n = features.n };
    float *x, *p;
    size_t rows, n;
    b.features = NEW_N(a, struct baseline_column, b.n + 1);
    for (size_t i = 0; i < t->set.n_in && features.n; i++) {
        const struct loader_tensor *f = &t->set.t[t->set.tensor[i]];
        const int *from = t->set.in[i].from;
        TRY(loader_raw(t->set.loader, a, LOADER_TRAIN, (size_t)(f - t->set.t), SAMPLE_ROWS, &x, &rows));
        b.rows = (int64_t)rows;
        for (size_t c = 0; c < f->columns.n; c++)
            if (from ? from[c] >= 0 : f->kind == KIND_NUMBERS)
                baseline_column_make(a, f->columns.v[c], x + c, rows, f->columns.n,
                                     &b.features[from ? (size_t)from[c] : c]);
    }
    TRY(scores(t, a, &p, &n));
    baseline_column_make(a, S("score"), p, n, 1, &b.score);
    *out = baseline_write(t->a, &b);
    return NULL;
}

/* ---- texts ---- */

static void tensor_write(struct json *j, struct str name, enum tensor_type type, const int64_t *dims,
                         int rank)
{
    json_obj(j);
    json_kstr(j, "name", name);
    json_kstr(j, "type", tensor_protocol_name(type));
    json_key(j, S("shape"));
    json_arr(j);
    json_i64(j, -1);
    for (int i = 0; i < rank; i++)
        json_i64(j, dims[i]);
    json_arr_end(j);
    json_obj_end(j);
}

static void names_write(struct json *j, const char *key, const struct strs *names)
{
    json_key(j, str_of(key));
    json_arr(j);
    for (size_t i = 0; i < names->n; i++)
        json_str(j, names->v[i]);
    json_arr_end(j);
}

static struct str signature_text(const struct training_net *t)
{
    const struct train_set *s = &t->set;
    const struct net_given *given = &s->task.given;
    struct strs features = features_of(t), categories = categories_of(t);
    const struct graph *g = t->eval_net.g;
    const struct value *y = value_at(g, g->outputs.v[0]);
    struct json j = json_new(t->a);
    json_obj(&j);
    json_key(&j, S("inputs"));
    json_arr(&j);
    if (given->numbers.n)
        tensor_write(&j, given->number, TENSOR_F32, &(int64_t){ (int64_t)given->numbers.n }, 1);
    if (given->texts.n)
        tensor_write(&j, given->text, TENSOR_TEXT, &(int64_t){ (int64_t)given->texts.n }, 1);
    for (size_t i = 0; i < s->n_in; i++) {
        const struct loader_tensor *x = &s->t[s->tensor[i]];
        int64_t dims[4];
        if (s->in[i].from)
            continue;
        memcpy(dims, x->shape, sizeof dims);
        dims[0] /= x->indicator ? 2 : 1;
        tensor_write(&j, x->name, t->eval_net.texts && t->eval_net.texts[i] ? TENSOR_TEXT : x->type, dims,
                     x->rank);
    }
    json_arr_end(&j);
    json_key(&j, S("outputs"));
    json_arr(&j);
    tensor_write(&j, y->name, TENSOR_F32, y->shape.d + 1, y->shape.rank > 0 ? y->shape.rank - 1 : 0);
    json_arr_end(&j);
    names_write(&j, "features", &features);
    names_write(&j, "categories", &categories);
    json_obj_end(&j);
    return json_get(&j);
}

static struct str params_text(const struct training_net *t)
{
    const struct train_with *w = t->with;
    const struct field *f = t->job->chosen;
    struct json j = json_new(t->a);
    json_obj(&j);
    json_key(&j, field_key(t->a, f));
    json_raw(&j, schema_text(f->sub, t->a, (const char *)&w->model + f->offset, WRITE_DEFAULTS));
    json_kraw(&j, "optimizer", schema_text(&train_optimizer_schema, t->a, &w->optimizer, WRITE_DEFAULTS));
    json_kraw(&j, "schedule", schema_text(&train_schedule_schema, t->a, &w->schedule, WRITE_DEFAULTS));
    json_kf64(&j, "rate", t->rate);
    json_ki64(&j, "epochs", t->epochs);
    json_ki64(&j, "batchSize", t->batch);
    json_kstr(&j, "precision", str_of(train_precisions[t->precision + 1]));
    json_ki64(&j, "seed", w->seed);
    if (w->holdout)
        json_kstr(&j, "holdout", duration_text(t->a, w->holdout));
    json_obj_end(&j);
    return json_get(&j);
}

static err parity_judge(struct training_net *t, struct train_result *out)
{
    double worst = NAN;
    int64_t rows = 0;
    err e = parity(t, out->onnx, &worst, &rows);
    if (e && e->code == UNAVAILABLE) {
        train_say(t->listener, "the exported model was not compared: %.*s", STR(e->text));
        return NULL;
    }
    TRY_AS(e, "comparing the exported model");
    if (!(worst <= 10 * parity_max))
        FAIL(INTERNAL, "ONNX Runtime's predictions differ by %.2g from the engine's on %lld rows", worst,
             (long long)rows);
    train_say(t->listener, "ONNX Runtime says the same on %lld rows: relative difference %.2g",
              (long long)rows, worst);
    struct str facts = str_sub(out->facts, 0, out->facts.n - 1);
    out->facts = fmt(t->a, "%.*s,\"parityMaxRelative\":%.3g,\"parityRows\":%lld}", STR(facts), worst,
                     (long long)rows);
    return NULL;
}

struct str measures_text(struct arena *a, const struct measures *m)
{
    struct json j = json_new(a);
    json_obj(&j);
    for (size_t i = 0; i < m->n; i++) {
        json_key(&j, m->name[i]);
        json_f64(&j, m->value[i]);
    }
    json_obj_end(&j);
    return json_get(&j);
}

err train_export(struct training_net *t, const struct measures *valid, const struct measures *test,
                 struct train_result *out)
{
    out->metrics = measures_text(t->a, valid);
    if (test->n)
        out->test = measures_text(t->a, test);
    TRY_AS(model_write(t, &out->onnx), "exporting the model");
    TRY_AS(baseline_make_text(t, &out->baseline), "making the baseline");
    out->signature = signature_text(t);
    out->params = params_text(t);
    return parity_judge(t, out);
}
