// SPDX-License-Identifier: Apache-2.0
#include "train/trainer_internal.h"

#include <math.h>

void train_say(const struct train_listener *l, const char *f, ...)
{
    auto_arena struct arena *a = arena_new(0);
    va_list ap;
    va_start(ap, f);
    struct str s = vfmt(a, f, ap);
    va_end(ap);
    if (l->say)
        l->say(l->arg, s);
}

void times_write(struct json *j, int64_t from, int64_t split, int64_t until)
{
    if (!until)
        return;
    json_kstr(j, "from", time_text(j->b.a, from));
    json_kstr(j, "split", time_text(j->b.a, split));
    json_kstr(j, "until", time_text(j->b.a, until));
}

/* ---- the form → the loader's words ---- */

struct form {
    struct arena *a;
    const struct train_job *job;
    const struct train_with *with;
    enum net_wants wants;
    enum task task;
    VEC(struct loader_input) inputs;
    VEC(struct loader_file) files;
    struct str label;
};

#define LOSS(x) (1u << LOSS_##x)
/* Which losses a task has; a task that is not said is the first that has the loss. */
static const struct fit {
    enum task task;
    unsigned losses;
    bool weights; /* of rows */
} fits[] = {
    { TASK_CLASSIFICATION, LOSS(CROSS_ENTROPY), true },
    { TASK_REGRESSION, LOSS(MSE) | LOSS(MAE) | LOSS(HUBER), true },
    { TASK_AUTOENCODER, LOSS(MSE) | LOSS(MAE) | LOSS(HUBER), true },
    { TASK_LANGUAGE, LOSS(CROSS_ENTROPY), true },
    { TASK_RANKING, LOSS(PAIRWISE), false },
    { TASK_EMBEDDING, LOSS(TRIPLET), false },
};
#undef LOSS

static enum task task_of(const struct train_with *w, enum net_wants wants, const struct field *chosen)
{
    if (w->task != TASK_AUTO)
        return w->task;
    if (str_is(chosen->name, "autoencoder"))
        return TASK_AUTOENCODER;
    if (wants == WANTS_STREAM)
        return TASK_LANGUAGE;
    for (size_t i = 0; w->loss != LOSS_AUTO && i < sizeof fits / sizeof *fits; i++)
        if (fits[i].losses & 1u << w->loss)
            return fits[i].task;
    return TASK_CLASSIFICATION;
}

static struct str losses_text(struct arena *a, unsigned losses)
{
    struct buf b = buf_new(a);
    for (size_t i = 0; train_losses[i]; i++)
        if (losses & 1u << i)
            buf_fmt(&b, "%s%s", b.n ? ", " : "", train_losses[i]);
    return buf_get(&b);
}

/* What the form says of the loss and the rows' weights has a meaning in the task. */
static err fit_check(const struct form *f)
{
    const struct train_with *w = f->with;
    for (size_t i = 0; i < sizeof fits / sizeof *fits; i++) {
        if (fits[i].task != f->task)
            continue;
        if (w->loss != LOSS_AUTO && !(fits[i].losses & 1u << w->loss))
            return err_field(err_hint(err_new(INVALID, "loss %s is not one of task %s", train_losses[w->loss],
                                              train_tasks[f->task]),
                                      "loss: %.*s", STR(losses_text(f->a, fits[i].losses))),
                             S("loss"));
        if (w->weight.n && !fits[i].weights)
            return err_field(
                err_new(INVALID, "task %s compares rows with each other: they have no weights of their own",
                        train_tasks[f->task]),
                S("weight"));
        if (w->label_smoothing > 0 && !(fits[i].losses & 1u << LOSS_CROSS_ENTROPY))
            return err_field(err_new(INVALID, "labelSmoothing is for classes, which task %s has not",
                                     train_tasks[f->task]),
                             S("labelSmoothing"));
    }
    return NULL;
}

static struct strs one_column(struct arena *a, struct str name)
{
    struct strs s = { 0 };
    push(a, &s, name);
    return s;
}

static err shape_read(struct arena *a, const struct train_input *in, struct loader_input *out)
{
    int64_t *v;
    size_t n;
    TRY_AS(spec_sizes(a, in->shape, "shape", 1 << 24, &v, &n), "inputs: '%.*s'", STR(in->name));
    if (n > 4)
        FAIL(INVALID, "inputs: '%.*s' has a shape of %zu sizes, more than 4", STR(in->name), n);
    out->rank = (int)n;
    for (size_t i = 0; i < n; i++)
        out->shape[i] = v[i];
    return NULL;
}

static err input_read(struct form *f, const struct train_input *in)
{
    static const enum loader_kind kinds[] = { KIND_NUMBERS, KIND_CATEGORIES, KIND_ARRAY, KIND_CLASS,
                                              KIND_TOKENS };
    struct loader_input out = { .name = in->name,
                                .kind = kinds[in->kind],
                                .columns = in->columns,
                                .fill = in->fill,
                                .indicator = in->indicator,
                                .ids = in->ids,
                                .length = in->length };
    if (out.kind == KIND_CLASS)
        FAIL(INVALID, "inputs: '%.*s' is of kind class, which labels are", STR(in->name));
    bool numbers = out.kind == KIND_NUMBERS || (out.kind == KIND_ARRAY && !in->ids);
    enum loader_norm by_itself = numbers && f->wants != WANTS_ANY ? NORM_STANDARD
                                                                  : NORM_NONE; /* onnx: it does so itself */
    out.normalise = in->normalise == TRAIN_AUTO ? by_itself : (enum loader_norm)(in->normalise - 1);
    out.missing = in->missing == TRAIN_AUTO ? out.kind == KIND_NUMBERS ? MISSING_MEAN : MISSING_ERROR
                                            : (enum loader_missing)(in->missing - 1);
    TRY(shape_read(f->a, in, &out));
    push(f->a, &f->inputs, out);
    return NULL;
}

/* The column that is no label of the files that are arrays. */
static struct str array_column(const struct form *f)
{
    for (size_t i = 0; i < f->job->n_files; i++)
        if (f->job->files[i].column.n && !str_eq(f->job->files[i].column, f->label))
            return f->job->files[i].column;
    return S("image");
}

static bool among(const struct strs *s, struct str name)
{
    for (size_t i = 0; i < s->n; i++)
        if (str_eq(s->v[i], name))
            return true;
    return false;
}

/* The table's columns of numbers, and its categories: those that the form names, and of a training set all texts. */
static err table_by_default(struct form *f)
{
    struct arena *a = f->a;
    struct strs numbers = { 0 }, categories = f->with->data.categories;
    for (size_t i = 0; i < f->job->features.n; i++)
        if (!among(&categories, f->job->features.v[i]))
            push(a, &numbers, f->job->features.v[i]);
    for (size_t i = 0; i < f->job->texts.n; i++)
        if (!among(&categories, f->job->texts.v[i]))
            push(a, &categories, f->job->texts.v[i]);
    for (size_t i = 0; i < categories.n && f->job->label.n; i++)
        if (!among(&f->job->features, categories.v[i]) && !among(&f->job->texts, categories.v[i]))
            FAIL(INVALID, "data.categories: '%.*s' is no feature of the training set", STR(categories.v[i]));
    if (numbers.n || !f->job->label.n)
        push(a, &f->inputs,
             ((struct loader_input){ .name = S("features"),
                                     .kind = KIND_NUMBERS,
                                     .columns = numbers,
                                     .or_none = categories.n > 0,
                                     .normalise = f->wants == WANTS_ANY ? NORM_NONE : NORM_STANDARD,
                                     .missing = MISSING_MEAN }));
    if (categories.n)
        push(a, &f->inputs,
             ((struct loader_input){
                 .name = S("categories"), .kind = KIND_CATEGORIES, .columns = categories }));
    return NULL;
}

static err inputs_by_default(struct form *f)
{
    struct arena *a = f->a;
    switch (f->wants) {
    case WANTS_IMAGE:
        push(a, &f->inputs,
             ((struct loader_input){ .name = S("image"),
                                     .kind = KIND_ARRAY,
                                     .columns = one_column(a, array_column(f)),
                                     .normalise = NORM_STANDARD }));
        return NULL;
    case WANTS_STREAM:
        push(a, &f->inputs,
             ((struct loader_input){ .name = S("tokens"),
                                     .kind = KIND_TOKENS,
                                     .columns = one_column(a, S("text")),
                                     .length = 64 }));
        return NULL;
    case WANTS_SEQUENCE:
        return err_hint(err_new(INVALID, "this model wants `inputs`: which columns are its sequence"),
                        "inputs: [{name: tokens, kind: array, ids: true, columns: [tokens]}]");
    case WANTS_TABLE:
    case WANTS_ANY:
        break;
    }
    return table_by_default(f);
}

static err label_apart(const struct form *f)
{
    for (size_t i = 0; i < f->inputs.n && f->label.n; i++)
        if (among(&f->inputs.v[i].columns, f->label))
            FAIL(INVALID, "inputs: '%.*s' has the label '%.*s' among its columns", STR(f->inputs.v[i].name),
                 STR(f->label));
    return NULL;
}

static err label_add(struct form *f)
{
    struct loader_input label = { .name = S("label"),
                                  .role = ROLE_LABEL,
                                  .columns = one_column(f->a, f->label) };
    if (f->task == TASK_AUTOENCODER)
        return NULL;
    if (f->task == TASK_LANGUAGE) {
        for (size_t i = 0; i < f->inputs.n; i++)
            if (f->inputs.v[i].kind == KIND_TOKENS) {
                struct loader_input next = f->inputs.v[i];
                next.name = S("label");
                next.role = ROLE_LABEL;
                push(f->a, &f->inputs, next);
                return NULL;
            }
        FAIL(INVALID, "a language model wants an input of kind tokens");
    }
    if (!f->label.n)
        return err_field(err_hint(err_new(INVALID, "the form names no label"), "label: COLUMN"), S("label"));
    label.kind = f->task == TASK_CLASSIFICATION || f->task == TASK_EMBEDDING ? KIND_CLASS : KIND_NUMBERS;
    label.missing = f->job->label.n ? MISSING_SKIP : MISSING_ERROR;
    push(f->a, &f->inputs, label);
    return NULL;
}

static err form_read(struct form *f)
{
    const struct train_with *w = f->with;
    const struct train_input *in = w->inputs.v;
    for (size_t i = 0; i < w->inputs.n; i++)
        TRY(input_read(f, &in[i]));
    if (!w->inputs.n)
        TRY(inputs_by_default(f));
    TRY(label_apart(f));
    TRY(label_add(f));
    if (w->weight.n)
        push(f->a, &f->inputs,
             ((struct loader_input){ .name = S("weight"),
                                     .role = ROLE_WEIGHT,
                                     .kind = KIND_NUMBERS,
                                     .columns = one_column(f->a, w->weight) }));
    if (f->task == TASK_RANKING) {
        if (!w->split.group.n)
            return err_field(err_new(INVALID, "ranking wants split.group: the column of the queries"),
                             S("split.group"));
        push(f->a, &f->inputs,
             ((struct loader_input){ .name = S("group"),
                                     .role = ROLE_GROUP,
                                     .kind = KIND_CATEGORIES,
                                     .columns = one_column(f->a, w->split.group) }));
    }
    for (size_t i = 0; i < f->job->n_files; i++) {
        const struct train_source *s = &f->job->files[i];
        push(f->a, &f->files,
             ((struct loader_file){ s->path, (enum loader_format)s->format, (enum loader_part)s->part,
                                    s->column }));
    }
    return NULL;
}

static bool stopped(void *arg)
{
    const struct train_listener *l = arg;
    return l->stopped && l->stopped(l->arg);
}

/* Rows that are split by time have no share for a test. */
static err test_check(const struct form *f)
{
    if (f->with->split.test > 0 && (f->job->at.n || f->with->split.at.n))
        return err_hint(
            err_new(INVALID, "split.test is a share of the rows, and these are split by time"),
            "data.files: [{path: FILE, part: test}] names rows that are looked at only at the end");
    return NULL;
}

static struct loader_spec loader_words(const struct form *f, const struct train_listener *l)
{
    const struct train_with *w = f->with;
    const struct train_job *j = f->job;
    bool by_time = j->at.n > 0 || w->split.at.n > 0;
    return (struct loader_spec){ .files = f->files.v,
                                 .n_files = f->files.n,
                                 .inputs = f->inputs.v,
                                 .n_inputs = f->inputs.n,
                                 .aside = j->aside,
                                 .split = { .valid = by_time ? 0 : w->split.valid,
                                            .test = by_time ? 0 : w->split.test,
                                            .seed = (uint64_t)w->seed,
                                            .group = w->split.group,
                                            .at = j->at.n ? j->at : w->split.at,
                                            .known = j->at.n ? j->known : w->split.known,
                                            .holdout_ms = w->holdout,
                                            .until_us = j->until },
                                 .memory_max = w->data.memory,
                                 .threads = j->threads,
                                 .stop = stopped,
                                 .stop_arg = (void *)(uintptr_t)l };
}

/* ---- what the loader gave → the network's words ---- */

static void tensor_of(const struct loader_tensor *t, struct net_tensor *out)
{
    static const enum net_kind kinds[] = { [KIND_NUMBERS] = NET_NUMBERS,
                                           [KIND_CATEGORIES] = NET_CATEGORIES,
                                           [KIND_ARRAY] = NET_ARRAY,
                                           [KIND_CLASS] = NET_IDS,
                                           [KIND_TOKENS] = NET_IDS };
    *out = (struct net_tensor){ .name = t->name,
                                .kind = t->kind == KIND_ARRAY && t->type == TENSOR_I64 ? NET_IDS
                                                                                       : kinds[t->kind],
                                .rank = t->rank,
                                .shift = t->shift,
                                .scale = t->scale,
                                .fill = t->fill,
                                .each = t->each,
                                .indicator = t->indicator,
                                .sizes = t->sizes,
                                .vocabulary = t->vocabulary,
                                .ids = t->classes };
    memcpy(out->shape, t->shape, sizeof out->shape);
}

static err balanced(struct arena *a, const struct loader_tensor *label, float **out)
{
    int64_t n = 0;
    float *w = NEW_N(a, float, label->classes + 1);
    for (int64_t i = 0; label->counts && i < label->classes; i++)
        n += label->counts[i];
    for (int64_t i = 0; i < label->classes; i++) {
        if (!label->counts || !label->counts[i])
            FAIL(INVALID, "classWeights: balanced needs rows of each class, and class %lld has none",
                 (long long)i);
        w[i] = (float)((double)n / ((double)label->classes * (double)label->counts[i]));
    }
    *out = w;
    return NULL;
}

static err class_weights_read(struct arena *a, const struct train_with *w, const struct loader_tensor *label,
                              const struct net_task *task, float **of)
{
    yyjson_val *v, *one;
    size_t i, n;
    float *out;
    TRY_AS(json_parse(a, w->class_weights, &v), "classWeights");
    if (yyjson_is_arr(v) && !yyjson_arr_size(v))
        return NULL;
    if (task->kind != TASK_CLASSIFICATION)
        FAIL(INVALID, "classWeights are for classes, which this task has not");
    if (yyjson_equals_str(v, "balanced"))
        return balanced(a, label, of);
    if (!yyjson_is_arr(v) || (int64_t)yyjson_arr_size(v) != label->classes)
        FAIL(INVALID, "classWeights is \"balanced\" or a list of %lld numbers, one a class",
             (long long)label->classes);
    out = NEW_N(a, float, label->classes);
    yyjson_arr_foreach (v, i, n, one) {
        if (!yyjson_is_num(one) || !(yyjson_get_num(one) >= 0) || !isfinite(yyjson_get_num(one)))
            FAIL(INVALID, "classWeights: item %zu is no number from 0", i);
        out[i] = (float)yyjson_get_num(one);
    }
    *of = out;
    return NULL;
}

/* A network's loss of two classes takes what the second weighs beside the first. */
static err class_weights(struct arena *a, const struct train_with *w, const struct loader_tensor *label,
                         struct train_set *s)
{
    float *of = NULL, *ratio;
    TRY(class_weights_read(a, w, label, &s->task, &of));
    s->class_weights = s->task.class_weights = of;
    if (!of || !s->task.binary)
        return NULL;
    if (!(of[0] > 0))
        FAIL(INVALID, "classWeights: the first of two classes wants a weight above 0");
    ratio = NEW(a, float);
    *ratio = of[1] / of[0];
    s->task.class_weights = ratio;
    return NULL;
}

static err task_make(struct arena *a, const struct form *f, struct train_set *s)
{
    const struct loader_tensor *label = s->label >= 0 ? &s->t[s->label] : NULL;
    struct net_task *t = &s->task;
    *t = (struct net_task){ .kind = f->task,
                            .loss = f->with->loss,
                            .delta = f->with->loss_with.delta,
                            .margin = f->with->loss_with.margin,
                            .label_smoothing = f->with->label_smoothing,
                            .onnx = f->job->onnx };
    t->weighted = loader_role(s->loader, ROLE_WEIGHT) != NULL;
    t->grouped = f->task == TASK_RANKING;
    s->row_elements = 1;
    t->outputs = 1;
    if (f->task == TASK_CLASSIFICATION || f->task == TASK_EMBEDDING) {
        int64_t seen = 0;
        for (int64_t i = 0; label->counts && i < label->classes; i++)
            seen += label->counts[i] > 0;
        if (label->classes < 2 || (label->counts && seen < 2))
            FAIL(INVALID, "label '%.*s' has one class only in the rows to learn from", STR(f->label));
        t->binary = f->task == TASK_CLASSIFICATION && label->classes == 2;
        t->outputs = t->binary ? 1 : f->task == TASK_EMBEDDING ? f->with->outputs : label->classes;
    } else if (f->task == TASK_LANGUAGE) {
        t->outputs = label->classes;
        s->row_elements = label->n;
    } else if (label) {
        t->outputs = label->rank > 0 ? label->n : 1;
        if (f->task == TASK_REGRESSION && f->wants != WANTS_ANY) { /* onnx: its output is the label */
            t->mean = label->mean;
            t->deviation = (double)label->deviation;
        }
    } else {
        t->outputs = 0;
        for (size_t i = 0; i < s->n_in; i++) {
            int64_t n = 1;
            for (int k = 0; k < s->in[i].rank; k++)
                n *= s->in[i].shape[k];
            t->outputs += n;
            if (s->in[i].kind != NET_NUMBERS && s->in[i].kind != NET_ARRAY)
                FAIL(INVALID, "an autoencoder takes numbers and arrays, not input '%.*s'",
                     STR(s->in[i].name));
        }
    }
    return label ? class_weights(a, f->with, label, s) : NULL;
}

static void set_order(struct arena *a, struct train_set *s)
{
    static const enum loader_role order[] = { ROLE_INPUT, ROLE_LABEL, ROLE_WEIGHT, ROLE_GROUP };
    s->in = NEW_N(a, struct net_tensor, s->n + 1);
    s->label = s->group = -1;
    for (int k = 0; k < 4; k++)
        for (size_t i = 0; i < s->n; i++) {
            if (s->t[i].role != order[k])
                continue;
            s->tensor[s->n_inputs++] = (int)i;
            if (order[k] == ROLE_INPUT)
                tensor_of(&s->t[i], &s->in[s->n_in++]);
            if (order[k] == ROLE_LABEL)
                s->label = (int)i;
            if (order[k] == ROLE_GROUP)
                s->group = (int)i;
        }
}

/* ---- what an exported model is given ---- */

static int place_of(struct arena *a, struct strs *columns, struct str name)
{
    for (size_t i = 0; i < columns->n; i++)
        if (str_eq(columns->v[i], name))
            return (int)i;
    push(a, columns, name);
    return (int)columns->n - 1;
}

static bool in_table(const struct loader_tensor *t)
{
    return t->role == ROLE_INPUT && (t->kind == KIND_NUMBERS || t->kind == KIND_CATEGORIES);
}

/* A training set's numbers stay numbers, as its feature service gives them. */
static err number_check(const struct form *f, const struct loader_tensor *t, size_t i, bool *number)
{
    *number = t->numeric[i] && net_category_numbers(&t->vocabulary[i]);
    if (!*number && among(&f->job->features, t->columns.v[i]))
        FAIL(INVALID,
             "category '%.*s' has numbers that are not whole, above 16777216 or too far apart to be ids of "
             "an exported model",
             STR(t->columns.v[i]));
    return NULL;
}

/* Columns of one tensor in the matrices. first: those of a training set in its own order, which is the service's. */
static err from_make(const struct form *f, struct train_set *s, size_t input)
{
    const struct loader_tensor *t = &s->t[s->tensor[input]];
    struct net_given *given = &s->task.given;
    int *from = NEW_N(f->a, int, t->columns.n + 1);
    for (size_t i = 0; i < t->columns.n; i++) {
        bool number = t->kind == KIND_NUMBERS;
        if (!number)
            TRY(number_check(f, t, i, &number));
        from[i] = number ? place_of(f->a, &given->numbers, t->columns.v[i])
                         : -1 - place_of(f->a, &given->texts, t->columns.v[i]);
        if (!number && !given->text.n)
            given->text = t->name;
    }
    if (t->kind == KIND_NUMBERS && !given->number.n)
        given->number = t->name;
    s->in[input].from = from;
    return NULL;
}

static err given_make(const struct form *f, struct train_set *s)
{
    struct net_given *given = &s->task.given;
    for (size_t k = 0; k < f->job->features.n; k++)
        for (size_t i = 0; i < s->n_in; i++)
            if (in_table(&s->t[s->tensor[i]]) && among(&s->t[s->tensor[i]].columns, f->job->features.v[k]))
                place_of(f->a, &given->numbers, f->job->features.v[k]);
    for (int kind = 0; kind < 2; kind++)
        for (size_t i = 0; i < s->n_in; i++)
            if (s->t[s->tensor[i]].kind == (kind ? KIND_CATEGORIES : KIND_NUMBERS))
                TRY(from_make(f, s, i));
    if (!given->number.n)
        given->number = S("features");
    return NULL;
}

err train_set_open(struct arena *a, const struct train_job *job, const struct train_listener *l,
                   struct train_set *out)
{
    struct form f = { .a = a, .job = job, .with = job->with, .wants = net_wants(job->chosen) };
    f.label = job->label.n ? job->label : job->with->label;
    f.task = task_of(job->with, f.wants, job->chosen);
    struct train_set s = { 0 };
    TRY(fit_check(&f));
    TRY(form_read(&f));
    TRY(test_check(&f));
    struct loader_spec words = loader_words(&f, l);
    TRY(loader_open(a, &words, &s.loader));
    s.facts = loader_facts(s.loader);
    s.n = loader_tensors(s.loader, &s.t);
    set_order(a, &s);
    TRY(task_make(a, &f, &s));
    if (f.wants != WANTS_ANY) /* onnx: it has inputs of its own */
        TRY(given_make(&f, &s));
    if (!s.facts.rows[LOADER_TRAIN])
        FAIL(INVALID, "there are no rows to learn from");
    TRY(measures_find(&s, job->with));
    *out = s;
    return NULL;
}

err train_set_numbers(struct arena *a, const struct train_job *job, const struct train_listener *l,
                      struct train_set *out)
{
    struct train_job numbers = *job; /* texts are left out */
    struct form f = { .a = a, .job = &numbers, .with = job->with, .wants = WANTS_TABLE };
    struct train_set s = { 0 };
    numbers.texts = (struct strs){ 0 };
    f.label = job->label.n ? job->label : job->with->label;
    f.task = task_of(job->with, f.wants, job->chosen);
    TRY(fit_check(&f));
    TRY(form_read(&f));
    TRY(test_check(&f));
    for (size_t i = 0; i < f.inputs.n; i++) {
        struct loader_input *in = &f.inputs.v[i];
        in->floats = in->role == ROLE_LABEL;
        if (in->role != ROLE_INPUT)
            continue;
        if (in->kind != KIND_NUMBERS || i > 0)
            FAIL(INVALID, "trees take one input of numbers, not input '%.*s'", STR(in->name));
        in->normalise = NORM_NONE; /* raw rows keep what is missing */
        in->indicator = false;
    }
    if (!f.inputs.n || f.inputs.v[0].role != ROLE_INPUT)
        FAIL(INVALID, "trees take one input of numbers");
    struct loader_spec words = loader_words(&f, l);
    TRY(loader_open(a, &words, &s.loader));
    s.facts = loader_facts(s.loader);
    s.n = loader_tensors(s.loader, &s.t);
    set_order(a, &s);
    TRY(task_make(a, &f, &s));
    TRY(measures_find(&s, job->with));
    *out = s;
    return NULL;
}
