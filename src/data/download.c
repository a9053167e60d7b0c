// SPDX-License-Identifier: Apache-2.0
/* download: the files of a version, as they are stored. */
#include "data/internal.h"

static err version_file_get(struct req *r)
{
    struct store *s = (struct store *)r->route->self;
    struct dataset_version_spec spec;
    struct str project = req_param(r, S("project")), name = req_param(r, S("name")), bytes;
    int64_t i;
    TRY(resource_get(s, r->a, &dataset_version_resource, project, name, NULL, &spec, NULL));
    if (!str_i64(req_param(r, S("index")), &i) || i < 0 || (size_t)i >= spec.files.n)
        FAIL(NOT_FOUND, "%.*s has %zu files, counted from 0", STR(name), spec.files.n);
    TRY(blob_get(store_blobs(s), r->a, ((const struct version_file *)spec.files.v)[i].sha, &bytes));
    return req_reply(r, 200, "application/vnd.apache.parquet", bytes);
}

const struct route version_file_route = {
    .method = M_GET,
    .path = "/api/v1/projects/{project}/datasetversions/{name}/files/{index}",
    .run = version_file_get,
    .may = "datasetversions.export",
    .tag = "data",
    .since = "0.1",
    .doc = "A Parquet file of a version, counted from 0.",
};
