// SPDX-License-Identifier: Apache-2.0
#define SUITE engine_ops_image
#include "gradcheck.h"
#include "test.h"

#define INTS(...)                                      \
    ATTR_INTS, .is = (const int64_t[]){ __VA_ARGS__ }, \
               .n = sizeof((const int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t)
#define NUMBER(name, x)          \
    {                            \
        name, ATTR_INT, .i = (x) \
    }
#define TEXT(name, x)                             \
    {                                             \
        name, ATTR_TEXT, .s = { x, sizeof x - 1 } \
    }

TEST(convolutions)
{
    const struct gradcheck rows[] = {
        { OP_Conv, .in = { { SHAPE(2, 3, 5, 4) }, { SHAPE(4, 3, 3, 3) } }, .n_in = 2 },
        { OP_Conv, .attrs = ATTRS({ "pads", INTS(1, 1, 1, 1) }),
          .in = { { SHAPE(2, 3, 5, 4) }, { SHAPE(4, 3, 3, 3) }, { SHAPE(4) } }, .n_in = 3 },
        { OP_Conv,
          .attrs = ATTRS({ "pads", INTS(1, 0, 2, 1) }, { "strides", INTS(2, 1) },
                         { "dilations", INTS(1, 2) }),
          .in = { { SHAPE(1, 2, 6, 6) }, { SHAPE(3, 2, 2, 3) } }, .n_in = 2 },
        { OP_Conv, .attrs = ATTRS({ "strides", INTS(2, 2) }, { "pads", INTS(1, 1, 1, 1) }),
          .in = { { SHAPE(2, 16, 8, 8) }, { SHAPE(32, 16, 3, 3) }, { SHAPE(32) } }, .n_in = 3,
          .tolerance = 1e-5 },
        { OP_Conv, .attrs = ATTRS({ "strides", INTS(2, 2) }),
          .in = { { SHAPE(2, 16, 8, 8) }, { SHAPE(32, 16, 1, 1) } }, .n_in = 2, .tolerance = 1e-5 },
        { OP_Conv, .attrs = ATTRS(TEXT("auto_pad", "SAME_UPPER"), { "strides", INTS(2, 2) }),
          .in = { { SHAPE(1, 2, 5, 6) }, { SHAPE(2, 2, 3, 3) } }, .n_in = 2 },
        { OP_Conv, .attrs = ATTRS(TEXT("auto_pad", "SAME_LOWER")),
          .in = { { SHAPE(1, 2, 5, 6) }, { SHAPE(2, 2, 2, 2) } }, .n_in = 2 },
        { OP_Conv, .attrs = ATTRS(NUMBER("group", 2), { "pads", INTS(1, 1, 1, 1) }),
          .in = { { SHAPE(2, 4, 5, 4) }, { SHAPE(6, 2, 3, 3) }, { SHAPE(6) } }, .n_in = 3 },
        { OP_Conv,
          .attrs = ATTRS(NUMBER("group", 4), { "pads", INTS(1, 1, 1, 1) }, { "strides", INTS(2, 2) }),
          .in = { { SHAPE(2, 4, 5, 4) }, { SHAPE(4, 1, 3, 3) }, { SHAPE(4) } }, .n_in = 3 },
        { OP_Conv, .attrs = ATTRS(NUMBER("group", 32), { "pads", INTS(1, 1, 1, 1) }),
          .in = { { SHAPE(1, 32, 5, 4) }, { SHAPE(32, 1, 3, 3) } }, .n_in = 2 },
        { OP_Conv, .attrs = ATTRS({ "pads", INTS(1, 1) }),
          .in = { { SHAPE(2, 3, 7) }, { SHAPE(4, 3, 3) }, { SHAPE(4) } }, .n_in = 3 },
        { OP_Conv, .in = { { SHAPE(1, 2, 3, 4, 3) }, { SHAPE(2, 2, 2, 2, 2) } }, .n_in = 2 },
        { OP_ConvTranspose, .in = { { SHAPE(2, 3, 3, 4) }, { SHAPE(3, 2, 3, 3) } }, .n_in = 2 },
        { OP_ConvTranspose,
          .attrs = ATTRS({ "strides", INTS(2, 2) }, { "pads", INTS(1, 1, 1, 1) },
                         { "output_padding", INTS(1, 1) }),
          .in = { { SHAPE(2, 3, 3, 4) }, { SHAPE(3, 2, 3, 3) }, { SHAPE(2) } }, .n_in = 3 },
        { OP_ConvTranspose, .attrs = ATTRS({ "strides", INTS(2, 2) }),
          .in = { { SHAPE(1, 16, 4, 4) }, { SHAPE(16, 16, 2, 2) }, { SHAPE(16) } }, .n_in = 3,
          .tolerance = 1e-5 },
        { OP_ConvTranspose, .attrs = ATTRS(NUMBER("group", 2), { "strides", INTS(2, 1) }),
          .in = { { SHAPE(1, 4, 3, 3) }, { SHAPE(4, 1, 2, 2) } }, .n_in = 2 },
    };
    GRADCHECK_ALL(rows);
}

TEST(pools)
{
    const struct gradcheck rows[] = {
        { OP_MaxPool, .attrs = ATTRS({ "kernel_shape", INTS(2, 2) }, { "strides", INTS(2, 2) }),
          .in = { { SHAPE(2, 3, 6, 4) } } },
        { OP_MaxPool,
          .attrs = ATTRS({ "kernel_shape", INTS(3, 3) }, { "strides", INTS(2, 2) },
                         { "pads", INTS(1, 1, 1, 1) }),
          .in = { { SHAPE(2, 3, 5, 5) } } },
        { OP_MaxPool,
          .attrs = ATTRS({ "kernel_shape", INTS(3, 3) }, { "strides", INTS(2, 2) }, NUMBER("ceil_mode", 1)),
          .in = { { SHAPE(1, 2, 6, 6) } } },
        { OP_MaxPool, .attrs = ATTRS({ "kernel_shape", INTS(3) }), .in = { { SHAPE(2, 3, 7) } } },
        { OP_AveragePool, .attrs = ATTRS({ "kernel_shape", INTS(2, 2) }, { "strides", INTS(2, 2) }),
          .in = { { SHAPE(2, 3, 6, 4) } } },
        { OP_AveragePool, .attrs = ATTRS({ "kernel_shape", INTS(3, 3) }, { "pads", INTS(1, 1, 1, 1) }),
          .in = { { SHAPE(2, 3, 4, 4) } } },
        { OP_AveragePool,
          .attrs = ATTRS({ "kernel_shape", INTS(3, 3) }, { "pads", INTS(1, 1, 1, 1) },
                         NUMBER("count_include_pad", 1), { "strides", INTS(2, 2) }, NUMBER("ceil_mode", 1)),
          .in = { { SHAPE(2, 3, 4, 4) } } },
        { OP_GlobalAveragePool, .in = { { SHAPE(2, 3, 4, 5) } } },
        { OP_GlobalMaxPool, .in = { { SHAPE(2, 3, 4, 5) } } },
    };
    GRADCHECK_ALL(rows);
}

#define NORM(...)                                                                 \
    {                                                                             \
        { __VA_ARGS__ }, { SHAPE(3) }, { SHAPE(3) }, { SHAPE(3), .fixed = true }, \
        {                                                                         \
            SHAPE(3), .low = 0.5, .high = 2, .fixed = true                        \
        }                                                                         \
    }

TEST(batch_normalisation)
{
    const struct gradcheck rows[] = {
        { OP_BatchNormalization, .in = NORM(SHAPE(2, 3, 4, 5)), .n_in = 5 },
        { OP_BatchNormalization, .attrs = ATTRS(NUMBER("training_mode", 1)), .in = NORM(SHAPE(2, 3, 4, 5)),
          .n_in = 5, .tolerance = 1e-5, .bf16 = 0.06 },
        { OP_BatchNormalization, .attrs = ATTRS(NUMBER("training_mode", 1)), .in = NORM(SHAPE(7, 3)),
          .n_in = 5, .tolerance = 1e-5, .bf16 = 0.06 },
        { OP_BatchNormalization, .attrs = ATTRS(NUMBER("training_mode", 1)), .in = NORM(SHAPE(3, 3, 5)),
          .n_in = 5, .tolerance = 1e-5, .bf16 = 0.06 },
    };
    GRADCHECK_ALL(rows);
}

static const double up[] = { 1, 1, 2, 2 }, odd[] = { 1, 1, 1.5, 0.75 };
static const double sizes[] = { 1, 2, 7, 3 };

TEST(resizing)
{
#define SCALES(v)                                               \
    {                                                           \
        { SHAPE(1, 2, 4, 4) }, { .absent = true },              \
        {                                                       \
            SHAPE(4), TENSOR_F32, .values = v, .constant = true \
        }                                                       \
    }
#define SIZES                                                          \
    {                                                                  \
        { SHAPE(1, 2, 4, 4) }, { .absent = true }, { .absent = true }, \
        {                                                              \
            SHAPE(4), TENSOR_I64, .values = sizes, .constant = true    \
        }                                                              \
    }
    const struct gradcheck rows[] = {
        { OP_Resize, .in = SCALES(up), .n_in = 3 },
        { OP_Resize,
          .attrs = ATTRS(TEXT("coordinate_transformation_mode", "asymmetric"), TEXT("nearest_mode", "floor")),
          .in = SCALES(up), .n_in = 3 },
        { OP_Resize, .attrs = ATTRS(TEXT("mode", "linear")), .in = SCALES(up), .n_in = 3 },
        { OP_Resize,
          .attrs = ATTRS(TEXT("mode", "linear"), TEXT("coordinate_transformation_mode", "align_corners")),
          .in = SCALES(odd), .n_in = 3 },
        { OP_Resize,
          .attrs = ATTRS(TEXT("mode", "linear"),
                         TEXT("coordinate_transformation_mode", "pytorch_half_pixel")),
          .in = SIZES, .n_in = 4 },
        { OP_Resize, .in = SIZES, .n_in = 4 },
    };
    GRADCHECK_ALL(rows);
}

TEST(windows_that_do_not_fit_are_named)
{
    auto_arena struct arena *a = arena_new(0);
    struct graph *g = graph_new(a);
    int x = graph_input(g, "x", TENSOR_F32, SHAPE(1, 3, 4, 4)),
        w = graph_input(g, "w", TENSOR_F32, SHAPE(2, 3, 5, 5));
    CHECK(graph_node(g, OP_Conv, x, w) == -1);
    CHECK_ERR(graph_error(g), INVALID);
}
