// SPDX-License-Identifier: Apache-2.0
/* Logging, tracing and shared memory, as far as a client may set them over the network: no path of this machine. */
#include "serve/ext.h"

/* ---- logging: three switches and a number, of one level ---- */

struct log_change {
    bool info, warning;
    uint64_t verbose;
};

static err log_one(struct log_change *to, struct str key, yyjson_val *v)
{
    bool *flag = str_is(key, "log_info") ? &to->info : str_is(key, "log_warning") ? &to->warning : NULL;
    if (flag && yyjson_is_bool(v))
        *flag = yyjson_get_bool(v);
    else if (str_is(key, "log_verbose_level") && yyjson_is_uint(v))
        to->verbose = yyjson_get_uint(v);
    else if (str_is(key, "log_error") && yyjson_is_true(v))
        return NULL;
    else if (str_is(key, "log_format") &&
             (str_is(json_text(v), "ISO8601") || str_is(json_text(v), "default")))
        return NULL; /* two names of the one form that there is */
    else if (str_is(key, "log_error") || str_is(key, "log_format") || str_is(key, "log_file"))
        FAIL(UNSUPPORTED, "'%.*s' is set when the server starts, not over the network", STR(key));
    else
        FAIL(INVALID, "'%.*s' is no setting of the log, or not of its type", STR(str_sub(key, 0, 64)));
    return NULL;
}

static err log_change(struct call *c)
{
    enum log_level min = log_min();
    struct log_change to = { min <= LOG_INFO, min <= LOG_WARN, min == LOG_DEBUG };
    size_t i, max;
    yyjson_val *k, *v;
    TRY(auth_may(req_who(c->r), S("server.operate"), S("*")));
    yyjson_obj_foreach (c->body, i, max, k, v)
        TRY(log_one(&to, json_text(k), v));
    log_set_min(to.verbose ? LOG_DEBUG : to.info ? LOG_INFO : to.warning ? LOG_WARN : LOG_ERROR);
    return NULL;
}

err log_settings(struct call *c)
{
    if (c->body && yyjson_obj_size(c->body))
        TRY(log_change(c));
    enum log_level min = log_min();
    json_obj(&c->j);
    json_kstr(&c->j, "log_file", S(""));
    json_kbool(&c->j, "log_info", min <= LOG_INFO);
    json_kbool(&c->j, "log_warning", min <= LOG_WARN);
    json_kbool(&c->j, "log_error", true);
    json_ki64(&c->j, "log_verbose_level", min == LOG_DEBUG);
    json_kstr(&c->j, "log_format", S("ISO8601"));
    json_obj_end(&c->j);
    return NULL;
}

/* ---- tracing: whether one in so many requests that bring no trace begins one (trace.c) ---- */

enum { RATE_MAX = 1000000000 };
static const struct { /* what stays as it is */
    struct str name, value;
} fixed[] = {
    { S_INIT("log_frequency"), S_INIT("0") },
    { S_INIT("trace_mode"), S_INIT("triton") },
    { S_INIT("trace_file"), S_INIT("") },
};
enum { FIXED = sizeof fixed / sizeof *fixed };

static err fixed_one(struct str key, yyjson_val *v)
{
    size_t i = 0;
    while (i < FIXED && !str_eq(fixed[i].name, key))
        i++;
    if (i == FIXED)
        FAIL(INVALID, "'%.*s' is no setting of the trace", STR(str_sub(key, 0, 64)));
    if (v && !str_eq(json_text(v), fixed[i].value))
        FAIL(UNSUPPORTED, "'%.*s' cannot be set: this server writes no traces of Triton's form", STR(key));
    return NULL;
}

static err level_one(yyjson_val *v, struct trace_setting *to)
{
    to->level = v && str_is(json_text(v), "TIMESTAMPS") ? TRACE_ON : TRACE_OFF;
    if (v && to->level == TRACE_OFF && !str_is(json_text(v), "OFF"))
        FAIL(UNSUPPORTED, "trace_level is OFF or TIMESTAMPS: values of tensors are not traced");
    return NULL;
}

static err whole_one(struct str key, yyjson_val *v, int64_t min, int64_t *to)
{
    if (!str_i64(json_text(v), to) || *to < min || *to > RATE_MAX)
        FAIL(INVALID, "%.*s is a whole number from %lld to %d, as text", STR(key), (long long)min, RATE_MAX);
    return NULL;
}

/* null, or nothing in the list: what it is without this setting. Else a text, or a list of one. */
static err trace_one(struct str key, yyjson_val *v, const struct trace_setting *none,
                     struct trace_setting *to)
{
    if (yyjson_is_arr(v) && yyjson_arr_size(v) <= 1)
        v = yyjson_arr_get_first(v);
    if (yyjson_is_null(v))
        v = NULL;
    if (str_is(key, "trace_level") && v)
        return level_one(v, to);
    if (str_is(key, "trace_rate") && v)
        return whole_one(key, v, 1, &to->rate);
    if (str_is(key, "trace_count") && v)
        return whole_one(key, v, TRACE_COUNT_ANY, &to->count);
    if (str_is(key, "trace_level"))
        to->level = none->level;
    else if (str_is(key, "trace_rate"))
        to->rate = none->rate;
    else if (str_is(key, "trace_count"))
        to->count = none->count;
    else
        return fixed_one(key, v);
    return NULL;
}

/* Who has a project alone sets that of its models, and not the server's. */
static err trace_change(struct call *c)
{
    const struct trace_setting *none = c->name.n ? &trace_inherited : &trace_at_start;
    struct trace_setting was = trace_setting_own(c->s, c->project, c->name), to = was;
    size_t i, max;
    yyjson_val *k, *v;
    TRY(auth_may(req_who(c->r), S("model.operate"), c->project));
    yyjson_obj_foreach (c->body, i, max, k, v)
        TRY(trace_one(json_text(k), v, none, &to));
    if (to.level == was.level && to.rate == was.rate && to.count == was.count)
        return NULL;
    if (!c->name.n)
        TRY(auth_may(req_who(c->r), S("server.operate"), S("*")));
    return trace_setting_put(c->s, c->project, c->name, to);
}

static err model_there(struct call *c)
{
    const struct entry *e;
    const struct served *v;
    unsigned slot;
    const struct snap *snap = snap_enter(c->s, &slot);
    err failed = c->name.n ? served_find(c, snap, &e, &v) : NULL;
    snap_leave(c->s, slot);
    return failed;
}

err trace_setting(struct call *c)
{
    TRY(model_there(c));
    if (c->body && yyjson_obj_size(c->body))
        TRY(trace_change(c));
    struct trace_setting now = trace_setting_now(c->s, c->project, c->name);
    json_obj(&c->j);
    json_key(&c->j, S("trace_level"));
    json_arr(&c->j);
    json_str(&c->j, now.level == TRACE_ON ? S("TIMESTAMPS") : S("OFF"));
    json_arr_end(&c->j);
    json_kstr(&c->j, "trace_rate", fmt(c->a, "%lld", (long long)now.rate));
    json_kstr(&c->j, "trace_count", fmt(c->a, "%lld", (long long)now.count));
    for (size_t i = 0; i < FIXED; i++) {
        json_key(&c->j, fixed[i].name);
        json_str(&c->j, fixed[i].value);
    }
    json_obj_end(&c->j);
    return NULL;
}

/* ---- shared memory: off, as a client could name what is not its own ---- */

err shared_memory_status(struct call *c)
{
    if (c->name.n)
        FAIL(NOT_FOUND, "there is no shared memory region '%.*s'", STR(str_sub(c->name, 0, 64)));
    json_raw(&c->j, S("[]")); /* as a message: without regions */
    return NULL;
}

err shared_memory_refuse(struct call *c)
{
    (void)c;
    FAIL(UNSUPPORTED, "shared memory of clients is off; tensors come in the request");
}

err shared_memory_nothing(struct call *c)
{
    json_raw(&c->j, S("{}"));
    return NULL;
}
