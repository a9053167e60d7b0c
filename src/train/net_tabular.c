// SPDX-License-Identifier: Apache-2.0
/* Networks over tables: dense layers, residual blocks, an autoencoder. */
#include "train/net.h"

enum { WIDTH_MAX = 65536 };

static int layer(struct net *n, const char *name, int x, int64_t width, enum layer_norm norm,
                 enum activation act)
{
    x = net_dense(n, name, x, width, -1);
    x = net_norm(n, norm, net_name(n, "%s.norm", name), x);
    return net_activate(n, act, x);
}

static bool widths(struct net *n, struct str json, const char *what, int64_t **v, size_t *count)
{
    err e = spec_sizes(n->g->a, json, what, WIDTH_MAX, v, count);
    net_fail(n, e);
    return !e;
}

int net_mlp(struct net *n, const void *with)
{
    const struct mlp_with *w = with;
    int64_t *v;
    size_t count;
    int x = net_table(n, w->embedding);
    if (!widths(n, w->hidden, "model.mlp.hidden", &v, &count))
        return -1;
    for (size_t i = 0; i < count; i++) {
        x = layer(n, net_name(n, "layer%zu", i + 1), x, v[i], w->norm, w->activation);
        x = net_dropout(n, w->dropout, x);
    }
    return x;
}

/* Gorishniy et al. 2021: x + dense(dropout(relu(dense(batch norm x)))), then batch norm and relu at the end. */
int net_tabular_resnet(struct net *n, const void *with)
{
    const struct tabular_resnet_with *w = with;
    int x = net_dense(n, "stem", net_table(n, w->embedding), w->width, -1);
    int64_t inside = (int64_t)((double)w->width * w->hidden + 0.5);
    for (int64_t i = 1; i <= w->blocks; i++) {
        int y = net_batch_norm(n, net_name(n, "block%lld.norm", (long long)i), x);
        y = NN(n, "Relu",
               net_dense(n, net_name(n, "block%lld.up", (long long)i), y, inside < 1 ? 1 : inside, -1));
        y = net_dropout(n, w->dropout, y);
        y = net_dense(n, net_name(n, "block%lld.down", (long long)i), y, w->width, -1);
        x = NN(n, "Add", x, net_dropout(n, w->dropout, y));
    }
    return NN(n, "Relu", net_batch_norm(n, "norm", x));
}

int net_autoencoder(struct net *n, const void *with)
{
    const struct autoencoder_with *w = with;
    int64_t *v;
    size_t count;
    int x = net_table(n, 0);
    int64_t columns = net_last(n, x);
    if (!widths(n, w->hidden, "model.autoencoder.hidden", &v, &count))
        return -1;
    for (size_t i = 0; i < count; i++)
        x = layer(n, net_name(n, "encoder%zu", i + 1), x, v[i], LAYER_NORM_NONE, w->activation);
    x = net_dense(n, "latent", x, w->latent, -1);
    for (size_t i = count; i-- > 0;)
        x = layer(n, net_name(n, "decoder%zu", count - i), x, v[i], LAYER_NORM_NONE, w->activation);
    return net_dense(n, "output", x, columns, -1);
}
