// SPDX-License-Identifier: Apache-2.0
#include "base/trace.h"
#include "base/sys.h"

enum { MEMBERS_MAX = 32, KEY_MAX = 256, TENANT_MAX = 241, SYSTEM_MAX = 14, VALUE_MAX = 256 };

/* ---- hex: lower case alone ---- */

static int nibble(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* n bytes of 2n digits; *any: not all of them zero. */
static bool hex_read(const char *p, size_t n, uint8_t *out, bool *any)
{
    *any = false;
    for (size_t i = 0; i < n; i++) {
        int high = nibble(p[2 * i]), low = nibble(p[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        out[i] = (uint8_t)(high << 4 | low);
        *any = *any || out[i];
    }
    return true;
}

static char *hex_write(char *to, const uint8_t *p, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        *to++ = digits[p[i] >> 4];
        *to++ = digits[p[i] & 15];
    }
    return to;
}

/* ---- our ids ---- */

/* Ids only have to differ: one call to the system a thread. */
static uint64_t id_random(void)
{
    static _Thread_local uint64_t state;
    while (!state)
        random_bytes(&state, sizeof state);
    uint64_t id;
    while (!(id = splitmix(&state)))
        ;
    return id;
}

static void span_make(struct trace *t)
{
    uint64_t id = id_random();
    memcpy(t->span, &id, sizeof id);
}

void trace_begin(struct trace *out)
{
    uint64_t id[2] = { id_random(), id_random() };
    *out = (struct trace){ .sampled = true };
    memcpy(out->id, id, sizeof id);
    span_make(out);
}

/* ---- tracestate ---- */

static bool key_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '*' || c == '/';
}

static bool key_part(struct str s, size_t max, bool digit_first)
{
    bool good = s.n >= 1 && s.n <= max &&
                ((s.p[0] >= 'a' && s.p[0] <= 'z') || (digit_first && s.p[0] >= '0' && s.p[0] <= '9'));
    for (size_t i = 0; good && i < s.n; i++)
        good = key_char(s.p[i]);
    return good;
}

/* "rojo", or "tenant@system". */
static bool key_ok(struct str key)
{
    size_t at = str_find(key, '@');
    if (at == key.n)
        return key_part(key, KEY_MAX, false);
    return key_part(str_sub(key, 0, at), TENANT_MAX, true) &&
           key_part(str_sub(key, at + 1, key.n), SYSTEM_MAX, false);
}

static bool value_ok(struct str v)
{
    bool good = v.n >= 1 && v.n <= VALUE_MAX && v.p[v.n - 1] != ' ';
    for (size_t i = 0; good && i < v.n; i++)
        good = v.p[i] >= 0x20 && v.p[i] <= 0x7e && v.p[i] != ',' && v.p[i] != '=';
    return good;
}

/* Members that are empty are allowed and not counted; a key stands once. */
static bool state_ok(struct str s)
{
    struct str keys[MEMBERS_MAX], member;
    size_t n = 0;
    while (str_cut(&s, ',', &member)) {
        member = str_trim(member);
        if (!member.n)
            continue;
        struct str key = str_sub(member, 0, str_find(member, '='));
        if (n == MEMBERS_MAX || key.n == member.n || !key_ok(key) ||
            !value_ok(str_sub(member, key.n + 1, member.n)))
            return false;
        for (size_t i = 0; i < n; i++)
            if (str_eq(keys[i], key))
                return false;
        keys[n++] = key;
    }
    return n > 0;
}

/* ---- both ---- */

/* version "-" trace-id "-" parent-id "-" flags; a version after ours may say more behind another "-". */
bool trace_parse(struct str traceparent, struct str tracestate, struct trace *out)
{
    const char *p = traceparent.p;
    uint8_t version, flags;
    bool any, id, parent;
    if (traceparent.n < TRACE_TEXT || p[2] != '-' || p[35] != '-' || p[52] != '-')
        return false;
    struct trace t = { 0 };
    if (!hex_read(p, 1, &version, &any) || !hex_read(p + 3, 16, t.id, &id) ||
        !hex_read(p + 36, 8, t.parent, &parent) || !hex_read(p + 53, 1, &flags, &any))
        return false;
    bool longer = traceparent.n > TRACE_TEXT;
    if (version == 0xff || !id || !parent || (longer && (version == 0 || p[TRACE_TEXT] != '-')))
        return false;
    t.sampled = flags & 1;
    t.state = state_ok(tracestate) ? tracestate : S("");
    span_make(&t);
    *out = t;
    return true;
}

void trace_text(const struct trace *t, char out[TRACE_TEXT])
{
    *out++ = '0';
    *out++ = '0';
    *out++ = '-';
    out = hex_write(out, t->id, sizeof t->id);
    *out++ = '-';
    out = hex_write(out, t->span, sizeof t->span);
    *out++ = '-';
    *out++ = '0';
    *out++ = t->sampled ? '1' : '0';
}

void trace_id_text(const struct trace *t, char out[TRACE_ID_TEXT])
{
    hex_write(out, t->id, sizeof t->id);
}
