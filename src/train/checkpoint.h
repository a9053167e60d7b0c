/* checkpoint: what a training needs to go on as if it had never stopped, in folders step-N/ that are whole or not there.
 * Layout   step-N/params.safetensors (what the model learned, by the graph's names), step-N/optim.safetensors (moments, averages),
 *          step-N/state.json (step, random streams, place in the data, …: the trainer's), step-N/manifest.json (bytes and
 *          SHA-256 of the others); best.json names the best step.
 * Flow     checkpoints_save copies the numbers at a step's boundary; a thread of its own writes them: a folder beside, fsync, rename,
 *          fsync. Then those that are neither among the last `keep` nor the best are removed.
 * Owns     its thread and one copy of the numbers.
 * Threads  one caller.
 * Errors   of the writer come back from the next save or from checkpoints_wait, once: FULL for a full disk; what was whole before
 *          stays whole. Loading: INVALID that names the first tensor which differs. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/engine.h"

/* One block of floats that belongs to a checkpoint: read when it is saved, written when it is loaded. */
struct checkpoint_tensor {
    struct str name;
    bool optim; /* in optim.safetensors, else in params.safetensors */
    size_t rank;
    int64_t dims[TENSOR_RANK_MAX];
    float *p;
};
struct checkpoint_tensors {
    VEC(struct checkpoint_tensor) v;
};

struct checkpoints;
/* Makes the folder, removes what a killed writer left half done. keep: the last so many stay, at least 1. */
err checkpoints_open(const char *dir, int keep, struct checkpoints **out);
/* state: a JSON object. best: this one is the best so far. If the one before is still being written: waits for it. INVALID, and
 * nothing is written, if what the model learned is no number any more: names the tensor and the step. */
err checkpoints_save(struct checkpoints *, int64_t step, const struct checkpoint_tensors *, struct str state,
                     bool best);
/* Until all that was saved is on the disk. */
err checkpoints_wait(struct checkpoints *);
/* Steps that are whole on the disk as far as this process knows: the last written; −1: none. */
int64_t checkpoints_last(struct checkpoints *);
void checkpoints_close(struct checkpoints *); /* waits; NULL is fine */

/* The newest folder that is whole (each file of the length and hash that the manifest says); NOT_FOUND. Those that are not are
 * named in *damaged, which may be NULL. */
err checkpoint_find(struct arena *a, const char *dir, const char **path, struct strs *damaged);
/* The folder that best.json names; NOT_FOUND. */
err checkpoint_best(struct arena *a, const char *dir, const char **path);
/* state.json's text. */
err checkpoint_state(struct arena *a, const char *path, struct str *out);
/* Fills the blocks. INVALID, before anything is filled, if a tensor is missing, of another shape, or too many. */
err checkpoint_load(const char *path, const struct checkpoint_tensors *);
