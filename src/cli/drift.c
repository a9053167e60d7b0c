// SPDX-License-Identifier: Apache-2.0
/* drift: what a Monitor saw, to look at rather than to read: the last judged window with a bar for each feature, the
 * windows before, the last alarm. The text says whose window it is, as that may be an earlier version's. */
#include "cli/cli.h"

enum { BAR_BOUND = 4, BAR_MAX = 24, FEATURES_SHOWN = 40, WINDOWS_SHOWN = 10 };

/* "2001-06-23 14:29"; "" if there is none. */
static struct str when(struct arena *a, yyjson_val *v, const char *path)
{
    struct str t = json_text_at(a, v, path);
    if (t.n < 16)
        return t;
    return fmt(a, "%.*s %.*s", STR(str_sub(t, 0, 10)), STR(str_sub(t, 11, 16)));
}

static struct str ago(struct arena *a, yyjson_val *v, const char *path)
{
    int64_t us;
    if (!time_parse(json_text_at(a, v, path), &us))
        return S("before");
    return fmt(a, "%.*s ago", STR(age_text(a, us)));
}

static long long count(yyjson_val *v, const char *path)
{
    yyjson_val *n = json_at(v, path);
    return n ? (long long)yyjson_get_num(n) : 0;
}

/* The number with three digits; "" if there is none. */
static struct str number(struct arena *a, yyjson_val *v, const char *path)
{
    yyjson_val *n = json_at(v, path);
    return yyjson_is_num(n) ? fmt(a, "%.3f", yyjson_get_num(n)) : S("");
}

static struct str auc_text(struct arena *a, yyjson_val *v, const char *outcomes, const char *auc)
{
    struct str x = number(a, v, auc);
    if (!count(v, outcomes))
        return S("no outcomes yet");
    return fmt(a, "%lld outcomes%s%.*s", count(v, outcomes), x.n ? ", realised AUC " : "", STR(x));
}

/* Light up to the bound, dark beyond it. */
static struct str bar(struct arena *a, double ratio)
{
    struct buf b = buf_new(a);
    int n = ratio > BAR_MAX ? BAR_MAX + 1 : (int)(ratio * BAR_BOUND + 0.5);
    if (ratio >= 1 && n <= BAR_BOUND)
        n = BAR_BOUND + 1; /* over is seen to be over */
    for (int i = 0; i < n && i < BAR_MAX; i++)
        buf_fmt(&b, "%s", i < BAR_BOUND ? "░" : "█");
    if (n > BAR_MAX)
        buf_fmt(&b, "…");
    return buf_get(&b);
}

/* ---- the window that is open ---- */

static void now_print(struct arena *a, yyjson_val *v, struct str version)
{
    printf("now:        %.*s, ", STR(version));
    if (!json_at(v, "status.window.until"))
        printf("no request yet since the server started or the version took over\n");
    else
        printf("window %.*s to %.*s, open: %lld predictions, %.*s\n", STR(when(a, v, "status.window.from")),
               STR(when(a, v, "status.window.until")), count(v, "status.window.predictions"),
               STR(auc_text(a, v, "status.window.outcomes", "status.window.auc")));
}

/* ---- the last judged window ---- */

/* Windows of the version that closed after the judged one, and could not be judged. */
static size_t unjudged(struct arena *a, yyjson_val *v, struct str version)
{
    yyjson_val *list = json_at(v, "status.history"), *past;
    size_t n = 0;
    for (size_t i = yyjson_arr_size(list); i > 0; i--) {
        past = yyjson_arr_get(list, i - 1);
        if (json_at(past, "share") || !str_eq(json_text_at(a, past, "version"), version))
            break;
        n++;
    }
    return n;
}

static bool score_over(struct arena *a, yyjson_val *v)
{
    size_t i, n;
    yyjson_val *f;
    yyjson_arr_foreach (json_at(v, "status.drift"), i, n, f)
        if (str_is(json_text_at(a, f, "name"), "score"))
            return yyjson_get_bool(json_at(f, "over"));
    return false;
}

static void judged_print(struct arena *a, yyjson_val *v, struct str version)
{
    struct str of = json_text_at(a, v, "status.judged.version");
    size_t own = unjudged(a, v, version);
    if (own)
        printf(
            "            %zu windows of %.*s closed that could not be judged: too few predictions, or no baseline\n",
            own, STR(version));
    else if (of.n && !str_eq(of, version))
        printf("            no window closed yet; the last judged window is of %.*s\n", STR(of));
    if (!of.n) {
        printf("judged:     no window yet\n");
        return;
    }
    printf("judged:     %.*s, window %.*s to %.*s: %lld predictions, %.*s; judged %.*s\n", STR(of),
           STR(when(a, v, "status.judged.from")), STR(when(a, v, "status.judged.until")),
           count(v, "status.judged.predictions"),
           STR(auc_text(a, v, "status.judged.outcomes", "status.judged.auc")),
           STR(ago(a, v, "status.judged.at")));
    printf("            %lld of %lld features%s over a bound\n", count(v, "status.judged.over"),
           count(v, "status.judged.features"), score_over(a, v) ? ", and the score," : "");
}

static void features_print(struct arena *a, yyjson_val *v)
{
    size_t i, n;
    yyjson_val *f, *list = json_at(v, "status.drift");
    struct table t = table_new(a, 5);
    const char *head[] = { "FEATURE", "WASSERSTEIN", "PSI", "OVER", "TO THE BOUND ░, BEYOND █" };
    if (yyjson_arr_size(list) == 0)
        return;
    for (i = 0; i < 5; i++)
        table_cell(&t, str_of(head[i]));
    yyjson_arr_foreach (list, i, n, f) {
        if (i == FEATURES_SHOWN)
            break;
        table_cell(&t, json_text_at(a, f, "name"));
        table_cell(&t, number(a, f, "wasserstein"));
        table_cell(&t, number(a, f, "psi"));
        table_cell(&t, yyjson_get_bool(json_at(f, "over")) ? S("!") : S(" "));
        struct str b = bar(a, yyjson_get_num(json_at(f, "ratio")));
        table_cell(&t, b.n ? b : S(" "));
    }
    printf("\n");
    table_print(&t, stdout);
    if (yyjson_arr_size(list) > FEATURES_SHOWN)
        printf("… and %zu more: -o json\n", yyjson_arr_size(list) - FEATURES_SHOWN);
}

/* ---- what was before ---- */

static void history_print(struct arena *a, yyjson_val *v)
{
    size_t i, n, from = yyjson_arr_size(json_at(v, "status.history"));
    yyjson_val *past;
    struct table t = table_new(a, 6);
    const char *head[] = { "WINDOW FROM", "UNTIL", "VERSION", "PREDICTIONS", "AUC", "DRIFTED" };
    if (from == 0)
        return;
    from = from > WINDOWS_SHOWN ? from - WINDOWS_SHOWN : 0;
    for (i = 0; i < 6; i++)
        table_cell(&t, str_of(head[i]));
    yyjson_arr_foreach (json_at(v, "status.history"), i, n, past) {
        double share = yyjson_get_num(json_at(past, "share"));
        struct buf b = buf_new(a);
        if (i < from)
            continue;
        table_cell(&t, when(a, past, "from"));
        table_cell(&t, when(a, past, "until"));
        table_cell(&t, json_text_at(a, past, "version"));
        table_cell(&t, fmt(a, "%lld", count(past, "predictions")));
        table_cell(&t, number(a, past, "auc"));
        for (int k = 0; k < (int)(share * 20 + 0.5); k++)
            buf_fmt(&b, "█");
        table_cell(&t, json_at(past, "share") ? fmt(a, "%3.0f %% %.*s", share * 100, STR(buf_get(&b)))
                                              : S("not judged"));
    }
    printf("\n");
    table_print(&t, stdout);
}

static void alarm_print(struct arena *a, yyjson_val *v)
{
    if (!json_at(v, "status.lastAlarm.time"))
        return;
    printf("\nlast alarm: %.*s, told %.*s, of %.*s: %.*s\n", STR(when(a, v, "status.lastAlarm.time")),
           STR(ago(a, v, "status.lastAlarm.at")), STR(json_text_at(a, v, "status.lastAlarm.version")),
           STR(json_text_at(a, v, "status.lastAlarm.reason")));
}

static void drift_table(struct cli *c, yyjson_val *v)
{
    struct str version = json_text_at(c->a, v, "status.version"),
               alarm = json_text_at(c->a, v, "status.alarm"),
               message = json_text_at(c->a, v, "status.message");
    printf("%.*s:  alarm %.*s, %lld told so far, %lld windows closed\n",
           STR(json_text_at(c->a, v, "metadata.name")), STR(alarm.n ? alarm : S("none")),
           count(v, "status.events"), count(v, "status.windowsClosed"));
    if (message.n)
        printf("message:    %.*s\n", STR(message));
    if (version.n)
        now_print(c->a, v, version);
    judged_print(c->a, v, version);
    features_print(c->a, v);
    history_print(c->a, v);
    alarm_print(c->a, v);
}

static err drift_run(struct cli *c)
{
    struct str path;
    yyjson_val *v;
    TRY(cli_path(c, S("monitors"), str_of(c->args[0]), NULL, NULL, &path));
    TRY(cli_call(c, M_GET, path, S(""), &v));
    return cli_show(c, v, drift_table);
}

const struct cli_verb verb_drift = {
    .name = "drift",
    .args = "MONITOR",
    .doc = "Show how far live features are from those of the training, window by window, and the last alarm.",
    .examples = "  dhow drift late_drift\n"
                "  dhow drift late_drift -o json",
    .args_min = 1,
    .args_max = 1,
    .run = drift_run,
    .client = true,
};
