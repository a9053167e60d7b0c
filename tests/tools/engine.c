/* engine: runs ONNX models on dhow's engine, for the end-to-end tests: commands on stdin, one a line, words apart by tabs; one
 * line of JSON answers each. Tensors are .npy files (bfloat16 as '<V2').
 *   ops                                              every op: name, domain, …
 *   run MODEL DIR PRECISION RANKS LOSS IN...         runs once; DIR/outN.npy, and with a LOSS (a value's name, or "-") DIR/gradN.npy
 *   train MODEL OUT PRECISION RANKS LOSS STEPS IN... so many steps of SGD, then writes the model
 *   write MODEL OUT                                  reads and writes it */
// SPDX-License-Identifier: Apache-2.0
#include "base/base.h"
#include "engine/engine.h"

#include <stdio.h>
#include <stdlib.h>

enum { WORDS_MAX = 64 };

/* ---- .npy ---- */

static const struct {
    const char *descr;
    enum tensor_type type;
} types[] = {
    { "<f4", TENSOR_F32 },  { "<f8", TENSOR_F64 },  { "<i8", TENSOR_I64 },  { "<i4", TENSOR_I32 },
    { "<i2", TENSOR_I16 },  { "|i1", TENSOR_I8 },   { "|u1", TENSOR_U8 },   { "<u2", TENSOR_U16 },
    { "<u4", TENSOR_U32 },  { "<u8", TENSOR_U64 },  { "|b1", TENSOR_BOOL }, { "<f2", TENSOR_F16 },
    { "<V2", TENSOR_BF16 }, { "|V2", TENSOR_BF16 },
};

struct npy {
    enum tensor_type type;
    struct shape shape;
    const void *data;
};

static err npy_read(struct arena *a, struct str path, struct npy *out)
{
    struct str bytes;
    TRY(file_read(a, str_z(a, path), (size_t)1 << 31, &bytes));
    if (bytes.n < 10 || memcmp(bytes.p, "\x93NUMPY", 6) != 0)
        FAIL(INVALID, "%.*s is no .npy file", STR(path));
    size_t n = (uint8_t)bytes.p[8] | (size_t)(uint8_t)bytes.p[9] << 8;
    struct str head = str_sub(bytes, 10, 10 + n);
    const char *z = str_z(a, head), *descr = strstr(z, "'descr': '"), *shape = strstr(z, "'shape': (");
    if (!descr || !shape || strstr(z, "'fortran_order': True"))
        FAIL(INVALID, "%.*s: its header is not understood", STR(path));
    *out = (struct npy){ 0 };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strncmp(descr + 10, types[i].descr, 3) == 0)
            out->type = types[i].type;
    for (const char *p = shape + 10; *p && *p != ')'; p++)
        if (*p >= '0' && *p <= '9') {
            char *end;
            out->shape.d[out->shape.rank++] = strtoll(p, &end, 10);
            p = end - 1;
        }
    int64_t count = shape_count(&out->shape);
    size_t size = (size_t)count * tensor_size(out->type);
    if (out->type == TENSOR_NONE || 10 + n + size > bytes.n)
        FAIL(INVALID, "%.*s: its type is not known, or it is cut short", STR(path));
    char *data = arena_alloc(a, size + 1, 64);
    memcpy(data, bytes.p + 10 + n, size);
    out->data = data;
    return NULL;
}

static err npy_write(struct arena *a, const char *path, enum tensor_type type, const struct shape *s,
                     const void *data)
{
    struct buf b = buf_new(a), head = buf_new(a);
    for (size_t i = 0; i < sizeof types / sizeof *types && head.n == 0; i++)
        if (types[i].type == type)
            buf_fmt(&head, "{'descr': '%s', 'fortran_order': False, 'shape': (", types[i].descr);
    for (int i = 0; i < s->rank; i++)
        buf_fmt(&head, "%lld,", (long long)s->d[i]);
    buf_str(&head, S("), }"));
    while ((10 + head.n + 1) % 64)
        buf_str(&head, S(" "));
    buf_str(&head, S("\n"));
    buf_put(&b, "\x93NUMPY\1\0", 8);
    buf_put(&b, (char[]){ (char)head.n, (char)(head.n >> 8) }, 2);
    buf_put(&b, head.p, head.n);
    buf_put(&b, data, (size_t)shape_count(s) * tensor_size(type));
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(b.p, 1, b.n, f) != b.n)
        FAIL(INTERNAL, "cannot write %s", path);
    fclose(f);
    return NULL;
}

/* ---- commands ---- */

struct job {
    struct arena *a;
    struct json *reply;
    struct graph *g;
    struct team *team;
    struct params *params;
    struct program *p;
    const void **inputs;
    int64_t rows, *sizes;
    int loss;
};

static err model_read(struct job *j, struct str path)
{
    struct str bytes;
    TRY(file_read(j->a, str_z(j->a, path), (size_t)1 << 31, &bytes));
    return graph_read(j->a, bytes, NULL, &j->g);
}

/* What the inputs' sizes say about the symbols. */
static err sizes_find(struct job *j, const struct str *paths, size_t n)
{
    j->sizes = NEW_N(j->a, int64_t, j->g->symbols.n + 1);
    j->inputs = (const void **)NEW_N(j->a, void *, n + 1);
    for (size_t i = 0; i < j->g->symbols.n; i++)
        j->sizes[i] = 1;
    if (n != j->g->inputs.n)
        FAIL(INVALID, "the model has %zu inputs, not %zu", j->g->inputs.n, n);
    for (size_t i = 0; i < n; i++) {
        const struct value *v = value_at(j->g, j->g->inputs.v[i]);
        struct npy t;
        TRY(npy_read(j->a, paths[i], &t));
        if (t.type != v->type || t.shape.rank != v->shape.rank)
            FAIL(INVALID, "input '%.*s' is given in another type or rank", STR(v->name));
        for (int k = 0; k < t.shape.rank; k++)
            if (v->shape.d[k] < 0)
                j->sizes[-1 - v->shape.d[k]] = t.shape.d[k];
            else if (v->shape.d[k] != t.shape.d[k])
                FAIL(INVALID, "input '%.*s' is given in another size", STR(v->name));
        j->inputs[i] = t.data;
    }
    j->rows = 1;
    for (size_t i = 0; i < j->g->symbols.n; i++)
        if (str_is(j->g->symbols.v[i], "batch"))
            j->rows = j->sizes[i];
    return NULL;
}

/* "HuberLoss x t - s delta=0.5": a loss of our own, on values of the model ("-": not there), with attributes; one with a point is a
 * float. It becomes the last output. */
static err loss_add(struct job *j, struct str text)
{
    struct str word;
    struct attr attrs[8] = { 0 };
    int in[8], n_in = 0, n_attrs = 0;
    str_cut(&text, ' ', &word);
    const struct op *op = op_find(S(OWN), word);
    if (!op)
        FAIL(INVALID, "there is no value and no loss '%.*s'", STR(word));
    while (str_cut(&text, ' ', &word) && n_in < 8 && n_attrs < 7) {
        struct str value = word, key;
        double v;
        if (memchr(word.p, '=', word.n)) {
            str_cut(&value, '=', &key);
            if (!str_f64(value, &v))
                FAIL(INVALID, "%.*s", STR(word));
            bool real = memchr(value.p, '.', value.n);
            attrs[n_attrs++] = (struct attr){
                .name = str_z(j->a, key), .type = real ? ATTR_FLOAT : ATTR_INT, .f = (float)v, .i = (int64_t)v
            };
            continue;
        }
        in[n_in] = str_is(word, "-") ? -1 : graph_find(j->g, word);
        if (in[n_in++] < 0 && !str_is(word, "-"))
            FAIL(INVALID, "there is no value '%.*s'", STR(word));
    }
    j->loss = graph_add(j->g, op, in, n_in, 1, attrs);
    graph_output(j->g, j->loss, S(""));
    return graph_error(j->g);
}

/* MODEL _ PRECISION RANKS LOSS ... IN..., inputs from word `from` on. */
static err job_open(struct job *j, const struct str *w, size_t n, size_t from)
{
    int64_t ranks;
    TRY(model_read(j, w[1]));
    TRY(sizes_find(j, w + from, n - from));
    if (!str_i64(w[4], &ranks) || ranks < 1 || ranks > 8)
        FAIL(INVALID, "ranks: %.*s", STR(w[4]));
    j->loss = str_is(w[5], "-") ? -1 : graph_find(j->g, w[5]);
    if (j->loss < 0 && !str_is(w[5], "-"))
        TRY(loss_add(j, w[5]));
    TRY(team_new((int)ranks, &j->team));
    TRY(params_new(j->a, &device_cpu, j->g, (int)ranks, 1, &j->params));
    struct program_options o = {
        .team = j->team, .ranks = (int)ranks, .rows = j->rows, .sizes = j->sizes, .loss = j->loss
    };
    o.precision = str_is(w[3], "bf16") ? PRECISION_BF16 : str_is(w[3], "f16") ? PRECISION_F16 : PRECISION_F32;
    return program_new(j->a, j->g, j->params, &o, &j->p);
}

static err outputs_write(struct job *j, struct str dir)
{
    for (size_t i = 0; i < j->g->outputs.n; i++) {
        enum tensor_type type;
        struct shape s;
        const void *data = program_output(j->p, (int)i, &type, &s);
        TRY(npy_write(j->a, fmtz(j->a, "%.*s/out%zu.npy", STR(dir), i), type, &s, data));
    }
    return NULL;
}

static err gradients_write(struct job *j, struct str dir)
{
    int ranks = program_facts(j->p).ranks;
    json_key(j->reply, S("params"));
    json_arr(j->reply);
    for (size_t i = 0; i < j->params->count; i++) {
        const struct param *p = &j->params->v[i];
        float *sum = NEW_N(j->a, float, p->n + 1);
        for (int r = 0; r < ranks; r++)
            for (size_t k = 0; k < p->n; k++)
                sum[k] += j->params->grads[r][p->at + k];
        TRY(npy_write(j->a, fmtz(j->a, "%.*s/grad%zu.npy", STR(dir), i), TENSOR_F32, &p->shape, sum));
        json_str(j->reply, p->name);
    }
    json_arr_end(j->reply);
    return NULL;
}

static err run(struct job *j, const struct str *w, size_t n)
{
    struct run_report report;
    TRY(job_open(j, w, n, 6));
    program_run(j->p, j->inputs, 1, 1, &report);
    TRY(outputs_write(j, w[2]));
    json_ki64(j->reply, "ranks", program_facts(j->p).ranks);
    json_kf64(j->reply, "loss", report.loss);
    json_ki64(j->reply, "bad_indices", report.bad_indices);
    json_key(j->reply, S("notes"));
    json_arr(j->reply);
    for (size_t i = 0; i < j->g->notes.n; i++)
        json_str(j->reply, j->g->notes.v[i]);
    json_arr_end(j->reply);
    return j->loss < 0 ? NULL : gradients_write(j, w[2]);
}

static err model_write(struct job *j, struct str path, const void *const *data)
{
    struct str bytes;
    TRY(graph_write(j->g, j->a, data, &bytes));
    FILE *f = fopen(str_z(j->a, path), "wb");
    if (!f || fwrite(bytes.p, 1, bytes.n, f) != bytes.n)
        FAIL(INTERNAL, "cannot write %.*s", STR(path));
    fclose(f);
    return NULL;
}

static err train(struct job *j, const struct str *w, size_t n)
{
    int64_t steps;
    struct optim *o;
    struct run_report report = { 0 };
    TRY(job_open(j, w, n, 7));
    if (j->loss < 0 || !str_i64(w[6], &steps))
        FAIL(INVALID, "train wants a loss and a number of steps");
    TRY(optim_new(j->a, j->params, &(struct optim_spec){ .kind = OPTIM_SGD, .rate = 0.05, .momentum = 0.9 },
                  &o));
    json_key(j->reply, S("losses"));
    json_arr(j->reply);
    for (int64_t i = 0; i < steps; i++) {
        program_train(j->p, j->inputs, 1, (uint64_t)i, o, &report);
        json_f64(j->reply, report.loss);
    }
    json_arr_end(j->reply);
    return model_write(j, w[2], params_data(j->params, j->g, j->a));
}

static void ops(struct json *reply)
{
    json_key(reply, S("ops"));
    json_arr(reply);
    for (int i = 0; i < OP_COUNT; i++) {
        const struct op *op = &op_table[i];
        json_obj(reply);
        json_kstr(reply, "name", str_of(op->name));
        json_kstr(reply, "domain", str_of(op->domain));
        json_ki64(reply, "since", op->since);
        json_kbool(reply, "grad", op->grad != NULL);
        json_kf64(reply, "tolerance", op->tolerance);
        json_obj_end(reply);
    }
    json_arr_end(reply);
}

static err command(struct job *j, const struct str *w, size_t n)
{
    if (str_is(w[0], "ops"))
        ops(j->reply);
    else if (str_is(w[0], "run") && n >= 6)
        return run(j, w, n);
    else if (str_is(w[0], "train") && n >= 7)
        return train(j, w, n);
    else if (str_is(w[0], "write") && n == 3) {
        TRY(model_read(j, w[1]));
        return model_write(j, w[2], NULL);
    } else
        FAIL(INVALID, "what is '%.*s'?", STR(w[0]));
    return NULL;
}

int main(void)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t got;
    while ((got = getline(&line, &cap, stdin)) > 0) {
        struct arena *a = arena_new(0);
        struct json reply = json_new(a), failed = json_new(a);
        struct job j = { .a = a, .reply = &reply };
        struct str rest = str_trim((struct str){ line, (size_t)got }), w[WORDS_MAX];
        size_t n = 0;
        while (n < WORDS_MAX && str_cut(&rest, '\t', &w[n]))
            n++;
        json_obj(&reply);
        err e = n > 0 ? command(&j, w, n) : NULL;
        if (e) {
            json_obj(&failed);
            json_kstr(&failed, "error", err_table[e->code].name);
            json_kstr(&failed, "text", e->text);
            json_obj_end(&failed);
        } else
            json_obj_end(&reply);
        struct str text = json_get(e ? &failed : &reply);
        fwrite(text.p, 1, text.n, stdout);
        fputc('\n', stdout);
        fflush(stdout);
        team_free(j.team);
        arena_free(a);
        err_reset();
    }
    free(line);
    return 0;
}
