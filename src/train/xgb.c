// SPDX-License-Identifier: Apache-2.0
#include "train/xgb.h"
#include "base/library.h"
#include "train/train.h"

#include <stdlib.h>

/* ---- the library ---- */

typedef uint64_t bst_ulong;
// clang-format off
#define XGB_CALLS(C) /* name, parameters; all return 0 when all went well */                              \
    C(XGDMatrixCreateFromDense, (const char *array, const char *config, void **out))                      \
    C(XGProxyDMatrixCreate,     (void **out))                                                             \
    C(XGProxyDMatrixSetDataDense, (void *proxy, const char *array))                                       \
    C(XGQuantileDMatrixCreateFromCallback, (void *batches, void *proxy, void *like, void (*reset)(void *), int (*next)(void *), const char *config, void **out)) \
    C(XGDMatrixSetFloatInfo,    (void *data, const char *field, const float *v, bst_ulong n))             \
    C(XGDMatrixSetUIntInfo,     (void *data, const char *field, const unsigned *v, bst_ulong n))          \
    C(XGDMatrixNumRow,          (void *data, bst_ulong *out))                                             \
    C(XGDMatrixFree,            (void *data))                                                             \
    C(XGBoosterCreate,          (void *const *data, bst_ulong n, void **out))                             \
    C(XGBoosterFree,            (void *model))                                                            \
    C(XGBoosterSetParam,        (void *model, const char *name, const char *value))                       \
    C(XGBoosterUpdateOneIter,   (void *model, int round, void *data))                                     \
    C(XGBoosterPredictFromDMatrix, (void *model, void *data, const char *config, const bst_ulong **shape, bst_ulong *dim, const float **out)) \
    C(XGBoosterSlice,           (void *model, int begin, int end, int step, void **out))                  \
    C(XGBoosterSaveModelToBuffer, (void *model, const char *config, bst_ulong *n, const char **out))      \
    C(XGBoosterLoadModelFromBuffer, (void *model, const void *bytes, bst_ulong n))
// clang-format on

struct xgb {
#define C(name, parameters) int(*name) parameters;
    XGB_CALLS(C)
#undef C
    const char *(*XGBGetLastError)(void);
    void (*XGBoostVersion)(int *major, int *minor, int *patch);
};
struct xgb_data {
    struct xgb *xgb;
    void *handle;
};
struct xgb_model {
    struct xgb *xgb;
    void *handle;
};

static const struct library library = {
    "XGBoost",
    "DHOW_XGBOOST_LIB",
    (const char *const[]){ "libxgboost.so", "libxgboost.so.0", NULL },
    "run `make setup`, install Debian's libxgboost0, or set DHOW_XGBOOST_LIB to the path of libxgboost.so",
};

static const struct library_function functions[] = {
#define C(name, parameters) { #name, offsetof(struct xgb, name) },
    XGB_CALLS(C)
#undef C
        { "XGBGetLastError", offsetof(struct xgb, XGBGetLastError) },
    { "XGBoostVersion", offsetof(struct xgb, XGBoostVersion) },
};

/* Its threads meet some sixty times a round. OpenMP's own way is to wait awake for some milliseconds, which is best where the cores
 * are free and costs half as much again and more where they are not. With 0.1 ms a round takes 5 to 10 % more alone, and next to
 * nothing more beside others (1 M rows, 2 cores). */
void xgb_share_cores(void)
{
    setenv("OMP_WAIT_POLICY", "passive", 0);
    setenv("GOMP_SPINCOUNT", "10000", 0);
}

err xgb_open(struct arena *a, struct xgb **out)
{
    struct xgb *x = NEW(a, struct xgb);
    void *so;
    TRY(library_open(a, &library, NULL, &so));
    TRY(library_bind(&library, so, functions, sizeof functions / sizeof *functions, x));
    *out = x;
    return NULL;
}

struct str xgb_version_text(const struct xgb *x, struct arena *a)
{
    int major = 0, minor = 0, patch = 0;
    x->XGBoostVersion(&major, &minor, &patch);
    return fmt(a, "%d.%d.%d", major, minor, patch);
}

err xgb_version(struct arena *a, struct str *out)
{
    struct xgb *x;
    TRY(xgb_open(a, &x));
    *out = xgb_version_text(x, a);
    return NULL;
}

/* The first line of its message, without the place in its source ("[10:01:02] ../src/x.cc:12: "). */
static err failed(const struct xgb *x, enum err_code code, const char *what)
{
    struct str text = str_of(x->XGBGetLastError());
    text = str_sub(text, 0, str_find(text, '\n'));
    for (size_t i = 0; i + 2 < text.n; i++)
        if (text.p[i] == ':' && text.p[i + 1] == ' ') {
            text = str_sub(text, i + 2, text.n);
            break;
        }
    text = str_sub(text, 0, 500);
    return err_new(code, "XGBoost cannot %s: %.*s", what, STR(text));
}
#define CALL(x, code, what, name, ...)      \
    do {                                    \
        if ((x)->name(__VA_ARGS__) != 0)    \
            return failed((x), code, what); \
    } while (0)

/* ---- data and models ---- */

static void data_free(void *arg)
{
    struct xgb_data *d = arg;
    d->xgb->XGDMatrixFree(d->handle);
}

/* Floats in memory, as NumPy's array interface says it. */
static const char *array_text(struct arena *a, const float *v, size_t n, size_t width)
{
    return fmtz(a, "{\"data\":[%llu,true],\"shape\":[%zu,%zu],\"typestr\":\"<f4\",\"version\":3}",
                (unsigned long long)(uintptr_t)v, n, width);
}

err xgb_data_new(struct xgb *x, struct arena *a, const float *v, size_t n, size_t features, const float *y,
                 int threads, struct xgb_data **out)
{
    struct xgb_data *d = NEW(a, struct xgb_data);
    const char *array = array_text(a, v, n, features);
    const char *config = fmtz(a, "{\"missing\":NaN,\"nthread\":%d}", threads);
    CALL(x, INVALID, "take the rows", XGDMatrixCreateFromDense, array, config, &d->handle);
    d->xgb = x;
    arena_defer(a, data_free, d);
    if (y)
        CALL(x, INVALID, "take the labels", XGDMatrixSetFloatInfo, d->handle, "label", y, n);
    *out = d;
    return NULL;
}

/* XGBoost asks for batches and starts again as often as it likes; ours is one, the whole table where it lies. */
struct batches {
    struct xgb *xgb;
    void *proxy;
    const char *array;
    bool given;
};

static void batches_reset(void *arg)
{
    ((struct batches *)arg)->given = false;
}

static int batches_next(void *arg)
{
    struct batches *b = arg;
    if (b->given || b->xgb->XGProxyDMatrixSetDataDense(b->proxy, b->array) != 0)
        return 0;
    return b->given = true;
}

err xgb_bins_new(struct xgb *x, struct arena *a, const struct xgb_table *t, int bins, int threads,
                 const struct xgb_data *like, struct xgb_data **out)
{
    struct xgb_data *d = NEW(a, struct xgb_data);
    struct batches b = { .xgb = x };
    b.array = array_text(a, t->x, t->n, t->features);
    const char *config = fmtz(a, "{\"missing\":NaN,\"nthread\":%d,\"max_bin\":%d}", threads, bins);
    CALL(x, INTERNAL, "make a proxy", XGProxyDMatrixCreate, &b.proxy);
    int state = x->XGQuantileDMatrixCreateFromCallback(&b, b.proxy, like ? like->handle : NULL, batches_reset,
                                                       batches_next, config, &d->handle);
    err e = state == 0 ? NULL : failed(x, INVALID, "bin the rows");
    x->XGDMatrixFree(b.proxy);
    TRY(e);
    d->xgb = x;
    arena_defer(a, data_free, d);
    if (t->y)
        CALL(x, INVALID, "take the labels", XGDMatrixSetFloatInfo, d->handle, "label", t->y, t->n);
    if (t->weight)
        CALL(x, INVALID, "take the weights", XGDMatrixSetFloatInfo, d->handle, "weight", t->weight, t->n);
    if (t->groups)
        CALL(x, INVALID, "take the groups", XGDMatrixSetUIntInfo, d->handle, "group", t->groups, t->n_groups);
    *out = d;
    return NULL;
}

static void model_free(void *arg)
{
    struct xgb_model *m = arg;
    m->xgb->XGBoosterFree(m->handle);
}

err xgb_model_new(struct xgb *x, struct arena *a, struct xgb_data *const *data, size_t n,
                  struct xgb_model **out)
{
    struct xgb_model *m = NEW(a, struct xgb_model);
    void **handles = NEW_N(a, void *, n + 1);
    for (size_t i = 0; i < n; i++)
        handles[i] = data[i]->handle;
    CALL(x, INTERNAL, "make a model", XGBoosterCreate, handles, n, &m->handle);
    m->xgb = x;
    arena_defer(a, model_free, m);
    *out = m;
    return NULL;
}

err xgb_model_set(struct xgb_model *m, const char *name, const char *value)
{
    CALL(m->xgb, INVALID, name, XGBoosterSetParam, m->handle, name, value);
    return NULL;
}

err xgb_model_round(struct xgb_model *m, int round, struct xgb_data *data)
{
    CALL(m->xgb, INVALID, "train a round", XGBoosterUpdateOneIter, m->handle, round, data->handle);
    return NULL;
}

err xgb_model_predict(struct xgb_model *m, struct xgb_data *data, size_t width, const float **out)
{
    const bst_ulong *shape;
    bst_ulong dim = 0, n = 0;
    const char *config =
        "{\"type\":0,\"training\":false,\"iteration_begin\":0,\"iteration_end\":0,\"strict_shape\":false}";
    CALL(m->xgb, INVALID, "predict", XGBoosterPredictFromDMatrix, m->handle, data->handle, config, &shape,
         &dim, out);
    CALL(m->xgb, INTERNAL, "count rows", XGDMatrixNumRow, data->handle, &n);
    if (dim < 1 || dim > 2 || shape[0] != n || (dim > 1 ? shape[1] : 1) != width)
        FAIL(UNSUPPORTED, "the XGBoost model gives other than %zu numbers a row", width);
    return NULL;
}

static err booster_save(struct xgb *x, void *handle, struct arena *a, struct str *json)
{
    bst_ulong n = 0;
    const char *p = NULL;
    CALL(x, INTERNAL, "save the model", XGBoosterSaveModelToBuffer, handle, "{\"format\":\"json\"}", &n, &p);
    *json = str_dup(a, (struct str){ p, (size_t)n });
    return NULL;
}

err xgb_model_save(struct xgb_model *m, struct arena *a, int from, int to, struct str *json)
{
    if (to == 0)
        return booster_save(m->xgb, m->handle, a, json);
    void *part;
    CALL(m->xgb, INTERNAL, "cut the model", XGBoosterSlice, m->handle, from, to, 1, &part);
    err e = booster_save(m->xgb, part, a, json);
    m->xgb->XGBoosterFree(part);
    return e;
}

err xgb_model_load(struct xgb *x, struct arena *a, struct str bytes, struct xgb_model **out)
{
    struct xgb_model *m;
    TRY(xgb_model_new(x, a, NULL, 0, &m));
    CALL(x, INVALID, "read the model", XGBoosterLoadModelFromBuffer, m->handle, bytes.p, bytes.n);
    *out = m;
    return NULL;
}

/* ---- its JSON → trees ---- */

/* One tree as XGBoost keeps it: lists of the same length, one entry a node. */
struct lists {
    double *left, *right, *feature, *value, *missing, *kind;
    size_t n;
};

static double number(yyjson_val *v)
{
    return yyjson_is_bool(v) ? (double)yyjson_get_bool(v) : yyjson_is_num(v) ? yyjson_get_num(v) : NAN;
}

static err list_read(struct arena *a, yyjson_val *tree, const char *key, size_t n, double **out)
{
    yyjson_val *list = yyjson_obj_get(tree, key), *v;
    yyjson_arr_iter it;
    if (!yyjson_is_arr(list) || yyjson_arr_size(list) != n || !yyjson_arr_iter_init(list, &it))
        FAIL(INVALID, "%s is not a list of %zu numbers", key, n);
    double *to = *out = NEW_N(a, double, n);
    while ((v = yyjson_arr_iter_next(&it))) {
        *to = number(v);
        if (!isfinite(*to++))
            FAIL(INVALID, "%s holds something else than numbers", key);
    }
    return NULL;
}

static err lists_read(struct arena *a, yyjson_val *tree, struct lists *out)
{
    size_t n = out->n = yyjson_arr_size(yyjson_obj_get(tree, "left_children"));
    if (n == 0 || n > INT32_MAX)
        FAIL(INVALID, "it has no nodes");
    TRY(list_read(a, tree, "left_children", n, &out->left));
    TRY(list_read(a, tree, "right_children", n, &out->right));
    TRY(list_read(a, tree, "split_indices", n, &out->feature));
    TRY(list_read(a, tree, "split_conditions", n, &out->value));
    TRY(list_read(a, tree, "default_left", n, &out->missing));
    if (!yyjson_obj_get(tree, "split_type"))
        return NULL;
    TRY(list_read(a, tree, "split_type", n, &out->kind));
    for (size_t i = 0; i < n; i++)
        if (out->kind[i] != 0)
            FAIL(UNSUPPORTED, "it has a categorical split");
    return NULL;
}

/* Trees while they are gathered. */
struct grove {
    struct arena *a;
    VEC(struct tree_node) nodes;
    VEC(uint32_t) roots;
};

struct visit {
    uint32_t node;  /* in XGBoost's numbering */
    uint32_t above; /* the parent's place; UINT32_MAX: none */
    bool no;        /* it is the parent's no side */
};

static err place_ok(double v, size_t n)
{
    if (!(v >= 0 && v < (double)n && v == floor(v)))
        FAIL(INVALID, "a child is out of range");
    return NULL;
}

/* Nodes in preorder: every node lies behind its parent; what XGBoost pruned is left out. */
static err tree_add(struct grove *g, struct arena *scratch, const struct lists *l)
{
    struct {
        VEC(struct visit) stack;
    } todo = { 0 };
    size_t start = g->nodes.n;
    push(g->a, &g->roots, (uint32_t)start);
    push(scratch, &todo.stack, (struct visit){ .node = 0, .above = UINT32_MAX });
    while (todo.stack.n > 0) {
        struct visit v = todo.stack.v[--todo.stack.n];
        uint32_t place = (uint32_t)g->nodes.n;
        if (place - start == l->n || g->nodes.n >= INT32_MAX)
            FAIL(INVALID, "a node is reached twice");
        bool leaf = l->left[v.node] < 0;
        push(g->a, &g->nodes,
             (struct tree_node){ .feature = leaf ? -1 : (int32_t)fmin(l->feature[v.node], INT32_MAX),
                                 .value = (float)l->value[v.node],
                                 .missing_yes = l->missing[v.node] != 0 });
        if (v.above != UINT32_MAX)
            *(v.no ? &g->nodes.v[v.above].no : &g->nodes.v[v.above].yes) = place;
        if (leaf)
            continue;
        TRY(place_ok(l->left[v.node], l->n));
        TRY(place_ok(l->right[v.node], l->n));
        push(scratch, &todo.stack,
             (struct visit){ .node = (uint32_t)l->right[v.node], .above = place, .no = true });
        push(scratch, &todo.stack, (struct visit){ .node = (uint32_t)l->left[v.node], .above = place });
    }
    return NULL;
}

static err trees_read(struct grove *g, yyjson_val *list)
{
    yyjson_val *tree;
    yyjson_arr_iter it;
    if (!yyjson_is_arr(list) || !yyjson_arr_iter_init(list, &it))
        FAIL(INVALID, "it has no trees");
    auto_arena struct arena *scratch = arena_new(0);
    while ((tree = yyjson_arr_iter_next(&it))) {
        struct lists l = { 0 };
        arena_reset(scratch);
        TRY_AS(lists_read(scratch, tree, &l), "tree %zu", g->roots.n);
        TRY_AS(tree_add(g, scratch, &l), "tree %zu", g->roots.n);
    }
    return NULL;
}

/* "5E-1"; from version 3 on "[5E-1]", and as many as there are classes, which are the same where one was given. */
static bool param_number(yyjson_val *params, const char *key, double *out)
{
    struct str s = json_text(yyjson_obj_get(params, key)), part;
    double first = NAN;
    if (str_starts(s, S("[")) && str_ends(s, S("]")))
        s = str_sub(s, 1, s.n - 1);
    if (!str_cut(&s, ',', &part) || !str_f64(part, &first))
        return false;
    while (str_cut(&s, ',', &part))
        if (!str_f64(part, out) || *out != first)
            return false;
    *out = first;
    return true;
}

static const struct objective {
    const char *name;
    enum trees_link link;
} objectives[] = {
    { "binary:logistic", LINK_LOGISTIC },  { "multi:softprob", LINK_SOFTMAX },
    { "reg:squarederror", LINK_NONE },     { "reg:absoluteerror", LINK_NONE },
    { "reg:pseudohubererror", LINK_NONE }, { "rank:pairwise", LINK_NONE },
};

static err objective_read(struct str name, const struct objective **out)
{
    auto_arena struct arena *a = arena_new(0);
    struct buf known = buf_new(a);
    for (size_t i = 0; i < sizeof objectives / sizeof *objectives; i++) {
        *out = &objectives[i];
        if (str_eq(name, str_of(objectives[i].name)))
            return NULL;
        buf_fmt(&known, "%s%s", i ? ", " : "", objectives[i].name);
    }
    FAIL(UNSUPPORTED, "its objective '%.*s' is none of %.*s", STR(name), STR(buf_get(&known)));
}

static err head_read(yyjson_val *learner, struct trees *out)
{
    yyjson_val *params = yyjson_obj_get(learner, "learner_model_param");
    const struct objective *objective;
    double base, features, classes;
    if (!param_number(params, "base_score", &base) || !param_number(params, "num_feature", &features) ||
        !param_number(params, "num_class", &classes) || !(features >= 1 && features <= INT32_MAX))
        FAIL(INVALID, "it says no base_score or num_feature");
    TRY(objective_read(json_text(yyjson_obj_get(yyjson_obj_get(learner, "objective"), "name")), &objective));
    if (objective->link == LINK_SOFTMAX ? !(classes >= 2 && classes <= XGB_CLASSES_MAX) : classes > 1)
        FAIL(UNSUPPORTED, "it has %g classes", classes);
    out->features = (size_t)features;
    out->link = objective->link;
    out->outputs = objective->link == LINK_SOFTMAX ? (size_t)classes : 1;
    out->base = (float)base;
    if (objective->link != LINK_LOGISTIC)
        return NULL;
    if (!(base > 0 && base < 1))
        FAIL(INVALID, "its base_score %g is no probability", base);
    out->base = -logf(1.0f / (float)base - 1.0f); /* as XGBoost computes it */
    return NULL;
}

/* Which number of a row each tree adds to: they take turns. One number a row needs no saying. */
static err turns_check(yyjson_val *list, const struct trees *t)
{
    yyjson_val *v;
    size_t i, n;
    if (t->outputs == 1)
        return NULL;
    if (yyjson_arr_size(list) != t->n_trees || t->n_trees % t->outputs)
        FAIL(INVALID, "it does not say which class each of its %zu trees is of", t->n_trees);
    yyjson_arr_foreach (list, i, n, v)
        if (!yyjson_is_int(v) || yyjson_get_sint(v) != (int64_t)(i % t->outputs))
            FAIL(UNSUPPORTED, "tree %zu is of another class than its turn", i);
    return NULL;
}

static err model_read(struct arena *a, yyjson_val *root, struct trees *out)
{
    yyjson_val *learner = yyjson_obj_get(root, "learner"),
               *booster = yyjson_obj_get(learner, "gradient_booster");
    struct grove g = { .a = a };
    if (!str_is(json_text(yyjson_obj_get(booster, "name")), "gbtree"))
        FAIL(UNSUPPORTED, "its booster is not gbtree");
    *out = (struct trees){ 0 };
    TRY(head_read(learner, out));
    TRY(trees_read(&g, yyjson_obj_get(yyjson_obj_get(booster, "model"), "trees")));
    out->nodes = g.nodes.v;
    out->n_nodes = g.nodes.n;
    out->roots = g.roots.v;
    out->n_trees = g.roots.n;
    TRY(turns_check(yyjson_obj_get(yyjson_obj_get(booster, "model"), "tree_info"), out));
    return trees_check(out);
}

static void doc_free(yyjson_doc **doc)
{
    yyjson_doc_free(*doc);
}

err xgb_trees(struct arena *a, struct str json, struct trees *out)
{
    __attribute__((cleanup(doc_free))) yyjson_doc *doc = yyjson_read(json.p, json.n, 0);
    if (!doc)
        FAIL(INVALID, "the XGBoost model is not JSON");
    TRY_AS(model_read(a, yyjson_doc_get_root(doc), out), "the XGBoost model");
    return NULL;
}
