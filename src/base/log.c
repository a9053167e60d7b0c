// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"
#include "base/json.h"
#include "base/sys.h"

#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <unistd.h>

enum { VALUE_MAX = 8192 };

static struct {
    _Atomic enum log_level min;
    bool json;
} settings = { LOG_INFO, false };

static _Thread_local struct {
    char text[63], trace[32];
    size_t n, trace_n;
} context;

static const struct str level_names[] = { S_INIT("debug"), S_INIT("info"), S_INIT("warn"), S_INIT("error") };

void log_setup(enum log_level min, bool json)
{
    log_set_min(min);
    settings.json = json;
}

enum log_level log_min(void)
{
    return atomic_load_explicit(&settings.min, memory_order_relaxed);
}

void log_set_min(enum log_level min)
{
    atomic_store_explicit(&settings.min, min, memory_order_relaxed);
}

void log_context(struct str id)
{
    context.n = id.n < sizeof context.text ? id.n : sizeof context.text;
    if (context.n)
        memcpy(context.text, id.p, context.n);
    context.trace_n = 0;
}

void log_trace(struct str id)
{
    context.trace_n = id.n < sizeof context.trace ? id.n : sizeof context.trace;
    if (context.trace_n)
        memcpy(context.trace, id.p, context.trace_n);
}

/* The character at s, its length in *n; U+FFFD for a byte that starts none. */
static uint32_t char_at(struct str s, size_t *n)
{
    const uint8_t *p = (const uint8_t *)s.p;
    *n = str_utf8_len(s);
    switch (*n) {
    case 1:
        return p[0];
    case 2:
        return (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
    case 3:
        return (p[0] & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
    case 4:
        return (p[0] & 7u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu);
    default:
        *n = 1;
        return 0xfffd;
    }
}

/* Could end the line, move a terminal's cursor, or turn the text around. */
static bool is_unsafe(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029 ||
           (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

/* A JSON string in which nothing is unsafe. */
static void put_quoted(struct buf *b, struct str s)
{
    bool cut = s.n > VALUE_MAX;
    s = str_sub(s, 0, VALUE_MAX);
    buf_str(b, S("\""));
    while (s.n) {
        size_t n;
        uint32_t c = char_at(s, &n);
        if (c == '"' || c == '\\')
            buf_put(b, (char[]){ '\\', (char)c }, 2);
        else if (c == '\n')
            buf_str(b, S("\\n"));
        else if (is_unsafe(c))
            buf_fmt(b, "\\u%04x", c);
        else if (c == 0xfffd)
            buf_str(b, S("\xef\xbf\xbd"));
        else
            buf_put(b, s.p, n);
        s = str_sub(s, n, s.n);
    }
    buf_str(b, cut ? S("...\"") : S("\""));
}

static bool is_bare(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (c <= ' ' || c == '"' || c == '\\' || c == '=' || c >= 0x7f) /* char is signed: above ASCII too */
            return false;
    }
    return s.n > 0 && s.n <= VALUE_MAX;
}

static void put_text(struct buf *b, struct str s)
{
    if (!settings.json && is_bare(s))
        buf_str(b, s);
    else
        put_quoted(b, s);
}

static void put_value(struct buf *b, const struct kv_field *f)
{
    switch (f->type) {
    case KV_STR:
        put_text(b, f->s);
        break;
    case KV_I64:
        buf_fmt(b, "%lld", (long long)f->i);
        break;
    case KV_F64:
        if (isfinite(f->f))
            b->n += f64_text(f->f, buf_room(b, 32));
        else
            buf_str(b, settings.json ? S("null") : isnan(f->f) ? S("nan") : f->f > 0 ? S("inf") : S("-inf"));
        break;
    case KV_BOOL:
        buf_str(b, f->b ? S("true") : S("false"));
        break;
    }
}

static void put_field(struct buf *b, const struct kv_field *f)
{
    buf_str(b, settings.json ? S(",") : S(" "));
    put_text(b, str_of(f->key));
    buf_str(b, settings.json ? S(":") : S("="));
    put_value(b, f);
}

/* Always three digits of the fraction, so that the columns stand. */
static struct str clock_text(struct arena *a)
{
    int64_t us = now_us();
    struct civil c = civil_of(us);
    return fmt(a, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", c.year, c.month, c.day, c.hour, c.minute, c.second,
               (int)(us / 1000 % 1000));
}

static void put_head(struct buf *b, enum log_level level, const char *event)
{
    struct str at = clock_text(b->a), name = level_names[level];
    if (settings.json)
        buf_fmt(b, "{\"time\":\"%.*s\",\"level\":\"%.*s\",\"event\":", STR(at), STR(name));
    else
        buf_fmt(b, "%.*s %.*s ", STR(at), STR(name));
    put_text(b, str_of(event));
    if (context.n)
        put_field(b, &(struct kv_field){ .key = "ctx", .type = KV_STR, .s = { context.text, context.n } });
    if (context.trace_n)
        put_field(
            b, &(struct kv_field){ .key = "trace", .type = KV_STR, .s = { context.trace, context.trace_n } });
}

static void line_out(struct str line)
{
    while (line.n) {
        ssize_t n = write(2, line.p, line.n);
        if (n < 0 && errno != EINTR)
            return; /* nowhere to say so */
        if (n > 0)
            line = str_sub(line, (size_t)n, line.n);
    }
}

void log_write(enum log_level level, const char *event, const struct kv_field *f, size_t n)
{
    if (level < log_min())
        return;
    int errno_before = errno;
    auto_arena struct arena *a = arena_new(0);
    struct buf b = buf_new(a);
    put_head(&b, level, event);
    for (size_t i = 0; i < n; i++)
        put_field(&b, &f[i]);
    buf_str(&b, settings.json ? S("}\n") : S("\n"));
    line_out(buf_get(&b));
    errno = errno_before;
}

void log_err(const char *event, err e)
{
    if (!e)
        return;
    struct kv_field f[4] = { KV("code", err_table[e->code].name), KV("text", e->text) };
    size_t n = 2;
    if (e->hint.n)
        f[n++] = KV("hint", e->hint);
    if (e->field.n)
        f[n++] = KV("field", e->field);
    log_write(LOG_ERROR, event, f, n);
}
