// SPDX-License-Identifier: Apache-2.0
#include "train/forest.h"

#include <math.h>

enum { AT_ONCE = 8 };

/* ---- walking ---- */

static inline uint32_t step_on(const struct forest_step *steps, const float *x, uint32_t at)
{
    const struct forest_step *s = &steps[at];
    float v = x[s->feature >> 1];
    uint32_t yes = (uint32_t)(v < s->value) | ((uint32_t)(v != v) & s->feature & 1);
    return s->first + 1 - yes;
}

/* n walks side by side, that of i from at[i] on over the row x + i × stride; at: where each ends. */
static inline __attribute__((always_inline)) void walk(const struct forest *f, uint32_t depth, const float *x,
                                                       size_t stride, size_t n, uint32_t *at)
{
    for (; depth > 0; depth--)
#pragma GCC unroll 8
        for (size_t i = 0; i < n; i++)
            at[i] = step_on(f->steps, x + i * stride, at[i]);
}

/* A row's ends in n trees from t on. */
static inline __attribute__((always_inline)) void walk_trees(const struct forest *f, const float *x, size_t t,
                                                             size_t n, uint32_t *at)
{
    uint32_t depth = 0;
    for (size_t i = 0; i < n; i++) {
        at[i] = f->roots[t + i];
        depth = f->depths[t + i] > depth ? f->depths[t + i] : depth;
    }
    walk(f, depth, x, 0, n, at);
}

/* The ends of n rows in tree t. */
static inline __attribute__((always_inline)) void walk_rows(const struct forest *f, const float *x, size_t t,
                                                            size_t n, uint32_t *at)
{
    for (size_t i = 0; i < n; i++)
        at[i] = f->roots[t];
    walk(f, f->depths[t], x, f->features, n, at);
}

/* ---- sums ---- */

static float sum_one(const struct forest *f, const float *x)
{
    uint32_t at[AT_ONCE];
    float sum = f->base;
    size_t t = 0;
    for (; t + AT_ONCE <= f->trees; t += AT_ONCE) {
        walk_trees(f, x, t, AT_ONCE, at);
        for (int i = 0; i < AT_ONCE; i++)
            sum += f->steps[at[i]].leaf;
    }
    for (; t < f->trees; t++) {
        walk_trees(f, x, t, 1, at);
        sum += f->steps[*at].leaf;
    }
    return sum;
}

/* Trees take turns at a row's numbers. */
static void sum_many(const struct forest *f, const float *x, float *out)
{
    uint32_t at[AT_ONCE];
    for (size_t i = 0; i < f->outputs; i++)
        out[i] = f->base;
    for (size_t t = 0, turn = 0, n; t < f->trees; t += n) {
        n = f->trees - t < AT_ONCE ? 1 : AT_ONCE;
        if (n == 1)
            walk_trees(f, x, t, 1, at);
        else
            walk_trees(f, x, t, AT_ONCE, at);
        for (size_t i = 0; i < n; i++, turn = turn + 1 < f->outputs ? turn + 1 : 0)
            out[turn] += f->steps[at[i]].leaf;
    }
}

void forest_predict(const struct forest *f, const float *x, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++)
        if (f->outputs == 1)
            out[i] = sum_one(f, x + i * f->features);
        else
            sum_many(f, x + i * f->features, out + i * f->outputs);
    forest_link(f, out, n, out);
}

void forest_add(const struct forest *f, const float *x, size_t n, float *sums)
{
    uint32_t at[AT_ONCE];
    for (size_t row = 0, now; row < n; row += now) {
        now = n - row < AT_ONCE ? 1 : AT_ONCE;
        for (size_t t = 0; t < f->trees; t++) {
            if (now == 1)
                walk_rows(f, x + row * f->features, t, 1, at);
            else
                walk_rows(f, x + row * f->features, t, AT_ONCE, at);
            for (size_t i = 0; i < now; i++)
                sums[(row + i) * f->outputs + t % f->outputs] += f->steps[at[i]].leaf;
        }
    }
}

void forest_link(const struct forest *f, const float *sums, size_t n, float *out)
{
    if (out != sums)
        memcpy(out, sums, n * f->outputs * sizeof *out);
    for (size_t i = 0; i < n && f->link == LINK_LOGISTIC; i++)
        out[i] = 1.0f / (1.0f + expf(-out[i]));
    for (size_t i = 0; i < n && f->link == LINK_SOFTMAX; i++)
        trees_softmax(out + i * f->outputs, f->outputs);
}

/* ---- trees → steps ---- */

/* Where each node of the trees went, and how deep it lies. */
struct place {
    uint32_t at, depth;
};

/* One tree, whose nodes are [from, to) and lie behind their parents. Returns its depth. */
static uint32_t tree_place(const struct trees *t, size_t from, size_t to, struct forest_step *steps,
                           uint32_t *used, struct place *places)
{
    uint32_t deepest = 0;
    for (size_t i = from; i < to; i++) {
        const struct tree_node *n = &t->nodes[i];
        struct place p = places[i];
        struct forest_step *s = &steps[p.at];
        if (n->feature < 0) {
            *s = (struct forest_step){ .value = NAN, .first = p.at - 1, .leaf = n->value };
            deepest = p.depth > deepest ? p.depth : deepest;
            continue;
        }
        *s = (struct forest_step){ n->value, (uint32_t)n->feature << 1 | n->missing_yes, *used, 0 };
        places[n->yes] = (struct place){ *used, p.depth + 1 };
        places[n->no] = (struct place){ *used + 1, p.depth + 1 };
        *used += 2;
    }
    return deepest;
}

void forest_make(struct arena *a, const struct trees *t, struct forest *out)
{
    auto_arena struct arena *scratch = arena_new(0);
    struct place *places = NEW_N(scratch, struct place, t->n_nodes);
    struct forest_step *steps = NEW_N(a, struct forest_step, t->n_nodes + 1);
    uint32_t *roots = NEW_N(a, uint32_t, t->n_trees + 1), *depths = NEW_N(a, uint32_t, t->n_trees + 1);
    uint32_t used = 1; /* place 0 is free, so that a leaf at 1 has one before it */
    for (size_t i = 0; i < t->n_trees; i++) {
        size_t from = t->roots[i], to = i + 1 < t->n_trees ? t->roots[i + 1] : t->n_nodes;
        roots[i] = places[from].at = used++;
        depths[i] = tree_place(t, from, to, steps, &used, places);
    }
    *out = (struct forest){ .steps = steps,
                            .roots = roots,
                            .depths = depths,
                            .trees = t->n_trees,
                            .features = t->features,
                            .outputs = trees_outputs(t),
                            .base = t->base,
                            .link = t->link };
}

uint32_t forest_depth(const struct forest *f)
{
    uint32_t most = 0;
    for (size_t i = 0; i < f->trees; i++)
        most = f->depths[i] > most ? f->depths[i] : most;
    return most;
}
