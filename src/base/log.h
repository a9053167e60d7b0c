/* log: one line per event, an event name (noun.verb-past) and typed fields; JSON lines or text.
 * Threads  any; a line is one write(2). The request or job id of the thread is added to each line.
 * Below api, exec and cli nobody logs: errors are returned. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/err.h"
#include "base/str.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
struct kv_field {
    const char *key;
    enum { KV_STR, KV_I64, KV_F64, KV_BOOL } type;
    union {
        struct str s;
        int64_t i;
        double f;
        bool b;
    };
};
static inline struct kv_field kv_str_(const char *k, struct str v)
{
    return (struct kv_field){ .key = k, .type = KV_STR, .s = v };
}
static inline struct kv_field kv_z_(const char *k, const char *v)
{
    return (struct kv_field){ .key = k, .type = KV_STR, .s = str_of(v) };
}
static inline struct kv_field kv_i64_(const char *k, int64_t v)
{
    return (struct kv_field){ .key = k, .type = KV_I64, .i = v };
}
static inline struct kv_field kv_f64_(const char *k, double v)
{
    return (struct kv_field){ .key = k, .type = KV_F64, .f = v };
}
static inline struct kv_field kv_bool_(const char *k, bool v)
{
    return (struct kv_field){ .key = k, .type = KV_BOOL, .b = v };
}
// clang-format off
#define KV(k, v)                                                                            \
    _Generic((v), struct str: kv_str_, char *: kv_z_, const char *: kv_z_, double: kv_f64_, \
             float: kv_f64_, bool: kv_bool_, default: kv_i64_)(k, v)
// clang-format on

void log_write(enum log_level, const char *event, const struct kv_field *f, size_t n);
#define LOG_(level, event, ...)                                       \
    log_write(level, event, (const struct kv_field[]){ __VA_ARGS__ }, \
              sizeof((const struct kv_field[]){ __VA_ARGS__ }) / sizeof(struct kv_field))
#define log_debug(event, ...) LOG_(LOG_DEBUG, event, __VA_ARGS__)
#define log_info(event, ...) LOG_(LOG_INFO, event, __VA_ARGS__)
#define log_warn(event, ...) LOG_(LOG_WARN, event, __VA_ARGS__)
#define log_error(event, ...) LOG_(LOG_ERROR, event, __VA_ARGS__)
/* The error with its code, text and hint as fields. */
void log_err(const char *event, err e);
/* Once, before threads start: the lowest level written, text or JSON. */
void log_setup(enum log_level min, bool json);
/* The lowest level written; may be changed at any time. */
enum log_level log_min(void);
void log_set_min(enum log_level);
/* The id added to each line of this thread; "" for none. Copied (at most 63 bytes). */
void log_context(struct str id);
/* The trace id added beside it, until the next log_context(). Copied (at most 32 bytes). */
void log_trace(struct str id);
