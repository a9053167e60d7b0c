// SPDX-License-Identifier: Apache-2.0
/* The messages of inference.GRPCInferenceService (Open Inference Protocol and Triton's extensions).
 * Names and numbers are the protocol's: they never change. Of ModelConfig those fields are here that a model of ours
 * can have. */
#include "serve/proto.h"

// clang-format off
#define SINGLE PROTO_SINGLE
#define LIST PROTO_LIST
#define CHOICE PROTO_CHOICE
#define F(name, number, type, ...)   { #name, number, PROTO_##type, __VA_ARGS__ }
#define PART(name, number, message)  { #name, number, PROTO_MESSAGE, PROTO_SINGLE, &message }
#define PARTS(name, number, message) { #name, number, PROTO_MESSAGE, PROTO_LIST, &message }
#define PICK(name, number, message)  { #name, number, PROTO_MESSAGE, PROTO_CHOICE, &message }
#define MAP(name, number, message)   { #name, number, PROTO_MESSAGE, PROTO_MAP, &message }
#define TEXTS(name, number)          { #name, number, PROTO_TEXT, PROTO_MAP }
#define ENUM(name, number, list)     { #name, number, PROTO_ENUM, PROTO_SINGLE, .values = &list }

#define ENUMS(id, name, ...) \
    static const struct proto_enum e_##id = { name, (const char *const[]){ __VA_ARGS__, NULL } }
#define TABLE(id, name, choice, plain, ...) \
    static const struct proto_message m_##id = { name, (const struct proto_field[]){ __VA_ARGS__ { 0 } }, choice, plain }
#define EMPTY(id, name)               TABLE(id, name, NULL, false, )
#define MESSAGE(id, name, ...)        TABLE(id, name, NULL, false, __VA_ARGS__,)
#define CHOOSE(id, name, choice, ...) TABLE(id, name, choice, false, __VA_ARGS__,)
#define PLAIN(id, name, choice, ...)  TABLE(id, name, choice, true, __VA_ARGS__,)

ENUMS(DataType, "DataType", "TYPE_INVALID", "TYPE_BOOL", "TYPE_UINT8", "TYPE_UINT16", "TYPE_UINT32",
      "TYPE_UINT64", "TYPE_INT8", "TYPE_INT16", "TYPE_INT32", "TYPE_INT64", "TYPE_FP16", "TYPE_FP32",
      "TYPE_FP64", "TYPE_STRING", "TYPE_BF16");
ENUMS(ModelInput_Format, "ModelInput.Format", "FORMAT_NONE", "FORMAT_NHWC", "FORMAT_NCHW");
ENUMS(ModelQueuePolicy_TimeoutAction, "ModelQueuePolicy.TimeoutAction", "REJECT", "DELAY");
ENUMS(ModelSequenceBatching_Control_Kind, "ModelSequenceBatching.Control.Kind", "CONTROL_SEQUENCE_START",
      "CONTROL_SEQUENCE_READY", "CONTROL_SEQUENCE_END", "CONTROL_SEQUENCE_CORRID");
ENUMS(ModelInstanceGroup_Kind, "ModelInstanceGroup.Kind", "KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL");
EMPTY(ServerLiveRequest, "ServerLiveRequest");
MESSAGE(ServerLiveResponse, "ServerLiveResponse", F(live, 1, BOOL));
EMPTY(ServerReadyRequest, "ServerReadyRequest");
MESSAGE(ServerReadyResponse, "ServerReadyResponse", F(ready, 1, BOOL));
MESSAGE(ModelReadyRequest, "ModelReadyRequest", F(name, 1, TEXT), F(version, 2, TEXT));
MESSAGE(ModelReadyResponse, "ModelReadyResponse", F(ready, 1, BOOL));
EMPTY(ServerMetadataRequest, "ServerMetadataRequest");
MESSAGE(ServerMetadataResponse, "ServerMetadataResponse", F(name, 1, TEXT),
        F(version, 2, TEXT), F(extensions, 3, TEXT, LIST));
MESSAGE(ModelMetadataRequest, "ModelMetadataRequest", F(name, 1, TEXT),
        F(version, 2, TEXT));
MESSAGE(ModelMetadataResponse_TensorMetadata, "ModelMetadataResponse.TensorMetadata",
        F(name, 1, TEXT), F(datatype, 2, TEXT), F(shape, 3, I64, LIST));
MESSAGE(ModelMetadataResponse, "ModelMetadataResponse", F(name, 1, TEXT),
        F(versions, 2, TEXT, LIST), F(platform, 3, TEXT),
        PARTS(inputs, 4, m_ModelMetadataResponse_TensorMetadata),
        PARTS(outputs, 5, m_ModelMetadataResponse_TensorMetadata));
PLAIN(InferParameter, "InferParameter", "parameter_choice", F(bool_param, 1, BOOL, CHOICE),
        F(int64_param, 2, I64, CHOICE), F(string_param, 3, TEXT, CHOICE), F(double_param, 4, F64, CHOICE),
        F(uint64_param, 5, U64, CHOICE));
MESSAGE(InferTensorContents, "InferTensorContents", F(bool_contents, 1, BOOL, LIST),
        F(int_contents, 2, I32, LIST), F(int64_contents, 3, I64, LIST), F(uint_contents, 4, U32, LIST),
        F(uint64_contents, 5, U64, LIST), F(fp32_contents, 6, F32, LIST), F(fp64_contents, 7, F64, LIST),
        F(bytes_contents, 8, BYTES, LIST));
MESSAGE(ModelInferRequest_InferInputTensor, "ModelInferRequest.InferInputTensor",
        F(name, 1, TEXT), F(datatype, 2, TEXT), F(shape, 3, I64, LIST),
        MAP(parameters, 4, m_InferParameter), PART(contents, 5, m_InferTensorContents));
MESSAGE(ModelInferRequest_InferRequestedOutputTensor, "ModelInferRequest.InferRequestedOutputTensor",
        F(name, 1, TEXT), MAP(parameters, 2, m_InferParameter));
MESSAGE(ModelInferRequest, "ModelInferRequest", F(model_name, 1, TEXT),
        F(model_version, 2, TEXT), F(id, 3, TEXT), MAP(parameters, 4, m_InferParameter),
        PARTS(inputs, 5, m_ModelInferRequest_InferInputTensor),
        PARTS(outputs, 6, m_ModelInferRequest_InferRequestedOutputTensor),
        F(raw_input_contents, 7, BYTES, LIST));
MESSAGE(ModelInferResponse_InferOutputTensor, "ModelInferResponse.InferOutputTensor",
        F(name, 1, TEXT), F(datatype, 2, TEXT), F(shape, 3, I64, LIST),
        MAP(parameters, 4, m_InferParameter), PART(contents, 5, m_InferTensorContents));
MESSAGE(ModelInferResponse, "ModelInferResponse", F(model_name, 1, TEXT),
        F(model_version, 2, TEXT), F(id, 3, TEXT), MAP(parameters, 4, m_InferParameter),
        PARTS(outputs, 5, m_ModelInferResponse_InferOutputTensor), F(raw_output_contents, 6, BYTES, LIST));
MESSAGE(ModelStreamInferResponse, "ModelStreamInferResponse", F(error_message, 1, TEXT),
        PART(infer_response, 2, m_ModelInferResponse));
MESSAGE(ModelConfigRequest, "ModelConfigRequest", F(name, 1, TEXT), F(version, 2, TEXT));
MESSAGE(ModelVersionPolicy_Latest, "ModelVersionPolicy.Latest", F(num_versions, 1, U32));
EMPTY(ModelVersionPolicy_All, "ModelVersionPolicy.All");
MESSAGE(ModelVersionPolicy_Specific, "ModelVersionPolicy.Specific", F(versions, 1, I64, LIST));
CHOOSE(ModelVersionPolicy, "ModelVersionPolicy", "policy_choice",
        PICK(latest, 1, m_ModelVersionPolicy_Latest), PICK(all, 2, m_ModelVersionPolicy_All),
        PICK(specific, 3, m_ModelVersionPolicy_Specific));
MESSAGE(ModelInput, "ModelInput", F(name, 1, TEXT), ENUM(data_type, 2, e_DataType),
        ENUM(format, 3, e_ModelInput_Format), F(dims, 4, I64, LIST), F(is_shape_tensor, 6, BOOL),
        F(allow_ragged_batch, 7, BOOL), F(optional, 8, BOOL),
        F(is_non_linear_format_io, 9, BOOL));
MESSAGE(ModelOutput, "ModelOutput", F(name, 1, TEXT), ENUM(data_type, 2, e_DataType),
        F(dims, 3, I64, LIST), F(label_filename, 4, TEXT), F(is_shape_tensor, 6, BOOL),
        F(is_non_linear_format_io, 7, BOOL));
MESSAGE(ModelQueuePolicy, "ModelQueuePolicy", ENUM(timeout_action, 1, e_ModelQueuePolicy_TimeoutAction),
        F(default_timeout_microseconds, 2, U64), F(allow_timeout_override, 3, BOOL),
        F(max_queue_size, 4, U32));
MESSAGE(ModelDynamicBatching, "ModelDynamicBatching", F(preferred_batch_size, 1, I32, LIST),
        F(max_queue_delay_microseconds, 2, U64), F(preserve_ordering, 3, BOOL),
        F(priority_levels, 4, U64), F(default_priority_level, 5, U64),
        PART(default_queue_policy, 6, m_ModelQueuePolicy));
MESSAGE(ModelSequenceBatching_StrategyDirect, "ModelSequenceBatching.StrategyDirect",
        F(max_queue_delay_microseconds, 1, U64), F(minimum_slot_utilization, 2, F32));
MESSAGE(ModelSequenceBatching_StrategyOldest, "ModelSequenceBatching.StrategyOldest",
        F(max_candidate_sequences, 1, I32), F(preferred_batch_size, 2, I32, LIST),
        F(max_queue_delay_microseconds, 3, U64), F(preserve_ordering, 4, BOOL));
MESSAGE(ModelSequenceBatching_Control, "ModelSequenceBatching.Control",
        ENUM(kind, 1, e_ModelSequenceBatching_Control_Kind), F(int32_false_true, 2, I32, LIST),
        F(fp32_false_true, 3, F32, LIST), F(bool_false_true, 5, BOOL, LIST),
        ENUM(data_type, 4, e_DataType));
MESSAGE(ModelSequenceBatching_ControlInput, "ModelSequenceBatching.ControlInput",
        F(name, 1, TEXT), PARTS(control, 2, m_ModelSequenceBatching_Control));
CHOOSE(ModelSequenceBatching_InitialState, "ModelSequenceBatching.InitialState", "state_data",
        ENUM(data_type, 1, e_DataType), F(dims, 2, I64, LIST), F(zero_data, 3, BOOL, CHOICE),
        F(data_file, 4, TEXT, CHOICE), F(name, 5, TEXT));
MESSAGE(ModelSequenceBatching_State, "ModelSequenceBatching.State", F(input_name, 1, TEXT),
        F(output_name, 2, TEXT), ENUM(data_type, 3, e_DataType), F(dims, 4, I64, LIST),
        PARTS(initial_state, 5, m_ModelSequenceBatching_InitialState),
        F(use_same_buffer_for_input_output, 6, BOOL), F(use_growable_memory, 7, BOOL));
CHOOSE(ModelSequenceBatching, "ModelSequenceBatching", "strategy_choice",
        PICK(direct, 3, m_ModelSequenceBatching_StrategyDirect),
        PICK(oldest, 4, m_ModelSequenceBatching_StrategyOldest),
        F(max_sequence_idle_microseconds, 1, U64),
        PARTS(control_input, 2, m_ModelSequenceBatching_ControlInput),
        PARTS(state, 5, m_ModelSequenceBatching_State), F(iterative_sequence, 6, BOOL));
MESSAGE(ModelEnsembling_Step, "ModelEnsembling.Step", F(model_name, 1, TEXT),
        F(model_version, 2, I64), TEXTS(input_map, 3), TEXTS(output_map, 4),
        F(model_namespace, 5, TEXT));
MESSAGE(ModelEnsembling, "ModelEnsembling", PARTS(step, 1, m_ModelEnsembling_Step),
        F(max_inflight_requests, 2, U32));
MESSAGE(ModelInstanceGroup, "ModelInstanceGroup", F(name, 1, TEXT),
        ENUM(kind, 4, e_ModelInstanceGroup_Kind), F(count, 2, I32), F(gpus, 3, I32, LIST),
        F(profile, 5, TEXT, LIST), F(passive, 7, BOOL), F(host_policy, 9, TEXT));
MESSAGE(ModelParameter, "ModelParameter", F(string_value, 1, TEXT));
MESSAGE(ModelTransactionPolicy, "ModelTransactionPolicy", F(decoupled, 1, BOOL));
MESSAGE(ModelResponseCache, "ModelResponseCache", F(enable, 1, BOOL));
CHOOSE(ModelConfig, "ModelConfig", "scheduling_choice", F(name, 1, TEXT),
        F(platform, 2, TEXT), F(backend, 17, TEXT), F(runtime, 25, TEXT),
        PART(version_policy, 3, m_ModelVersionPolicy), F(max_batch_size, 4, I32),
        PARTS(input, 5, m_ModelInput), PARTS(output, 6, m_ModelOutput),
        PICK(dynamic_batching, 11, m_ModelDynamicBatching),
        PICK(sequence_batching, 13, m_ModelSequenceBatching),
        PICK(ensemble_scheduling, 15, m_ModelEnsembling), PARTS(instance_group, 7, m_ModelInstanceGroup),
        F(default_model_filename, 8, TEXT), TEXTS(cc_model_filenames, 9), TEXTS(metric_tags, 10),
        MAP(parameters, 14, m_ModelParameter),
        PART(model_transaction_policy, 19, m_ModelTransactionPolicy),
        PART(response_cache, 24, m_ModelResponseCache));
MESSAGE(ModelConfigResponse, "ModelConfigResponse", PART(config, 1, m_ModelConfig));
MESSAGE(ModelStatisticsRequest, "ModelStatisticsRequest", F(name, 1, TEXT),
        F(version, 2, TEXT));
MESSAGE(StatisticDuration, "StatisticDuration", F(count, 1, U64), F(ns, 2, U64));
MESSAGE(InferStatistics, "InferStatistics", PART(success, 1, m_StatisticDuration),
        PART(fail, 2, m_StatisticDuration), PART(queue, 3, m_StatisticDuration),
        PART(compute_input, 4, m_StatisticDuration), PART(compute_infer, 5, m_StatisticDuration),
        PART(compute_output, 6, m_StatisticDuration), PART(cache_hit, 7, m_StatisticDuration),
        PART(cache_miss, 8, m_StatisticDuration));
MESSAGE(InferResponseStatistics, "InferResponseStatistics", PART(compute_infer, 1, m_StatisticDuration),
        PART(compute_output, 2, m_StatisticDuration), PART(success, 3, m_StatisticDuration),
        PART(fail, 4, m_StatisticDuration), PART(empty_response, 5, m_StatisticDuration),
        PART(cancel, 6, m_StatisticDuration));
MESSAGE(InferBatchStatistics, "InferBatchStatistics", F(batch_size, 1, U64),
        PART(compute_input, 2, m_StatisticDuration), PART(compute_infer, 3, m_StatisticDuration),
        PART(compute_output, 4, m_StatisticDuration));
MESSAGE(MemoryUsage, "MemoryUsage", F(type, 1, TEXT), F(id, 2, I64),
        F(byte_size, 3, U64));
MESSAGE(ModelStatistics, "ModelStatistics", F(name, 1, TEXT), F(version, 2, TEXT),
        F(last_inference, 3, U64), F(inference_count, 4, U64),
        F(execution_count, 5, U64), PART(inference_stats, 6, m_InferStatistics),
        PARTS(batch_stats, 7, m_InferBatchStatistics), PARTS(memory_usage, 8, m_MemoryUsage),
        MAP(response_stats, 9, m_InferResponseStatistics));
MESSAGE(ModelStatisticsResponse, "ModelStatisticsResponse", PARTS(model_stats, 1, m_ModelStatistics));
PLAIN(ModelRepositoryParameter, "ModelRepositoryParameter", "parameter_choice",
        F(bool_param, 1, BOOL, CHOICE), F(int64_param, 2, I64, CHOICE), F(string_param, 3, TEXT, CHOICE),
        F(bytes_param, 4, BYTES, CHOICE));
MESSAGE(RepositoryIndexRequest, "RepositoryIndexRequest", F(repository_name, 1, TEXT),
        F(ready, 2, BOOL));
MESSAGE(RepositoryIndexResponse_ModelIndex, "RepositoryIndexResponse.ModelIndex",
        F(name, 1, TEXT), F(version, 2, TEXT), F(state, 3, TEXT),
        F(reason, 4, TEXT));
MESSAGE(RepositoryIndexResponse, "RepositoryIndexResponse",
        PARTS(models, 1, m_RepositoryIndexResponse_ModelIndex));
MESSAGE(RepositoryModelLoadRequest, "RepositoryModelLoadRequest", F(repository_name, 1, TEXT),
        F(model_name, 2, TEXT), MAP(parameters, 3, m_ModelRepositoryParameter));
EMPTY(RepositoryModelLoadResponse, "RepositoryModelLoadResponse");
MESSAGE(RepositoryModelUnloadRequest, "RepositoryModelUnloadRequest", F(repository_name, 1, TEXT),
        F(model_name, 2, TEXT), MAP(parameters, 3, m_ModelRepositoryParameter));
EMPTY(RepositoryModelUnloadResponse, "RepositoryModelUnloadResponse");
MESSAGE(SystemSharedMemoryStatusRequest, "SystemSharedMemoryStatusRequest", F(name, 1, TEXT));
MESSAGE(SystemSharedMemoryStatusResponse_RegionStatus, "SystemSharedMemoryStatusResponse.RegionStatus",
        F(name, 1, TEXT), F(key, 2, TEXT), F(offset, 3, U64),
        F(byte_size, 4, U64));
MESSAGE(SystemSharedMemoryStatusResponse, "SystemSharedMemoryStatusResponse",
        MAP(regions, 1, m_SystemSharedMemoryStatusResponse_RegionStatus));
MESSAGE(SystemSharedMemoryRegisterRequest, "SystemSharedMemoryRegisterRequest", F(name, 1, TEXT),
        F(key, 2, TEXT), F(offset, 3, U64), F(byte_size, 4, U64));
EMPTY(SystemSharedMemoryRegisterResponse, "SystemSharedMemoryRegisterResponse");
MESSAGE(SystemSharedMemoryUnregisterRequest, "SystemSharedMemoryUnregisterRequest",
        F(name, 1, TEXT));
EMPTY(SystemSharedMemoryUnregisterResponse, "SystemSharedMemoryUnregisterResponse");
MESSAGE(CudaSharedMemoryStatusRequest, "CudaSharedMemoryStatusRequest", F(name, 1, TEXT));
MESSAGE(CudaSharedMemoryStatusResponse_RegionStatus, "CudaSharedMemoryStatusResponse.RegionStatus",
        F(name, 1, TEXT), F(device_id, 2, U64), F(byte_size, 3, U64));
MESSAGE(CudaSharedMemoryStatusResponse, "CudaSharedMemoryStatusResponse",
        MAP(regions, 1, m_CudaSharedMemoryStatusResponse_RegionStatus));
MESSAGE(CudaSharedMemoryRegisterRequest, "CudaSharedMemoryRegisterRequest", F(name, 1, TEXT),
        F(raw_handle, 2, BYTES), F(device_id, 3, I64), F(byte_size, 4, U64));
EMPTY(CudaSharedMemoryRegisterResponse, "CudaSharedMemoryRegisterResponse");
MESSAGE(CudaSharedMemoryUnregisterRequest, "CudaSharedMemoryUnregisterRequest", F(name, 1, TEXT));
EMPTY(CudaSharedMemoryUnregisterResponse, "CudaSharedMemoryUnregisterResponse");
PLAIN(TraceSettingRequest_SettingValue, "TraceSettingRequest.SettingValue", NULL, F(value, 1, TEXT, LIST));
MESSAGE(TraceSettingRequest, "TraceSettingRequest", MAP(settings, 1, m_TraceSettingRequest_SettingValue),
        F(model_name, 2, TEXT));
PLAIN(TraceSettingResponse_SettingValue, "TraceSettingResponse.SettingValue", NULL,
        F(value, 1, TEXT, LIST));
MESSAGE(TraceSettingResponse, "TraceSettingResponse",
        MAP(settings, 1, m_TraceSettingResponse_SettingValue));
PLAIN(LogSettingsRequest_SettingValue, "LogSettingsRequest.SettingValue", "parameter_choice",
        F(bool_param, 1, BOOL, CHOICE), F(uint32_param, 2, U32, CHOICE), F(string_param, 3, TEXT, CHOICE));
MESSAGE(LogSettingsRequest, "LogSettingsRequest", MAP(settings, 1, m_LogSettingsRequest_SettingValue));
PLAIN(LogSettingsResponse_SettingValue, "LogSettingsResponse.SettingValue", "parameter_choice",
        F(bool_param, 1, BOOL, CHOICE), F(uint32_param, 2, U32, CHOICE), F(string_param, 3, TEXT, CHOICE));
MESSAGE(LogSettingsResponse, "LogSettingsResponse", MAP(settings, 1, m_LogSettingsResponse_SettingValue));

static const struct proto_message *const messages[] = {
    &m_ServerLiveRequest, &m_ServerLiveResponse, &m_ServerReadyRequest, &m_ServerReadyResponse,
    &m_ModelReadyRequest, &m_ModelReadyResponse, &m_ServerMetadataRequest, &m_ServerMetadataResponse,
    &m_ModelMetadataRequest, &m_ModelMetadataResponse_TensorMetadata, &m_ModelMetadataResponse,
    &m_InferParameter, &m_InferTensorContents, &m_ModelInferRequest_InferInputTensor,
    &m_ModelInferRequest_InferRequestedOutputTensor, &m_ModelInferRequest,
    &m_ModelInferResponse_InferOutputTensor, &m_ModelInferResponse, &m_ModelStreamInferResponse,
    &m_ModelConfigRequest, &m_ModelVersionPolicy_Latest, &m_ModelVersionPolicy_All,
    &m_ModelVersionPolicy_Specific, &m_ModelVersionPolicy, &m_ModelInput, &m_ModelOutput, &m_ModelQueuePolicy,
    &m_ModelDynamicBatching, &m_ModelSequenceBatching_StrategyDirect, &m_ModelSequenceBatching_StrategyOldest,
    &m_ModelSequenceBatching_Control, &m_ModelSequenceBatching_ControlInput,
    &m_ModelSequenceBatching_InitialState, &m_ModelSequenceBatching_State, &m_ModelSequenceBatching,
    &m_ModelEnsembling_Step, &m_ModelEnsembling, &m_ModelInstanceGroup, &m_ModelParameter,
    &m_ModelTransactionPolicy, &m_ModelResponseCache, &m_ModelConfig, &m_ModelConfigResponse,
    &m_ModelStatisticsRequest, &m_StatisticDuration, &m_InferStatistics, &m_InferResponseStatistics,
    &m_InferBatchStatistics, &m_MemoryUsage, &m_ModelStatistics, &m_ModelStatisticsResponse,
    &m_ModelRepositoryParameter, &m_RepositoryIndexRequest, &m_RepositoryIndexResponse_ModelIndex,
    &m_RepositoryIndexResponse, &m_RepositoryModelLoadRequest, &m_RepositoryModelLoadResponse,
    &m_RepositoryModelUnloadRequest, &m_RepositoryModelUnloadResponse, &m_SystemSharedMemoryStatusRequest,
    &m_SystemSharedMemoryStatusResponse_RegionStatus, &m_SystemSharedMemoryStatusResponse,
    &m_SystemSharedMemoryRegisterRequest, &m_SystemSharedMemoryRegisterResponse,
    &m_SystemSharedMemoryUnregisterRequest, &m_SystemSharedMemoryUnregisterResponse,
    &m_CudaSharedMemoryStatusRequest, &m_CudaSharedMemoryStatusResponse_RegionStatus,
    &m_CudaSharedMemoryStatusResponse, &m_CudaSharedMemoryRegisterRequest, &m_CudaSharedMemoryRegisterResponse,
    &m_CudaSharedMemoryUnregisterRequest, &m_CudaSharedMemoryUnregisterResponse,
    &m_TraceSettingRequest_SettingValue, &m_TraceSettingRequest, &m_TraceSettingResponse_SettingValue,
    &m_TraceSettingResponse, &m_LogSettingsRequest_SettingValue, &m_LogSettingsRequest,
    &m_LogSettingsResponse_SettingValue, &m_LogSettingsResponse, NULL
};
static const struct proto_enum *const enums[] = {
    &e_DataType, &e_ModelInput_Format, &e_ModelQueuePolicy_TimeoutAction, &e_ModelSequenceBatching_Control_Kind, &e_ModelInstanceGroup_Kind, NULL
};
#define METHOD(name) { #name, #name "Request", #name "Response", false, false }
static const struct proto_method methods[] = {
    METHOD(ServerLive), METHOD(ServerReady), METHOD(ModelReady), METHOD(ServerMetadata), METHOD(ModelMetadata),
    METHOD(ModelInfer), { "ModelStreamInfer", "ModelInferRequest", "ModelStreamInferResponse", true, true },
    METHOD(ModelConfig), METHOD(ModelStatistics), METHOD(RepositoryIndex), METHOD(RepositoryModelLoad),
    METHOD(RepositoryModelUnload), METHOD(SystemSharedMemoryStatus), METHOD(SystemSharedMemoryRegister),
    METHOD(SystemSharedMemoryUnregister), METHOD(CudaSharedMemoryStatus), METHOD(CudaSharedMemoryRegister),
    METHOD(CudaSharedMemoryUnregister), METHOD(TraceSetting), METHOD(LogSettings), { 0 },
};
const struct proto_file proto_inference = { "grpc_service.proto", "inference", "GRPCInferenceService",
                                            messages, enums, methods };
// clang-format on
