// SPDX-License-Identifier: Apache-2.0
#include "net/internal.h"

const struct str method_names[M_COUNT] = {
    [M_GET] = S_INIT("GET"),         [M_HEAD] = S_INIT("HEAD"),   [M_POST] = S_INIT("POST"),
    [M_PUT] = S_INIT("PUT"),         [M_PATCH] = S_INIT("PATCH"), [M_DELETE] = S_INIT("DELETE"),
    [M_OPTIONS] = S_INIT("OPTIONS"),
};

enum method method_find(struct str name)
{
    for (enum method m = 0; m < M_COUNT; m++)
        if (str_eq(name, method_names[m]))
            return m;
    return M_COUNT;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

bool str_eq_ascii(struct str a, struct str b)
{
    if (a.n != b.n)
        return false;
    for (size_t i = 0; i < a.n; i++)
        if (lower(a.p[i]) != lower(b.p[i]))
            return false;
    return true;
}

struct str url_encode(struct arena *a, struct str s)
{
    static const char digits[] = "0123456789ABCDEF";
    char *p = arena_alloc(a, arena_mul(s.n, 3) + 1, 1);
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        bool plain = (c >= '0' && c <= '9') || (lower((char)c) >= 'a' && lower((char)c) <= 'z') ||
                     (c && strchr("-._~", c));
        if (plain) {
            p[n++] = (char)c;
        } else {
            p[n++] = '%';
            p[n++] = digits[c >> 4];
            p[n++] = digits[c & 15];
        }
    }
    return (struct str){ p, n };
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool percent_decode(struct arena *a, struct str s, bool plus, struct str *out)
{
    if (str_find(s, '%') == s.n && (!plus || str_find(s, '+') == s.n)) {
        *out = s;
        return true;
    }
    char *p = arena_alloc(a, s.n, 1);
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '%') {
            int hi = s.n - i > 2 ? hex_digit(s.p[i + 1]) : -1;
            int lo = hi < 0 ? -1 : hex_digit(s.p[i + 2]);
            if (lo < 0)
                return false;
            p[n++] = (char)(hi << 4 | lo);
            i += 2;
        } else {
            p[n++] = plus && s.p[i] == '+' ? ' ' : s.p[i];
        }
    }
    *out = (struct str){ p, n };
    return true;
}

/* Cuts ":port" off, if it is one. */
static bool host_split(struct str host, struct str *name, struct str *port)
{
    size_t end = 0;
    if (host.n && host.p[0] == '[') {
        end = str_find(host, ']');
        if (end == host.n)
            return false;
        end++;
    } else {
        end = str_find(host, ':');
    }
    *name = str_sub(host, 0, end);
    *port = S("");
    if (end == host.n)
        return name->n > 0;
    *port = str_sub(host, end + 1, host.n);
    if (host.p[end] != ':' || port->n > 5)
        return false;
    for (size_t i = 0; i < port->n; i++)
        if (port->p[i] < '0' || port->p[i] > '9')
            return false;
    return name->n > 0;
}

bool host_is_loopback(struct str host)
{
    struct str name, port;
    if (!host_split(host, &name, &port))
        return false;
    return str_eq_ascii(name, S("localhost")) || str_is(name, "127.0.0.1") || str_is(name, "[::1]");
}

bool host_is_sane(struct str host)
{
    struct str name, port;
    if (!host_split(host, &name, &port))
        return false;
    for (size_t i = 0; i < name.n; i++) {
        unsigned char c = (unsigned char)name.p[i];
        bool ok = (c >= '0' && c <= '9') || (lower((char)c) >= 'a' && lower((char)c) <= 'z') ||
                  (c && strchr("-._~%!$&'()*+,;=", c)) || (name.p[0] == '[' && strchr("[]:", c));
        if (!ok)
            return false;
    }
    return true;
}

bool origin_is_host(struct str origin, struct str host)
{
    static const struct str schemes[] = { S_INIT("http://"), S_INIT("https://") };
    for (size_t i = 0; i < 2; i++)
        if (str_starts(origin, schemes[i]))
            return str_eq_ascii(str_sub(origin, schemes[i].n, origin.n), host);
    return false;
}
