/* pipeline, inside. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "pipeline/pipeline.h"

struct pipelines {
    struct pipelines_config cfg;
    struct control *control;
};

/* Index of the step of that name in a list of pipeline_step, or -1. */
int step_index(const struct list *steps, struct str name);
/* name empty: the pipeline's next number. CONFLICT if the run is there already. */
err run_start(struct store *, struct arena *a, struct str who, struct str project, struct str pipeline,
              struct str name, struct str event, const struct pairs *params, struct str *run);
