// SPDX-License-Identifier: Apache-2.0
/* Networks over images, [batch, channels, height, width]. */
#include "train/net.h"

static int pool_max(struct net *n, int x)
{
    const struct attr attrs[] = { { "kernel_shape", ATTR_INTS, .is = (const int64_t[]){ 2, 2 }, .n = 2 },
                                  { "strides", ATTR_INTS, .is = (const int64_t[]){ 2, 2 }, .n = 2 },
                                  { 0 } };
    return NN_WITH(n, "MaxPool", attrs, x);
}

static int pool_all(struct net *n, int x)
{
    return NN_WITH(n, "Flatten", ATTRS({ "axis", ATTR_INT, .i = 1 }), NN(n, "GlobalAveragePool", x));
}

static int conv_norm(struct net *n, const char *name, int x, int64_t channels, int64_t kernel, int64_t stride,
                     int64_t groups)
{
    x = net_conv(n, name, x, channels, kernel, stride, groups, false);
    return net_batch_norm(n, net_name(n, "%s.norm", name), x);
}

int net_cnn(struct net *n, const void *with)
{
    const struct cnn_with *w = with;
    int64_t *channels;
    size_t stages;
    int x = net_image(n);
    err e = spec_sizes(n->g->a, w->channels, "model.cnn.channels", 65536, &channels, &stages);
    if (!e && w->kernel % 2 == 0)
        e = err_new(INVALID, "model.cnn.kernel is even: %lld", (long long)w->kernel);
    if (!e && w->norm == LAYER_NORM_LAYER)
        e = err_new(INVALID, "model.cnn.norm is batch or none");
    net_fail(n, e);
    for (size_t s = 0; !e && s < stages; s++) {
        for (int64_t k = 0; k < w->layers; k++) {
            const char *name = net_name(n, "stage%zu.conv%lld", s + 1, (long long)k + 1);
            if (w->norm == LAYER_NORM_BATCH)
                x = conv_norm(n, name, x, channels[s], w->kernel, 1, 1);
            else
                x = net_conv(n, name, x, channels[s], w->kernel, 1, 1, true);
            x = NN(n, "Relu", x);
        }
        bool small = x >= 0 && (value_at(n->g, x)->shape.d[2] < 4 || value_at(n->g, x)->shape.d[3] < 4);
        x = small || s + 1 == stages ? x : pool_max(n, x);
    }
    x = pool_all(n, x);
    if (w->dense > 0)
        x = NN(n, "Relu", net_dense(n, "dense", x, w->dense, -1));
    return net_dropout(n, w->dropout, x);
}

/* He et al. 2016: two 3×3 convolutions, and a 1×1 one beside them where the shape changes. */
static int basic_block(struct net *n, const char *name, int x, int64_t channels, int64_t stride)
{
    int y = NN(n, "Relu", conv_norm(n, net_name(n, "%s.conv1", name), x, channels, 3, stride, 1));
    y = conv_norm(n, net_name(n, "%s.conv2", name), y, channels, 3, 1, 1);
    if (stride != 1 || (x >= 0 && value_at(n->g, x)->shape.d[1] != channels))
        x = conv_norm(n, net_name(n, "%s.shortcut", name), x, channels, 1, stride, 1);
    return NN(n, "Relu", NN(n, "Add", y, x));
}

static int stem_large(struct net *n, int x, int64_t width)
{
    const struct attr pool[] = { { "kernel_shape", ATTR_INTS, .is = (const int64_t[]){ 3, 3 }, .n = 2 },
                                 { "strides", ATTR_INTS, .is = (const int64_t[]){ 2, 2 }, .n = 2 },
                                 { "pads", ATTR_INTS, .is = (const int64_t[]){ 1, 1, 1, 1 }, .n = 4 },
                                 { 0 } };
    x = NN(n, "Relu", conv_norm(n, "stem", x, width, 7, 2, 1));
    return NN_WITH(n, "MaxPool", pool, x);
}

int net_resnet(struct net *n, const void *with)
{
    const struct resnet_with *w = with;
    static const int64_t of_18[] = { 2, 2, 2, 2 }, of_34[] = { 3, 4, 6, 3 };
    bool large = w->depth == 18 || w->depth == 34;
    int64_t each = (w->depth - 2) / 6, small[] = { each, each, each }, stages = large ? 4 : 3;
    const int64_t *blocks = w->depth == 18 ? of_18 : w->depth == 34 ? of_34 : small;
    int64_t width = w->width > 0 ? w->width : large ? 64 : 16;
    if (!large && (w->depth - 2) % 6) {
        net_fail(n,
                 err_new(INVALID, "model.resnet.depth is 6n + 2, 18 or 34, not %lld", (long long)w->depth));
        return -1;
    }
    int x = net_image(n);
    x = large ? stem_large(n, x, width) : NN(n, "Relu", conv_norm(n, "stem", x, width, 3, 1, 1));
    for (int64_t s = 0; s < stages; s++)
        for (int64_t b = 0; b < blocks[s]; b++)
            x = basic_block(n, net_name(n, "stage%lld.block%lld", (long long)s + 1, (long long)b + 1), x,
                            width << s, s > 0 && b == 0 ? 2 : 1);
    return pool_all(n, x);
}

/* Sandler et al. 2018: 1×1 up, 3×3 depthwise, 1×1 down without an activation. */
static int inverted(struct net *n, const char *name, int x, int64_t channels, int64_t stride, int64_t expand)
{
    int64_t in = x >= 0 ? value_at(n->g, x)->shape.d[1] : 1;
    int zero = graph_f32(n->g, 0), six = graph_f32(n->g, 6), y = x;
    if (expand != 1)
        y = NN(n, "Clip", conv_norm(n, net_name(n, "%s.up", name), y, in * expand, 1, 1, 1), zero, six);
    y = NN(n, "Clip", conv_norm(n, net_name(n, "%s.depthwise", name), y, in * expand, 3, stride, in * expand),
           zero, six);
    y = conv_norm(n, net_name(n, "%s.down", name), y, channels, 1, 1, 1);
    return stride == 1 && in == channels ? NN(n, "Add", x, y) : y;
}

static int64_t scaled(double channels, double by)
{
    int64_t v = (int64_t)(channels * by / 8 + 0.5) * 8;
    return v < 8 ? 8 : v;
}

int net_mobilenet(struct net *n, const void *with)
{
    const struct mobilenet_with *w = with;
    static const struct {
        int64_t expand, channels, blocks, stride;
    } rows[] = { { 1, 16, 1, 1 }, { 6, 24, 2, 2 },  { 6, 32, 3, 2 }, { 6, 64, 4, 2 },
                 { 6, 96, 3, 1 }, { 6, 160, 3, 2 }, { 6, 320, 1, 1 } };
    int zero, six, x = net_image(n);
    x = conv_norm(n, "stem", x, scaled(32, w->width), 3, w->small ? 1 : 2, 1);
    zero = graph_f32(n->g, 0), six = graph_f32(n->g, 6);
    x = NN(n, "Clip", x, zero, six);
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
        for (int64_t b = 0; b < rows[r].blocks; b++) {
            int64_t stride = b > 0 || (w->small && r < 2) ? 1 : rows[r].stride;
            x = inverted(n, net_name(n, "stage%zu.block%lld", r + 1, (long long)b + 1), x,
                         scaled((double)rows[r].channels, w->width), stride, rows[r].expand);
        }
    x = NN(n, "Clip", conv_norm(n, "top", x, scaled(1280, w->width > 1 ? w->width : 1), 1, 1, 1), zero, six);
    return net_dropout(n, w->dropout, pool_all(n, x));
}
