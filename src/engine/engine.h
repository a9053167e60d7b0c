/* engine: pure compute, no I/O: ONNX bytes, tree ensembles, metrics, baselines and sketches.
 * Flow     trained trees --trees_to_onnx--> bytes --onnx_check--> facts; rows --baseline_make--> baseline
 *          --sketch_init, sketch_add--> sketch --sketch_wasserstein/psi--> drift.
 * Owns     nothing; what is made lives in the arena given.
 * Threads  any; a struct sketch belongs to one thread at a time.
 * Errors   INVALID (foreign bytes break a rule; the text names the node or tensor), TOO_LARGE (over a limit).
 * One header for users; the parts are engine/<part>.h. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/baseline.h"
#include "engine/cpu/onednn.h"
#include "engine/forest.h"
#include "engine/gather.h"
#include "engine/graph.h"
#include "engine/metrics.h"
#include "engine/onnx.h"
#include "engine/ops.h"
#include "engine/program.h"
#include "engine/safetensors.h"
#include "engine/sequential.h"
#include "engine/stream_metrics.h"
#include "engine/team.h"
#include "engine/tensor.h"
#include "engine/trees.h"
