// SPDX-License-Identifier: Apache-2.0
#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <yyjson.h>

struct json json_new(struct arena *a)
{
    return (struct json){ .b = buf_new(a) };
}

static void put(struct json *j, struct str text)
{
    buf_str(&j->b, text);
}

static void value_starts(struct json *j)
{
    if (j->comma)
        put(j, S(","));
    j->comma = true;
}

static void open_with(struct json *j, struct str bracket)
{
    value_starts(j);
    put(j, bracket);
    j->comma = false;
}

static void close_with(struct json *j, struct str bracket)
{
    put(j, bracket);
    j->comma = true;
}

void json_obj(struct json *j)
{
    open_with(j, S("{"));
}

void json_obj_end(struct json *j)
{
    close_with(j, S("}"));
}

void json_arr(struct json *j)
{
    open_with(j, S("["));
}

void json_arr_end(struct json *j)
{
    close_with(j, S("]"));
}

/* What a byte becomes after a backslash; 0: it stands as it is, 'u': as \u00XX. */
static char escape_of(unsigned char c)
{
    switch (c) {
    case '"':
    case '\\':
        return (char)c;
    case '\n':
        return 'n';
    case '\r':
        return 'r';
    case '\t':
        return 't';
    case '\b':
        return 'b';
    case '\f':
        return 'f';
    default:
        return c < 0x20 || c == 0x7f ? 'u' : 0;
    }
}

static void put_escaped(struct json *j, unsigned char c)
{
    char e = escape_of(c);
    if (e == 'u')
        buf_fmt(&j->b, "\\u%04x", c);
    else
        buf_put(&j->b, (char[]){ '\\', e }, 2);
}

static void put_quoted(struct json *j, struct str s)
{
    put(j, S("\""));
    size_t from = 0, i = 0; /* from..i is plain */
    while (i < s.n) {
        unsigned char c = (unsigned char)s.p[i];
        size_t n = c < 0x80 ? 1 : str_utf8_len(str_sub(s, i, s.n));
        if (n && (c >= 0x80 || !escape_of(c))) {
            i += n;
            continue;
        }
        put(j, str_sub(s, from, i));
        if (n)
            put_escaped(j, c);
        else
            put(j, S("\xef\xbf\xbd"));
        from = ++i;
    }
    put(j, str_sub(s, from, i));
    put(j, S("\""));
}

void json_key(struct json *j, struct str key)
{
    value_starts(j);
    put_quoted(j, key);
    put(j, S(":"));
    j->comma = false;
}

void json_str(struct json *j, struct str s)
{
    value_starts(j);
    put_quoted(j, s);
}

void json_i64(struct json *j, int64_t v)
{
    value_starts(j);
    buf_fmt(&j->b, "%lld", (long long)v);
}

void json_f64(struct json *j, double v)
{
    if (!isfinite(v)) {
        json_null(j);
        return;
    }
    value_starts(j);
    j->b.n += f64_text(v, buf_room(&j->b, 32));
}

void json_bool(struct json *j, bool v)
{
    json_raw(j, v ? S("true") : S("false"));
}

void json_null(struct json *j)
{
    json_raw(j, S("null"));
}

void json_raw(struct json *j, struct str text)
{
    value_starts(j);
    put(j, text);
}

struct str json_get(const struct json *j)
{
    return buf_get(&j->b);
}

void json_kstr(struct json *j, const char *key, struct str s)
{
    json_key(j, str_of(key));
    json_str(j, s);
}

void json_ki64(struct json *j, const char *key, int64_t v)
{
    json_key(j, str_of(key));
    json_i64(j, v);
}

void json_kf64(struct json *j, const char *key, double v)
{
    json_key(j, str_of(key));
    json_f64(j, v);
}

void json_kbool(struct json *j, const char *key, bool v)
{
    json_key(j, str_of(key));
    json_bool(j, v);
}

void json_kraw(struct json *j, const char *key, struct str text)
{
    json_key(j, str_of(key));
    json_raw(j, text);
}

/* v as a short decimal m / 10^places, both exact in a double, so that reading it rounds once, back to v. */
static size_t short_decimal(double v, char out[32])
{
    double size = fabs(v), ten = 1;
    if (size >= 1e15 || size < 1e-5)
        return 0;
    for (int places = 0; places <= 20; places++, ten *= 10) {
        double m = rint(size * ten);
        if (m >= 0x1p53)
            return 0;
        if (m / ten != size)
            continue;
        const char *minus = v < 0 ? "-" : "";
        uint64_t digits = (uint64_t)m, scale = 1;
        for (int i = 0; i < places; i++)
            scale *= 10;
        if (!places)
            return (size_t)snprintf(out, 32, "%s%llu", minus, (unsigned long long)digits);
        return (size_t)snprintf(out, 32, "%s%llu.%0*llu", minus, (unsigned long long)(digits / scale), places,
                                (unsigned long long)(digits % scale));
    }
    return 0;
}

size_t f64_text(double v, char out[32])
{
    size_t n = 0;
    if (v == 0)
        return (size_t)snprintf(out, 32, signbit(v) ? "-0.0" : "0");
    if ((n = short_decimal(v, out)))
        return n;
    bool normal = fpclassify(v) == FP_NORMAL; /* subnormals may need fewer than 15 digits */
    for (int digits = normal ? 15 : 1; digits <= 17; digits++) {
        n = (size_t)snprintf(out, 32, "%.*g", digits, v);
        if (strtod(out, NULL) == v)
            break;
    }
    return n;
}

struct str json_text(const struct yyjson_val *v)
{
    yyjson_val *of = (yyjson_val *)(uintptr_t)v; /* yyjson reads by pointers that could write */
    return yyjson_is_str(of) ? (struct str){ yyjson_get_str(of), yyjson_get_len(of) } : S("");
}

struct str json_text_in(const struct yyjson_val *object, const char *key)
{
    return json_text(yyjson_obj_get((yyjson_val *)(uintptr_t)object, key));
}
