// SPDX-License-Identifier: Apache-2.0
#include "cli/csv.h"

/* A cell that began with a quote; *rest is behind it. */
static err quoted(struct arena *a, struct str *rest, struct str *out)
{
    struct buf b = buf_new(a);
    for (;;) {
        size_t end = str_find(*rest, '"');
        if (end == rest->n)
            FAIL(INVALID, "a quote has no end: %.*s", STR(str_sub(*rest, 0, 40)));
        buf_str(&b, str_sub(*rest, 0, end));
        *rest = str_sub(*rest, end + 1, rest->n);
        if (!rest->n || rest->p[0] != '"')
            break;
        buf_str(&b, S("\""));
        *rest = str_sub(*rest, 1, rest->n);
    }
    *out = buf_get(&b);
    return NULL;
}

static size_t cell_end(struct str s)
{
    size_t i = 0;
    while (i < s.n && s.p[i] != ',' && s.p[i] != '\n' && s.p[i] != '\r')
        i++;
    return i;
}

bool csv_row(struct arena *a, struct str *rest, struct strs *out, err *wrong)
{
    out->n = 0;
    *wrong = NULL;
    while (rest->n && (rest->p[0] == '\n' || rest->p[0] == '\r'))
        *rest = str_sub(*rest, 1, rest->n);
    if (!rest->n)
        return false;
    for (bool more = true; more;) {
        struct str cell = S("");
        if (rest->n && rest->p[0] == '"') {
            *rest = str_sub(*rest, 1, rest->n);
            *wrong = quoted(a, rest, &cell);
            if (*wrong)
                return false;
        }
        size_t end = cell_end(*rest);
        push(a, out, cell.n ? cell : str_sub(*rest, 0, end));
        more = end < rest->n && rest->p[end] == ',';
        *rest = str_sub(*rest, end + more, rest->n);
    }
    return true;
}

struct str csv_text(struct arena *a, struct str s)
{
    size_t i = 0;
    while (i < s.n && s.p[i] != ',' && s.p[i] != '"' && s.p[i] != '\n' && s.p[i] != '\r')
        i++;
    if (i == s.n)
        return s;
    struct buf b = buf_new(a);
    buf_str(&b, S("\""));
    for (struct str part; str_cut(&s, '"', &part);)
        buf_fmt(&b, "%.*s%s", STR(part), s.n ? "\"\"" : "");
    buf_str(&b, S("\""));
    return buf_get(&b);
}
