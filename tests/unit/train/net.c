// SPDX-License-Identifier: Apache-2.0
#define SUITE net
#include "test.h"
#include "train/net.h"

static struct arena *a;
static void before(void)
{
    a = arena_new(0);
}
static void after(void)
{
    arena_free(a);
}
TestSuite(net, .init = before, .fini = after);

static const int64_t sizes[] = { 10, 100 };
static struct net_tensor
    table = { .name = S_INIT("features"), .kind = NET_NUMBERS, .rank = 1, .shape = { 30 } },
    image = { .name = S_INIT("image"), .kind = NET_ARRAY, .rank = 3, .shape = { 3, 32, 32 } },
    large = { .name = S_INIT("image"), .kind = NET_ARRAY, .rank = 3, .shape = { 3, 224, 224 } },
    series = { .name = S_INIT("series"), .kind = NET_ARRAY, .rank = 2, .shape = { 64, 16 } },
    tokens = { .name = S_INIT("tokens"), .kind = NET_IDS, .rank = 1, .shape = { 1024 }, .ids = 50257 };

/* The graph of model: {…} in YAML's JSON, with so many outputs. */
static err build(const char *model, const struct net_tensor *in, size_t n, enum task task, int64_t outputs,
                 enum net_mode mode, struct net *out)
{
    yyjson_val *v;
    const struct field *chosen;
    struct train_model *m = NEW(a, struct train_model);
    struct net_task *t = NEW(a, struct net_task);
    TRY(json_parse(a, str_of(model), &v));
    TRY(schema_read(&train_model_schema, a, S("model"), v, 0, m));
    TRY(train_model_chosen(a, v, &chosen));
    *t = (struct net_task){ .kind = task,
                            .outputs = outputs,
                            .binary = task == TASK_CLASSIFICATION && outputs == 1 };
    return net_build(a, m, chosen, in, n, t, mode, out);
}

static int64_t parameters(const struct graph *g)
{
    int64_t n = 0;
    for (size_t i = 0; i < g->values.n; i++)
        if (g->values.v[i].kind == VALUE_PARAM)
            n += shape_count(&g->values.v[i].shape);
    return n;
}

static int64_t count(const char *model, const struct net_tensor *in, enum task task, int64_t outputs)
{
    struct net n;
    CHECK_OK(build(model, in, 1, task, outputs, NET_EVAL, &n));
    return parameters(n.g);
}

/* Numbers of the papers and of torchvision, or sums that anybody can make. */
TEST(families_have_as_many_parameters_as_they_should)
{
    CHECK(count("{\"mlp\":{\"hidden\":[256,128]}}", &table, TASK_CLASSIFICATION, 1) ==
          30 * 256 + 256 + 256 * 128 + 128 + 128 + 1);
    CHECK(count("{\"resnet\":{\"depth\":20}}", &image, TASK_CLASSIFICATION, 10) == 272474);
    CHECK(count("{\"resnet\":{\"depth\":18}}", &large, TASK_CLASSIFICATION, 1000) == 11689512);
    CHECK(count("{\"resnet\":{\"depth\":34}}", &large, TASK_CLASSIFICATION, 1000) == 21797672);
    CHECK(count("{\"mobilenet\":{\"small\":false}}", &large, TASK_CLASSIFICATION, 1000) == 3504872);
    CHECK(count("{\"gpt\":{\"layers\":12,\"width\":768,\"heads\":12}}", &tokens, TASK_LANGUAGE, 50257) ==
          124439808);
}

TEST(recurrent_ones_too)
{
    if (!op_find(S(""), S("LSTM")))
        return;
    int64_t lstm = 4 * 128 * (16 + 128) + 8 * 128, second = 4 * 128 * (128 + 128) + 8 * 128;
    CHECK(count("{\"lstm\":{\"width\":128,\"layers\":2}}", &series, TASK_CLASSIFICATION, 5) ==
          lstm + second + 128 * 5 + 5);
    CHECK(count("{\"lstm\":{\"cell\":\"gru\",\"width\":128}}", &series, TASK_CLASSIFICATION, 5) ==
          3 * 128 * (16 + 128) + 6 * 128 + 128 * 5 + 5);
}

TEST(categories_are_embedded)
{
    struct net n;
    struct net_tensor in[] = {
        table, { .name = S_INIT("codes"), .kind = NET_CATEGORIES, .rank = 1, .shape = { 2 }, .sizes = sizes }
    };
    CHECK_OK(build("{\"mlp\":{\"hidden\":[8]}}", in, 2, TASK_REGRESSION, 1, NET_TRAIN, &n));
    int64_t w10 = 6, w100 = 21; /* 1.6 n^0.56 */
    CHECK(parameters(n.g) == 10 * w10 + 100 * w100 + (30 + w10 + w100) * 8 + 8 + 8 + 1);
    CHECK(n.loss >= 0 && n.g->inputs.n == 3);
}

/* Rows are open in all of them, and the three purposes have the same parameters. */
TEST(outputs_keep_the_batch_open)
{
    struct net n[3];
    for (int mode = 0; mode < 3; mode++)
        CHECK_OK(build("{\"tabular-resnet\":{\"blocks\":1}}", &table, 1, TASK_CLASSIFICATION, 4,
                       (enum net_mode)mode, &n[mode]));
    CHECK(parameters(n[0].g) == parameters(n[1].g) && parameters(n[0].g) == parameters(n[2].g));
    const struct value *y = value_at(n[2].g, n[2].g->outputs.v[0]);
    CHECK_STR(y->name, "probability");
    CHECK_STR(shape_text(n[2].g, a, &y->shape), "[batch, 4]");
}

TEST(what_does_not_fit_is_said)
{
    struct net n;
    CHECK_ERR(build("{\"resnet\":{\"depth\":19}}", &image, 1, TASK_CLASSIFICATION, 10, NET_TRAIN, &n),
              INVALID);
    CHECK_ERR(build("{\"cnn\":{}}", &table, 1, TASK_CLASSIFICATION, 10, NET_TRAIN, &n), INVALID);
    CHECK_ERR(build("{\"cnn\":{\"kernel\":2}}", &image, 1, TASK_CLASSIFICATION, 10, NET_TRAIN, &n), INVALID);
    CHECK_ERR(build("{\"gpt\":{\"width\":130,\"heads\":4}}", &tokens, 1, TASK_LANGUAGE, 50257, NET_TRAIN, &n),
              INVALID);
    CHECK_ERR(build("{\"mlp\":{\"hidden\":[0]}}", &table, 1, TASK_REGRESSION, 1, NET_TRAIN, &n), INVALID);
    CHECK_ERR(build("{\"mlp\":{},\"cnn\":{}}", &table, 1, TASK_REGRESSION, 1, NET_TRAIN, &n), INVALID);
    CHECK_ERR(build("{}", &table, 1, TASK_REGRESSION, 1, NET_TRAIN, &n), INVALID);
}
