// SPDX-License-Identifier: Apache-2.0
#define SUITE ingest
#include "data/lab.h"

TEST(flights_whole, .timeout = 120)
{
    struct lab l = lab_open();
    struct str yaml;
    yyjson_val *out;
    NEED_FLIGHTS(&l);
    lab_copy(&l, lab_data(&l, "flights-3m.parquet"), "flights-3m.parquet");
    lab_copy(&l, lab_data(&l, "airports.csv"), "airports.csv");
    const char *demo = fmtz(l.a, "%s/../../examples/flights/dhow.yaml", lab_data(&l, "."));
    CHECK_OK(file_read(l.a, demo, 1 << 20, &yaml));
    CHECK_OK(lab_apply(&l, data_resources, yaml.p));
    int64_t t = mono_ns();
    CHECK_OK(lab_job(&l, &data_ingest, "{\"dataset\":\"flights\",\"until\":\"2001-05-01\"}", &out));
    printf("ingest: %.2f s, %.*s rows, %.*s bytes, %.*s rows/s\n", (double)(mono_ns() - t) / 1e9, STR(json_at(out, "rows")),
           STR(json_at(out, "bytes")), STR(json_at(out, "rowsPerSecond")));
    CHECK_STR(json_at(out, "version"), "flights.1");
    t = mono_ns();
    CHECK_OK(lab_job(&l, &data_ingest, "{\"dataset\":\"flights\",\"until\":\"2001-05-01\"}", &out));
    printf("again: %.2f s\n", (double)(mono_ns() - t) / 1e9);
    CHECK_STR(json_at(out, "version"), "flights.1");
    CHECK_OK(lab_job(&l, &data_ingest, "{\"dataset\":\"flights\"}", &out));
    CHECK_STR(json_at(out, "version"), "flights.2");
    printf("whole: %.*s rows, %.*s rows/s\n", STR(json_at(out, "rows")), STR(json_at(out, "rowsPerSecond")));
    lab_close(&l);
}
