// SPDX-License-Identifier: Apache-2.0
/* A given model that takes texts: its exported form keeps them and the LabelEncoder that knows them. What learns and what is looked at
 * takes the loader's ids in their place; a table leads from these, by the text that both stand for, to the model's own. */
#include "data/data.h"
#include "train/net.h"

/* The column of an input of texts that value x is, and which input; −1: something else was done to it. */
static int64_t column_of(const struct net *n, int x, size_t *input)
{
    const struct graph *g = n->g;
    const struct node *made = value_at(g, x)->node >= 0 ? &g->nodes.v[value_at(g, x)->node] : NULL;
    int from = made && made->op->id == OP_Gather && attr_i(made, "axis", 0) == 1 ? made->in[0] : x;
    for (*input = 0; *input < n->n_inputs && n->x[*input] != from; ++*input)
        ;
    if (*input == n->n_inputs)
        return -1;
    const struct net_tensor *t = &n->inputs[*input];
    const int64_t columns = t->rank > 0 ? t->shape[0] : 1;
    if (from == x)
        return columns == 1 ? 0 : -1;
    auto_arena struct arena *a = arena_new(0);
    const int64_t *at;
    size_t count;
    if (!value_i64s(g, a, made->in[1], &at, &count) || count != 1 || at[0] < -columns || at[0] >= columns)
        return -1;
    return at[0] < 0 ? at[0] + columns : at[0];
}

/* The model's id of each of the loader's: of what it does not know, of what is missing, of its texts. */
static int table_make(struct net *n, const struct node *encoder, const struct strs *vocabulary)
{
    auto_arena struct arena *a = arena_new(0);
    const struct attr *keys = attr_find(encoder, "keys_strings"),
                      *values = attr_find(encoder, "values_int64s");
    const int64_t other = attr_i(encoder, "default_int64", -1);
    int64_t *table = NEW_N(a, int64_t, vocabulary->n + 2);
    size_t *first = NEW_N(a, size_t, keys->n + 1);
    struct dict known = { .a = a };
    for (size_t i = keys->n; i-- > 0;) /* of equal keys the first counts */
        first[dict_code(&known, keys->ss[i])] = i;
    table[0] = other;
    for (size_t i = 0; i <= vocabulary->n; i++) {
        uint32_t code;
        bool there = dict_find(&known, i ? vocabulary->v[i - 1] : S(""), &code);
        table[i + 1] = there ? values->is[first[code]] : other;
    }
    return graph_const(n->g, TENSOR_I64, SHAPE((int64_t)vocabulary->n + 2), table);
}

static err encoder_replace(struct net *n, int at)
{
    struct node *node = &n->g->nodes.v[at];
    size_t input;
    int64_t column = column_of(n, node->in[0], &input);
    if (column < 0)
        FAIL(UNSUPPORTED, "LabelEncoder '%.*s' does not take one column of an input", STR(node->name));
    int table = table_make(n, node, &n->inputs[input].vocabulary[column]);
    TRY(graph_error(n->g));
    int *in = NEW_N(n->g->a, int, 2);
    in[0] = table, in[1] = node->in[0];
    node = &n->g->nodes.v[at];
    *node = (struct node){ .op = &op_table[OP_Gather],
                           .name = node->name,
                           .in = in,
                           .out = node->out,
                           .n_in = 2,
                           .n_out = node->n_out,
                           .ordinal = node->ordinal };
    return NULL;
}

err net_texts_take(struct net *n)
{
    struct graph *g = n->g;
    n->texts = NEW_N(g->a, bool, n->n_inputs + 1);
    for (size_t i = 0; i < n->n_inputs; i++) {
        const struct value *v = value_at(g, n->x[i]);
        n->texts[i] = v->type == TENSOR_TEXT;
        if (n->texts[i] && n->inputs[i].kind != NET_CATEGORIES)
            return err_hint(err_new(INVALID, "input '%.*s' of the model takes texts", STR(v->name)),
                            "inputs: [{name: %.*s, kind: categories, columns: [...]}]", STR(v->name));
        if (!n->texts[i] && n->inputs[i].kind == NET_CATEGORIES && v->type != TENSOR_I64)
            return err_hint(err_new(INVALID, "input '%.*s' of the model takes numbers", STR(v->name)),
                            "a category that is a number is one of its columns, of kind numbers");
    }
    if (n->mode == NET_EXPORT)
        return NULL;
    for (size_t i = 0; i < g->values.n; i++)
        if (g->values.v[i].type == TENSOR_TEXT)
            g->values.v[i].type = TENSOR_I64;
    for (size_t i = 0; i < g->nodes.n; i++)
        if (g->nodes.v[i].op == &op_label_encoder)
            TRY(encoder_replace(n, (int)i));
    return NULL;
}
