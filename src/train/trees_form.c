// SPDX-License-Identifier: Apache-2.0
/* What a form may say of trees: the fields are those of all models, and what trees have no use for is refused where it is set. */
#include "train/train.h"

/* Fields that only networks have, and what trees have in their place. A path through a list is of its items. */
static const struct {
    const char *path, *instead;
} of_networks[] = {
    { "optimizer", "model.trees.learningRate weighs each new tree, model.trees.l2 holds its leaves back" },
    { "schedule", "model.trees.learningRate is the same in all rounds" },
    { "epochs", "model.trees.rounds is how many trees are learned" },
    { "steps", "model.trees.rounds is how many trees are learned" },
    { "batchSize", "each tree sees all rows, or the share of them that model.trees.subsample says" },
    { "precision", "trees branch on float32; model.trees.bins is how finely they look at a number" },
    { "labelSmoothing", "model.trees.l2 and model.trees.minChildWeight keep leaves from being too sure" },
    { "evaluateEvery", "the rows held out are looked at in each round" },
    { "checkpoint", "trees are learned from the start; model.trees.rounds bounds how many" },
    { "memory", "resources.memory is what the rows must fit into" },
    { "data.memory", "trees see all rows at once; resources.memory is what they must fit into" },
    { "data.categories", "trees take columns of numbers; a code that is a whole number is one" },
    { "inputs.fill", "what is missing takes the branch that fits it best" },
    { "lossWith.margin", "pairs are weighed by their logistic loss, which has none" },
    { "outputs", "a row has one number, or one for each class" },
};

static bool is_set(yyjson_val *form, struct str path)
{
    struct str rest = path, part;
    yyjson_val *one;
    size_t i, n;
    yyjson_arr_foreach (form, i, n, one)
        if (is_set(one, path))
            return true;
    if (!str_cut(&rest, '.', &part))
        return form && !yyjson_is_null(form) && !yyjson_is_arr(form);
    return is_set(yyjson_obj_getn(form, part.p, part.n), rest);
}

static err refused(struct arena *a, struct str at, const char *path, const char *why, const char *hint)
{
    struct str field = fmt(a, "%.*s%s%s", STR(at), at.n ? "." : "", path);
    return err_field(err_hint(err_new(INVALID, "%.*s: %s", STR(field), why), "%s", hint), field);
}

static err form_check(struct arena *a, struct str at, yyjson_val *form, const struct train_with *w)
{
    const struct train_input *in = w->inputs.v;
    for (size_t i = 0; i < sizeof of_networks / sizeof *of_networks; i++)
        if (is_set(form, str_of(of_networks[i].path)))
            return refused(a, at, of_networks[i].path, "trees have no use for it", of_networks[i].instead);
    for (size_t i = 0; i < w->inputs.n; i++)
        if (str_is(str_of(train_missing[in[i].missing]), "mean") ||
            str_is(str_of(train_missing[in[i].missing]), "fill"))
            return refused(a, at, "inputs.missing", "trees fill nothing in",
                           "what is missing takes the branch that fits it best");
    if (w->early_stop.patience && w->model.trees.stop_after &&
        w->early_stop.patience != w->model.trees.stop_after)
        return refused(a, at, "model.trees.stopAfter", "earlyStop.patience says another number of rounds",
                       "say it once");
    if (w->task == TASK_LANGUAGE || w->task == TASK_AUTOENCODER || w->task == TASK_EMBEDDING ||
        w->loss == LOSS_TRIPLET)
        return refused(a, at, w->task ? "task" : "loss", "trees do not learn that",
                       "they learn classification, regression and ranking");
    return NULL;
}

err train_form_chosen(struct arena *a, struct str at, yyjson_val *form, const struct train_with *with,
                      const struct field **out)
{
    err e = train_model_chosen(a, yyjson_obj_get(form, "model"), out);
    if (e)
        return at.n ? err_field(err_wrap(e, "%.*s", STR(at)), fmt(a, "%.*s.model", STR(at))) : e;
    return str_is((*out)->name, "trees") ? form_check(a, at, form, with) : NULL;
}
