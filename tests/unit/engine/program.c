// SPDX-License-Identifier: Apache-2.0
#define SUITE program
#include "engine/engine.h"
#include "engine/recompute.h"
#include "test.h"

#include <math.h>

enum { ROWS = 24, IN = 5, HIDDEN = 16, CLASSES = 3 };

struct net {
    struct arena *a;
    struct graph *g;
    struct team *team;
    int loss;
    float x[ROWS * IN];
    int64_t y[ROWS];
};

static uint64_t seed = 1;
static float uniform(void)
{
    return (float)((double)(splitmix(&seed) >> 11) * 0x1p-52 - 1);
}

/* Layers of Tanh, as deep as asked for, and softmax cross-entropy. */
static struct net net_new(int depth, int threads)
{
    struct net n = { .a = arena_new(0) };
    struct graph *g = n.g = graph_new(n.a);
    seed = 1;
    int x = graph_input(g, "x", TENSOR_F32, SHAPE(graph_symbol(g, "batch"), IN));
    int y = graph_input(g, "y", TENSOR_I64, SHAPE(graph_symbol(g, "batch")));
    int64_t width = IN;
    for (int i = 0; i < depth; i++) {
        int64_t to = i + 1 < depth ? HIDDEN : CLASSES;
        int w = graph_param(g, fmt(n.a, "w%d", i), SHAPE(width, to), NULL);
        int b = graph_param(g, fmt(n.a, "b%d", i), SHAPE(to), NULL);
        x = graph_node(g, OP_Add, graph_node(g, OP_MatMul, x, w), b);
        if (i + 1 < depth)
            x = graph_node(g, OP_Tanh, x);
        width = to;
    }
    graph_output(g, x, S("scores"));
    n.loss = graph_node(g, OP_SoftmaxCrossEntropy, x, y);
    graph_output(g, n.loss, S("loss"));
    CHECK_OK(graph_error(g));
    for (int i = 0; i < ROWS * IN; i++)
        n.x[i] = uniform();
    for (int i = 0; i < ROWS; i++)
        n.y[i] = (n.x[i * IN] > 0) + (n.x[i * IN + 1] > 0);
    CHECK_OK(team_new(threads, &n.team));
    return n;
}

static void net_free(struct net *n)
{
    team_free(n->team);
    arena_free(n->a);
}

static struct params *params_of(struct net *n)
{
    struct params *p;
    CHECK_OK(params_new(n->a, &device_cpu, n->g, team_size(n->team), 7, &p));
    return p;
}

static struct program *program_of(struct net *n, struct params *p, struct program_options o)
{
    struct program *out;
    o.team = n->team;
    o.rows = o.rows ? o.rows : ROWS;
    CHECK_OK(program_new(n->a, n->g, p, &o, &out));
    return out;
}

static struct run_report train(struct net *n, struct program *p, struct optim *o, int steps)
{
    struct run_report r = { 0 };
    for (int i = 0; i < steps; i++)
        program_train(p, (const void *const[]){ n->x, n->y }, 1, (uint64_t)i, o, &r);
    return r;
}

static struct optim *sgd(struct net *n, struct params *p, double rate)
{
    struct optim *o;
    CHECK_OK(optim_new(n->a, p, &(struct optim_spec){ .kind = OPTIM_SGD, .rate = rate }, &o));
    return o;
}

/* The gradient of each parameter is that of central differences of the loss, in float. */
TEST(gradients_are_those_of_differences)
{
    struct net n = net_new(3, 1);
    struct params *p = params_of(&n);
    struct program *prog = program_of(&n, p, (struct program_options){ .loss = n.loss });
    struct run_report r;
    program_run(prog, (const void *const[]){ n.x, n.y }, 0, 0, &r);
    float *grad = NEW_N(n.a, float, p->n);
    memcpy(grad, p->grads[0], p->n * sizeof *grad);
    for (size_t k = 0; k < p->count; k++)
        for (size_t i = 0; i < p->v[k].n; i += 3) {
            float *w = p->w + p->v[k].at + i, was = *w;
            struct run_report up, down;
            *w = was + 1e-2f;
            program_run(prog, (const void *const[]){ n.x, n.y }, 0, 0, &up);
            *w = was - 1e-2f;
            program_run(prog, (const void *const[]){ n.x, n.y }, 0, 0, &down);
            *w = was;
            CHECK(fabs((up.loss - down.loss) / 2e-2 - grad[p->v[k].at + i]) < 2e-4);
        }
    net_free(&n);
}

TEST(threads_share_the_batch)
{
    float *w[2];
    struct net n[2];
    for (int k = 0; k < 2; k++) {
        n[k] = net_new(3, k == 0 ? 1 : 3);
        struct params *p = params_of(&n[k]);
        struct program *prog = program_of(&n[k], p, (struct program_options){ .loss = n[k].loss });
        CHECK(program_facts(prog).ranks == (k == 0 ? 1 : 3));
        train(&n[k], prog, sgd(&n[k], p, 0.5), 20);
        w[k] = p->w;
        for (size_t i = 0; k == 1 && i < p->n; i++)
            CHECK(fabsf(w[0][i] - w[1][i]) < 1e-5f);
    }
    net_free(&n[0]);
    net_free(&n[1]);
}

TEST(the_same_seed_gives_the_same_bits)
{
    struct net n[2];
    struct params *p[2];
    for (int k = 0; k < 2; k++) {
        n[k] = net_new(3, 2);
        p[k] = params_of(&n[k]);
        struct optim *o;
        CHECK_OK(
            optim_new(n[k].a, p[k],
                      &(struct optim_spec){
                          .kind = OPTIM_ADAM, .rate = 1e-2, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8 },
                      &o));
        train(&n[k], program_of(&n[k], p[k], (struct program_options){ .loss = n[k].loss }), o, 30);
    }
    CHECK(memcmp(p[0]->w, p[1]->w, p[0]->n * sizeof *p[0]->w) == 0);
    net_free(&n[0]);
    net_free(&n[1]);
}

TEST(it_learns)
{
    struct net n = net_new(2, 2);
    struct params *p = params_of(&n);
    struct optim *o;
    struct program *prog = program_of(&n, p, (struct program_options){ .loss = n.loss });
    CHECK_OK(optim_new(n.a, p,
                       &(struct optim_spec){
                           .kind = OPTIM_ADAM, .rate = 3e-2, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8 },
                       &o));
    double first = train(&n, prog, o, 1).loss, last = train(&n, prog, o, 300).loss;
    CHECK(first > 0.8 && last < 0.05);
    /* The forward graph alone, on the same parameters, for another number of rows, says the labels. */
    struct program *infer = program_of(&n, p, (struct program_options){ .loss = -1, .rows = ROWS - 1 });
    struct shape shape;
    program_run(infer, (const void *const[]){ n.x, n.y }, 0, 0, NULL);
    const float *scores = program_output(infer, 0, NULL, &shape);
    CHECK(shape.d[0] == ROWS - 1 && shape.d[1] == CLASSES);
    for (int i = 0; i < ROWS - 1; i++)
        for (int k = 0; k < CLASSES; k++)
            CHECK(k == n.y[i] || scores[i * CLASSES + k] < scores[i * CLASSES + n.y[i]]);
    net_free(&n);
}

TEST(recomputed_activations_give_the_same_bits_in_less_memory)
{
    struct net n[2];
    struct params *p[2];
    struct program_facts f[2];
    for (int k = 0; k < 2; k++) {
        n[k] = net_new(24, 2);
        p[k] = params_of(&n[k]);
        struct program *prog = program_of(&n[k], p[k],
                                          (struct program_options){ .loss = n[k].loss, .recompute = k == 1 });
        f[k] = program_facts(prog);
        train(&n[k], prog, sgd(&n[k], p[k], 0.1), 5);
    }
    CHECK(f[0].segments == 1 && f[1].segments > 1 && f[1].memory < f[0].memory * 7 / 10 &&
          f[1].steps > f[0].steps);
    CHECK(memcmp(p[0]->w, p[1]->w, p[0]->n * sizeof *p[0]->w) == 0);
    net_free(&n[0]);
    net_free(&n[1]);
}

/* What a step does must not depend on how many rows a rank takes at once: not the loss, nor what it is divided by where labels
 * are ignored and samples have weights, nor what Dropout draws, nor where outputs go. */
TEST(rows_in_parts_give_the_same_step_in_less_memory)
{
    enum { TOKENS = 64, WORDS = 10, WIDTH = 8 };
    auto_arena struct arena *a = arena_new(0);
    struct graph *g = graph_new(a);
    struct team *team;
    CHECK_OK(team_new(2, &team));
    const int batch = graph_symbol(g, "batch");
    int ids = graph_input(g, "ids", TENSOR_I64, SHAPE(batch, TOKENS)),
        y = graph_input(g, "y", TENSOR_I64, SHAPE(batch, TOKENS)),
        weight = graph_input(g, "weight", TENSOR_F32, SHAPE(batch));
    int x = graph_node(g, OP_Gather, graph_param(g, S("words"), SHAPE(WORDS, WIDTH), NULL), ids);
    x = graph_node(g, OP_MatMul, x, graph_param(g, S("w0"), SHAPE(WIDTH, 4 * WIDTH), NULL));
    x = graph_node(g, OP_Gelu, graph_node(g, OP_Add, x, graph_param(g, S("b0"), SHAPE(4 * WIDTH), NULL)));
    x = graph_node(g, OP_LayerNormalization, x, graph_param(g, S("scale"), SHAPE(4 * WIDTH), NULL));
    x = graph_node(g, OP_Dropout, x, graph_f32(g, 0.3f),
                   graph_const(g, TENSOR_BOOL, SCALAR, &(bool){ true }));
    x = graph_node(g, OP_MatMul, x, graph_param(g, S("w1"), SHAPE(4 * WIDTH, CLASSES), NULL));
    graph_output(g, x, S("scores"));
    int loss = graph_node(g, OP_SoftmaxCrossEntropy, x, y, -1, weight);
    graph_output(g, loss, S("loss"));
    CHECK_OK(graph_error(g));

    int64_t words[ROWS * TOKENS], labels[ROWS * TOKENS];
    float weights[ROWS], *scores[2], *grads[2];
    for (int i = 0; i < ROWS * TOKENS; i++) {
        words[i] = (int64_t)(splitmix(&seed) % WORDS);
        labels[i] = i / TOKENS % 4 == 1 || i % 5 == 0 ? -100 : words[i] % CLASSES;
    }
    for (int i = 0; i < ROWS; i++)
        weights[i] = 1 + (float)i / 7;
    struct run_report r[2], bad[2];
    struct program_facts f[2];
    for (int k = 0; k < 2; k++) {
        struct params *p;
        struct program *prog;
        CHECK_OK(params_new(a, &device_cpu, g, 2, 7, &p));
        struct program_options o = { .team = team, .rows = ROWS, .loss = loss, .one_part = k == 0 };
        if (k == 1)
            o.memory_max = f[0].memory_params + f[0].memory / 2;
        CHECK_OK(program_new(a, g, p, &o, &prog));
        f[k] = program_facts(prog);
        const void *const in[] = { words, labels, weights };
        program_run(prog, in, 3, 5, &r[k]); /* a second run starts from nothing again */
        program_run(prog, in, 3, 5, &r[k]);
        grads[k] = NEW_N(a, float, p->n);
        for (size_t i = 0; i < p->n; i++)
            grads[k][i] = p->grads[0][i] + p->grads[1][i];
        scores[k] = NEW_N(a, float, ROWS *TOKENS *CLASSES);
        memcpy(scores[k], program_output(prog, 0, NULL, NULL), ROWS * TOKENS * CLASSES * sizeof(float));
        for (size_t i = 0; k == 1 && i < p->n; i++)
            CHECK(fabsf(grads[0][i] - grads[1][i]) < 1e-6f);
        int64_t was = labels[17 * TOKENS + 3];
        labels[17 * TOKENS + 3] = CLASSES;
        program_run(prog, in, 3, 5, &bad[k]);
        labels[17 * TOKENS + 3] = was;
    }
    CHECK(f[0].parts == 1 && f[1].parts > 1 && f[1].segments == 1 && f[1].memory <= f[0].memory / 2);
    CHECK(fabs(f[0].flops / f[1].flops - 1) < 1e-9);
    CHECK(fabs(r[0].loss - r[1].loss) < 1e-6 && r[0].loss > 0.5);
    for (int i = 0; i < ROWS * TOKENS * CLASSES; i++)
        CHECK(fabsf(scores[0][i] - scores[1][i]) < 1e-6f);
    CHECK(bad[0].bad_label == 18 && bad[1].bad_label == 18);
    team_free(team);
}

/* The same budget, of a graph in which each row has a share in all others: that is cut neither over threads nor in parts. */
TEST(rows_that_are_mixed_stay_together)
{
    enum { TOKENS = 64, WIDTH = 8 };
    auto_arena struct arena *a = arena_new(0);
    struct graph *g = graph_new(a);
    struct team *team;
    struct params *p;
    struct program *prog;
    CHECK_OK(team_new(2, &team));
    const int batch = graph_symbol(g, "batch");
    int x = graph_input(g, "x", TENSOR_F32, SHAPE(batch, TOKENS, WIDTH)),
        y = graph_input(g, "y", TENSOR_I64, SHAPE(batch, TOKENS));
    int w = graph_param(g, S("w"), SHAPE(WIDTH, WIDTH), NULL);
    for (int i = 0; i < 4; i++)
        x = graph_node(g, OP_Tanh, graph_node(g, OP_MatMul, x, w));
    x = graph_node_with(g, OP_Softmax, ATTRS({ "axis", ATTR_INT, .i = 0 }), x);
    int loss = graph_node(g, OP_SoftmaxCrossEntropy, x, y);
    graph_output(g, loss, S("loss"));
    CHECK_OK(graph_error(g));
    CHECK_OK(params_new(a, &device_cpu, g, 2, 7, &p));
    struct program_options o = { .team = team, .rows = ROWS, .loss = loss };
    CHECK_OK(program_new(a, g, p, &o, &prog));
    struct program_facts f = program_facts(prog);
    o.memory_max = f.memory_params + f.memory * 8 / 10;
    CHECK(f.ranks == 1 && f.parts == 1);
    if (!program_new(a, g, p, &o, &prog))
        CHECK(program_facts(prog).parts == 1);
    team_free(team);
}

TEST(what_costs_next_to_nothing_is_computed_again)
{
    auto_arena struct arena *a = arena_new(0);
    struct graph *g = graph_new(a);
    int x = graph_input(g, "x", TENSOR_F32, SHAPE(4, 8)), w = graph_input(g, "w", TENSOR_F32, SHAPE(8, 8)),
        scale = graph_input(g, "scale", TENSOR_F32, SHAPE(8));
    int bent = graph_node(g, OP_Gelu, x), normal = graph_node(g, OP_LayerNormalization, bent, scale),
        product = graph_node(g, OP_MatMul, normal, w);
    const size_t forward = g->nodes.n;
    /* As gradients would, backwards: of the product, then of what stood before it. */
    graph_output(g, graph_node(g, OP_Mul, normal, product), S("late"));
    graph_output(g, graph_node(g, OP_Add, bent, x), S("early"));
    CHECK_OK(graph_error(g));
    CHECK_OK(graph_recompute(g, forward, 1));
    /* Of two in a row the first: else a long chain would be computed again for its last. */
    const int order[] = { OP_Gelu, OP_LayerNormalization, OP_MatMul, OP_Mul, OP_Gelu, OP_Add };
    CHECK(g->nodes.n == 6);
    const struct node *n = g->nodes.v;
    for (size_t i = 0; i < 6; i++)
        CHECK(n[i].op->id == order[i]);
    CHECK(n[2].in[0] == normal && n[3].in[0] == normal && n[3].in[1] == product);
    CHECK(n[4].in[0] == x && n[4].out[0] != bent && n[5].in[0] == n[4].out[0]);
}

TEST(a_budget_is_met_or_refused_with_the_number)
{
    struct net n = net_new(24, 1);
    struct params *p = params_of(&n);
    struct program *prog = program_of(&n, p, (struct program_options){ .loss = n.loss });
    struct program_facts f = program_facts(prog);
    struct program_options o = {
        .team = n.team, .rows = ROWS, .loss = n.loss, .memory_max = f.memory_params + f.memory * 8 / 10
    };
    CHECK_OK(program_new(n.a, n.g, p, &o, &prog));
    f = program_facts(prog);
    CHECK(f.segments > 1 && f.memory_params + f.memory <= o.memory_max);
    o.memory_max = 4096;
    CHECK_ERR(program_new(n.a, n.g, p, &o, &prog), TOO_LARGE);
    net_free(&n);
}

/* No machine has what the whole batch would take; rows in parts do, and what does not is refused with a number that does. */
TEST(sizes_are_known_before_memory_is_taken)
{
    struct net n = net_new(24, 2);
    struct params *p = params_of(&n);
    struct program *prog;
    n.g->outputs.v[0] = n.loss; /* the scores of all rows would be as many */
    n.g->outputs.n = 1;
    struct program_options o = { .team = n.team, .rows = 1LL << 34, .loss = n.loss, .memory_max = 1 << 30 };
    CHECK_OK(program_new(n.a, n.g, p, &o, &prog));
    struct program_facts f = program_facts(prog);
    CHECK(f.parts > 1 && f.memory_params + f.memory <= o.memory_max);
    o.one_part = true;
    err e = program_new(n.a, n.g, p, &o, &prog);
    CHECK_ERR(e, TOO_LARGE);
    const char *text = str_z(n.a, e->text);
    CHECK(strstr(text, "a step of 17179869184 rows needs ") &&
          strstr(text, "Gi in all, and the budget is 1Gi"));
    net_free(&n);
}

TEST(what_stands_beside_counts_and_turns_share_memory)
{
    struct net n = net_new(3, 2);
    struct params *p = params_of(&n);
    struct program *prog, *look;
    struct program_options o = { .team = n.team, .rows = ROWS, .loss = n.loss };
    CHECK_OK(program_new(n.a, n.g, p, &o, &prog));
    struct program_facts f = program_facts(prog);
    o.memory_max = f.memory + f.memory_params + 100;
    o.memory_beside = 100;
    CHECK_OK(program_new(n.a, n.g, p, &o, &prog));
    o.memory_beside = 1 << 20;
    CHECK_ERR(program_new(n.a, n.g, p, &o, &look), TOO_LARGE);
    struct program_options eval = { .team = n.team, .rows = ROWS, .loss = -1 };
    const void *const in[] = { n.x, n.y };
    float scores[ROWS * CLASSES];
    CHECK_OK(program_new(n.a, n.g, p, &eval, &look));
    program_run(look, in, 0, 0, NULL);
    memcpy(scores, program_output(look, 0, NULL, NULL), sizeof scores);
    int64_t alone = program_facts(look).memory;
    eval.turns = prog;
    CHECK_OK(program_new(n.a, n.g, p, &eval, &look));
    CHECK(program_facts(look).memory < alone);
    train(&n, prog, sgd(&n, p, 0), 1); /* it leaves its numbers there */
    program_run(look, in, 0, 0, NULL);
    CHECK(memcmp(scores, program_output(look, 0, NULL, NULL), sizeof scores) == 0);
    net_free(&n);
}

TEST(parameters_that_are_too_many_are_named)
{
    auto_arena struct arena *a = arena_new(0);
    struct graph *g = graph_new(a);
    graph_param(g, S("small"), SHAPE(10), NULL);
    graph_param(g, S("huge"), SHAPE(1 << 20, 1 << 20), NULL);
    err e = params_check(g, 1 << 30);
    CHECK_ERR(e, TOO_LARGE);
    CHECK_STR(
        e->text,
        "the parameters take 4097Gi, and the budget is 1Gi; the largest is 'huge' [1048576, 1048576]: 4Ti");
}

TEST(accumulated_gradients_are_their_mean)
{
    struct net n[3];
    struct params *p[3];
    for (int k = 0; k < 3;
         k++) { /* whole batches; halves; halves of which the caller says that there is no third */
        struct optim *o;
        n[k] = net_new(3, 2);
        p[k] = params_of(&n[k]);
        CHECK_OK(optim_new(n[k].a, p[k],
                           &(struct optim_spec){ .kind = OPTIM_SGD, .rate = 0.2, .accumulate = 1 + k }, &o));
        struct program *prog = program_of(
            &n[k], p[k], (struct program_options){ .loss = n[k].loss, .rows = k == 0 ? ROWS : ROWS / 2 });
        for (int i = 0; i < 4; i++)
            for (int half = 0; half <= (k > 0); half++) {
                o->last = k == 2 && half == 1;
                program_train(
                    prog, (const void *const[]){ n[k].x + half * ROWS / 2 * IN, n[k].y + half * ROWS / 2 }, 0,
                    0, o, NULL);
            }
        CHECK(o->step == 4 && o->pending == 0);
    }
    for (int k = 1; k < 3; k++)
        for (size_t i = 0; i < p[0]->n; i++)
            CHECK(fabsf(p[0]->w[i] - p[k]->w[i]) < 1e-5f);
    for (int k = 0; k < 3; k++)
        net_free(&n[k]);
}

TEST(a_graph_that_mixes_rows_runs_on_one_thread)
{
    struct arena *a = arena_new(0);
    struct graph *g = graph_new(a);
    struct team *team;
    struct params *p;
    struct program *prog;
    int x = graph_input(g, "x", TENSOR_F32, SHAPE(graph_symbol(g, "batch"), 4));
    graph_output(g, graph_node_with(g, OP_Softmax, ATTRS({ "axis", ATTR_INT, .i = 0 }), x), S("y"));
    CHECK_OK(team_new(3, &team));
    CHECK_OK(params_new(a, &device_cpu, g, 3, 0, &p));
    CHECK_OK(program_new(a, g, p, &(struct program_options){ .team = team, .rows = 6, .loss = -1 }, &prog));
    CHECK(program_facts(prog).ranks == 1);
    float in[24], sum = 0;
    for (int i = 0; i < 24; i++)
        in[i] = (float)i / 10;
    program_run(prog, (const void *const[]){ in }, 0, 0, NULL);
    const float *y = program_output(prog, 0, NULL, NULL);
    for (int i = 0; i < 6; i++)
        sum += y[i * 4];
    CHECK(fabsf(sum - 1) < 1e-6f);
    team_free(team);
    arena_free(a);
}

TEST(a_size_that_nobody_gives_is_not_guessed)
{
    auto_arena struct arena *a = arena_new(0);
    struct graph *g = graph_new(a);
    struct team *team;
    struct params *p;
    struct program *prog;
    int64_t time = graph_symbol(g, "time");
    int x = graph_input(g, "x", TENSOR_F32, SHAPE(graph_symbol(g, "batch"), time, 4));
    graph_output(g, graph_node(g, OP_Relu, x), S("y"));
    CHECK_OK(team_new(1, &team));
    CHECK_OK(params_new(a, &device_cpu, g, 1, 0, &p));
    struct program_options o = { .team = team, .rows = 6, .loss = -1 };
    err e = program_new(a, g, p, &o, &prog);
    CHECK_ERR(e, INVALID);
    CHECK_STR(e->text, "input 'x': axis 1, 'time', has no size");
    int64_t sizes[] = { 5, 0 }, dims[] = { 7, -2 };
    struct shape shape;
    o.sizes = sizes;
    CHECK_OK(program_new(a, g, p, &o, &prog));
    program_output(prog, 0, NULL, &shape);
    CHECK(shape.d[1] == 5);
    o.sizes = NULL;
    CHECK_OK(graph_resize(g, dims)); /* or the graph itself says it from now on */
    CHECK_OK(program_new(a, g, p, &o, &prog));
    program_output(prog, 0, NULL, &shape);
    CHECK(shape.d[0] == 6 && shape.d[1] == 7 && value_at(g, g->outputs.v[0])->shape.d[0] < 0);
    team_free(team);
}

TEST(halves_learn_alike)
{
    static const enum precision kinds[] = { PRECISION_F32, PRECISION_BF16, PRECISION_F16 };
    double last[3];
    for (int k = 0; k < 3; k++) {
        struct net n = net_new(3, 2);
        struct params *p = params_of(&n);
        struct optim *o;
        CHECK_OK(optim_new(n.a, p,
                           &(struct optim_spec){ .kind = OPTIM_ADAMW,
                                                 .rate = 2e-2,
                                                 .beta1 = 0.9,
                                                 .beta2 = 0.999,
                                                 .epsilon = 1e-8,
                                                 .loss_scaling = kinds[k] == PRECISION_F16 },
                           &o));
        struct program *prog = program_of(&n, p,
                                          (struct program_options){ .loss = n.loss, .precision = kinds[k] });
        last[k] = train(&n, prog, o, 200).loss;
        for (size_t i = 0; k > 0 && i < p->n; i++) { /* the copy is kept current */
            uint16_t half = p->half[i];
            params_half_range(p->w, p->half, p->half_type, i, i + 1);
            CHECK(half == p->half[i]);
        }
        net_free(&n);
    }
    CHECK(last[0] < 0.1 && last[1] < 0.15 && last[2] < 0.15);
}

/* A table of which some rows are taken learns in halves what it learns in floats; `tied`: it is read by a product as well. */
static double embedding_train(enum precision precision, bool tied)
{
    enum { WORDS = 6, WIDTH = 8 };
    auto_arena struct arena *a = arena_new(0);
    struct graph *g = graph_new(a);
    struct team *team;
    struct params *p;
    struct optim *o;
    struct program *prog;
    struct run_report r;
    int64_t words[ROWS], next[ROWS];
    const int64_t batch = graph_symbol(g, "batch");
    int ids = graph_input(g, "ids", TENSOR_I64, SHAPE(batch)),
        y = graph_input(g, "y", TENSOR_I64, SHAPE(batch)),
        table = graph_param(g, S("words"), SHAPE(WORDS, WIDTH), NULL);
    int x = graph_node(g, OP_Gather, table, ids);
    x = graph_node(g, OP_Tanh,
                   graph_node(g, OP_MatMul, x, graph_param(g, S("w"), SHAPE(WIDTH, WIDTH), NULL)));
    int head = tied ? graph_node_with(g, OP_Transpose,
                                      ATTRS({ "perm", ATTR_INTS, .is = (const int64_t[]){ 1, 0 }, .n = 2 }),
                                      table)
                    : graph_param(g, S("head"), SHAPE(WIDTH, WORDS), NULL);
    int loss = graph_node(g, OP_SoftmaxCrossEntropy, graph_node(g, OP_MatMul, x, head), y);
    graph_output(g, loss, S("loss"));
    for (int i = 0; i < ROWS; i++) {
        words[i] = i % WORDS;
        next[i] = (i + 1) % WORDS;
    }
    CHECK_OK(team_new(2, &team));
    CHECK_OK(params_new(a, &device_cpu, g, 2, 7, &p));
    CHECK_OK(optim_new(a, p,
                       &(struct optim_spec){ .kind = OPTIM_ADAM,
                                             .rate = 2e-2,
                                             .beta1 = 0.9,
                                             .beta2 = 0.999,
                                             .epsilon = 1e-8,
                                             .loss_scaling = precision == PRECISION_F16 },
                       &o));
    CHECK_OK(program_new(
        a, g, p,
        &(struct program_options){ .team = team, .rows = ROWS, .loss = loss, .precision = precision },
        &prog));
    for (int i = 0; i < 200; i++)
        program_train(prog, (const void *const[]){ words, next }, 1, (uint64_t)i, o, &r);
    team_free(team);
    return r.loss;
}

TEST(embeddings_learn_alike_in_halves)
{
    for (int tied = 0; tied < 2; tied++)
        for (int k = PRECISION_F32; k <= PRECISION_F16; k++)
            CHECK(embedding_train((enum precision)k, tied) < 0.05);
}

TEST(an_overflow_skips_the_step)
{
    struct net n = net_new(2, 2);
    struct params *p = params_of(&n);
    struct optim *o;
    struct run_report r;
    CHECK_OK(
        optim_new(n.a, p, &(struct optim_spec){ .kind = OPTIM_SGD, .rate = 0.1, .loss_scaling = true }, &o));
    struct program *prog = program_of(&n, p, (struct program_options){ .loss = n.loss });
    float *before = NEW_N(n.a, float, p->n);
    memcpy(before, p->w, p->n * sizeof *before);
    n.x[3] = INFINITY;
    program_train(prog, (const void *const[]){ n.x, n.y }, 0, 0, o, &r);
    CHECK(r.overflow && o->step == 0 && o->skipped == 1 && o->loss_scale == 32768);
    CHECK(memcmp(before, p->w, p->n * sizeof *before) == 0);
    net_free(&n);
}

/* ---- optimisers, against their formulas in double ---- */

struct reference {
    double w, m, v;
};

static double reference_step(struct reference *r, const struct optim_spec *s, double g, int64_t t)
{
    double rate = s->rate, before = r->w;
    bool beside = s->kind == OPTIM_ADAMW;
    g += beside ? 0 : s->decay * r->w;
    if (s->kind == OPTIM_SGD) {
        r->m = s->momentum * r->m + g;
        r->w -= rate * (s->nesterov ? g + s->momentum * r->m : r->m);
    } else if (s->kind == OPTIM_ADAGRAD) {
        r->v += g * g;
        r->w -= rate * g / (sqrt(r->v) + s->epsilon);
    } else {
        r->m = s->beta1 * r->m + (1 - s->beta1) * g;
        r->v = s->beta2 * r->v + (1 - s->beta2) * g * g;
        r->w -= rate * (r->m / (1 - pow(s->beta1, (double)t)) /
                        (sqrt(r->v / (1 - pow(s->beta2, (double)t))) + s->epsilon));
        r->w -= beside ? rate * s->decay * before : 0;
    }
    return r->w;
}

TEST(optimisers_follow_their_formulas)
{
    static const struct optim_spec specs[] = {
        { .kind = OPTIM_SGD, .rate = 0.1, .decay = 0.01 },
        { .kind = OPTIM_SGD, .rate = 0.1, .momentum = 0.9, .decay = 0.01 },
        { .kind = OPTIM_SGD, .rate = 0.1, .momentum = 0.9, .nesterov = true },
        { .kind = OPTIM_ADAM, .rate = 0.1, .beta1 = 0.9, .beta2 = 0.99, .epsilon = 1e-8, .decay = 0.01 },
        { .kind = OPTIM_ADAMW, .rate = 0.1, .beta1 = 0.9, .beta2 = 0.99, .epsilon = 1e-8, .decay = 0.1 },
        { .kind = OPTIM_ADAGRAD, .rate = 0.1, .epsilon = 1e-8, .decay = 0.01 },
    };
    for (size_t k = 0; k < sizeof specs / sizeof *specs; k++) {
        struct arena *a = arena_new(0);
        struct graph *g = graph_new(a);
        struct params *p;
        struct optim *o;
        graph_param(g, S("w"), SHAPE(7, 5), NULL); /* of rank 2: decays */
        graph_param(g, S("b"), SHAPE(3), NULL);    /* does not */
        CHECK_OK(params_new(a, &device_cpu, g, 1, 3, &p));
        CHECK_OK(optim_new(a, p, &specs[k], &o));
        struct reference r[38];
        for (size_t i = 0; i < 38; i++)
            r[i] = (struct reference){ .w = i < 35 ? p->w[i] : p->w[p->v[1].at + i - 35] };
        struct rank rank = { .size = 1 };
        struct run_report report;
        for (int64_t t = 1; t <= 10; t++) {
            for (size_t i = 0; i < 38; i++) {
                struct optim_spec spec = specs[k];
                size_t at = i < 35 ? i : p->v[1].at + i - 35;
                p->grads[0][at] = uniform();
                spec.decay *= i < 35;
                reference_step(&r[i], &spec, p->grads[0][at], t);
            }
            optim_apply(o, &rank, &report);
        }
        for (size_t i = 0; i < 38; i++)
            CHECK(fabs(p->w[i < 35 ? i : p->v[1].at + i - 35] - r[i].w) < 2e-5);
        arena_free(a);
    }
}

TEST(gradients_are_clipped_by_their_norm)
{
    struct net n = net_new(2, 2);
    struct params *p = params_of(&n);
    struct optim *o;
    struct run_report r;
    CHECK_OK(optim_new(n.a, p, &(struct optim_spec){ .kind = OPTIM_SGD, .rate = 1, .clip_norm = 1e-3 }, &o));
    float *before = NEW_N(n.a, float, p->n);
    memcpy(before, p->w, p->n * sizeof *before);
    program_train(program_of(&n, p, (struct program_options){ .loss = n.loss }),
                  (const void *const[]){ n.x, n.y }, 0, 0, o, &r);
    double moved = 0;
    for (size_t i = 0; i < p->n; i++)
        moved += pow((double)p->w[i] - before[i], 2);
    CHECK(r.grad_norm > 1e-2 && fabs(sqrt(moved) - 1e-3) < 1e-6);
    net_free(&n);
}

TEST(rates_follow_their_schedules)
{
    struct schedule cosine = { .kind = RATE_COSINE, .warmup = 10, .steps = 110, .factor = 0.1 };
    CHECK(fabs(schedule_rate(&cosine, 1, 0) - 0.1) < 1e-12 && fabs(schedule_rate(&cosine, 1, 9) - 1) < 1e-12);
    CHECK(fabs(schedule_rate(&cosine, 1, 60) - 0.55) < 1e-12 &&
          fabs(schedule_rate(&cosine, 1, 110) - 0.1) < 1e-12);
    struct schedule linear = { .kind = RATE_LINEAR, .steps = 100 };
    CHECK(fabs(schedule_rate(&linear, 2, 25) - 1.5) < 1e-12);
    struct schedule step = { .kind = RATE_STEP, .every = 10, .factor = 0.5 };
    CHECK(fabs(schedule_rate(&step, 1, 25) - 0.25) < 1e-12);
    struct schedule one = { .kind = RATE_ONE_CYCLE, .warmup = 30, .steps = 100, .factor = 10 };
    CHECK(fabs(schedule_rate(&one, 1, 0) - 0.1) < 1e-12 && fabs(schedule_rate(&one, 1, 30) - 1) < 1e-12);
    CHECK(schedule_rate(&one, 1, 100) < 1e-12);
}
