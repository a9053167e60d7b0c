// SPDX-License-Identifier: Apache-2.0
/* Functions of request features: one row each, for training rows and for requests alike. */
#include "feature/internal.h"

#define SECOND_US ((int64_t)1000000)
#define DAY_US (86400 * SECOND_US)

static int64_t floor_div(int64_t x, int64_t d)
{
    return x / d - (x % d < 0);
}
static int64_t of_day(int64_t t, int64_t unit)
{
    return (t - floor_div(t, DAY_US) * DAY_US) / unit;
}
static double f_value(int64_t t, double number)
{
    (void)t;
    return number;
}
static double f_log(int64_t t, double number)
{
    (void)t;
    return number < 0 ? (double)NAN : log1p(number);
}
static double f_hour(int64_t t, double number)
{
    (void)number;
    return (double)of_day(t, 3600 * SECOND_US);
}
static double f_minute(int64_t t, double number)
{
    (void)number;
    return (double)of_day(t, 60 * SECOND_US);
}
static double f_weekday(int64_t t, double number)
{
    (void)number;
    int64_t day = floor_div(t, DAY_US) + 3; /* 1970-01-01 was a Thursday; 0 is Monday */
    return (double)(day - floor_div(day, 7) * 7);
}
static double f_day(int64_t t, double number)
{
    (void)number;
    return civil_of(t).day;
}
static double f_month(int64_t t, double number)
{
    (void)number;
    return civil_of(t).month;
}

const struct request_function request_table[] = {
    { "value", false, f_value, "The number itself." },
    { "log", false, f_log, "The logarithm of 1 + the number; null below 0." },
    { "hour", true, f_hour, "Hour of the day, 0 to 23." },
    { "minuteOfDay", true, f_minute, "Minute of the day, 0 to 1439." },
    { "weekday", true, f_weekday, "Day of the week, 0 (Monday) to 6." },
    { "dayOfMonth", true, f_day, "Day of the month, 1 to 31." },
    { "month", true, f_month, "Month, 1 to 12." },
    { "text", false, NULL, "The text itself: a category. Trees do without it." },
    { 0 },
};
const size_t request_table_n = sizeof request_table / sizeof *request_table - 1;
const char *const request_functions[] = { "value",      "log",   "hour", "minuteOfDay", "weekday",
                                          "dayOfMonth", "month", "text", NULL };

bool request_is_text(const struct request_feature *r)
{
    return !request_table[r->function].of;
}

err request_bind(const struct request_feature *r, enum column_type type)
{
    bool time = request_table[r->function].of_time;
    if (request_is_text(r) ? type != COL_STR : time ? type != COL_TIME : type == COL_STR || type == COL_TIME)
        FAIL(INVALID, "request feature '%.*s': column '%.*s' is %s, %s wants %s", STR(r->name),
             STR(r->column), column_type_names[type], request_table[r->function].name,
             request_is_text(r) ? "a text"
             : time             ? "a time"
                                : "a number");
    return NULL;
}

err request_compute(const struct request_feature *r, const struct columns *table, const uint32_t *rows,
                    size_t n, double *out)
{
    const struct request_function *f = &request_table[r->function];
    const struct column *c;
    TRY_AS(columns_need(table, r->column, &c), "request feature '%.*s'", STR(r->name));
    TRY(request_bind(r, c->type));
    for (size_t i = 0; i < n; i++)
        if (column_null(c, rows[i]))
            out[i] = NAN;
        else
            out[i] = f->of_time ? f->of(c->i[rows[i]], 0) : f->of(0, column_f64(c, rows[i]));
    return NULL;
}
