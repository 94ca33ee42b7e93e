/* Answers token ids with a bundle's model.onnx through ONNX Runtime's C API.
 *
 *   cc -O2 answer.c -I include -L lib -l:libonnxruntime.so.1 -Wl,-rpath,'$ORIGIN/lib' -o answer
 *   ./answer bundles/x/model.onnx 101 2026 4003 2003 2397 102
 *
 * It prints one line a label: its number in the manifest's "labels", and its logit. For a head of the kind "label" the
 * answer is the largest; docs/other-languages.md has the others.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "onnxruntime_c_api.h"

static const OrtApi *api;

static void check(OrtStatus *status) {
  if (status == NULL) return;
  fprintf(stderr, "Error: %s\n", api->GetErrorMessage(status));
  exit(1);
}

/* One row of int64, shape (1, tokens). */
static OrtValue *row(OrtMemoryInfo *memory, int64_t *values, int64_t tokens) {
  const int64_t shape[] = {1, tokens};
  OrtValue *tensor = NULL;
  check(api->CreateTensorWithDataAsOrtValue(memory, values, sizeof(int64_t) * (size_t)tokens, shape, 2,
                                            ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, &tensor));
  return tensor;
}

int main(int count, char **words) {
  if (count < 3) {
    fprintf(stderr, "Usage: answer MODEL ID...\n");
    return 2;
  }
  api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  if (api == NULL) {
    fprintf(stderr, "Error: the library is older than the header (ORT_API_VERSION %d)\n", ORT_API_VERSION);
    return 1;
  }

  const int64_t tokens = count - 2;
  int64_t *ids = malloc(sizeof *ids * (size_t)tokens), *mask = malloc(sizeof *mask * (size_t)tokens);
  int64_t *types = calloc((size_t)tokens, sizeof *types);
  for (int64_t place = 0; place < tokens; place++) {
    ids[place] = strtoll(words[place + 2], NULL, 10);
    mask[place] = 1; /* 0 for padding, where several texts of unlike lengths share a run */
  }

  OrtEnv *environment = NULL;
  OrtSessionOptions *options = NULL;
  OrtSession *session = NULL;
  OrtMemoryInfo *memory = NULL;
  check(api->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "edgetune", &environment));
  check(api->CreateSessionOptions(&options));
  check(api->SetIntraOpNumThreads(options, 1)); /* the manifest's "runtime" has what was fastest */
  check(api->CreateSession(environment, words[1], options, &session));
  check(api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));

  /* Inputs are fed by name: input_ids, attention_mask, and token_type_ids where the graph has it. */
  size_t inputs = 0;
  const char *names[3];
  OrtValue *values[3];
  OrtAllocator *allocator = NULL;
  check(api->GetAllocatorWithDefaultOptions(&allocator));
  check(api->SessionGetInputCount(session, &inputs));
  for (size_t input = 0; input < inputs && input < 3; input++) {
    char *name = NULL;
    check(api->SessionGetInputName(session, input, allocator, &name));
    names[input] = name;
    int64_t *content = strcmp(name, "input_ids") == 0 ? ids : strcmp(name, "attention_mask") == 0 ? mask : types;
    values[input] = row(memory, content, tokens);
  }

  const char *outputs[] = {"logits"};
  OrtValue *logits = NULL;
  check(api->Run(session, NULL, names, (const OrtValue *const *)values, inputs, outputs, 1, &logits));

  OrtTensorTypeAndShapeInfo *shape = NULL;
  size_t labels = 0;
  float *scores = NULL;
  check(api->GetTensorTypeAndShape(logits, &shape));
  check(api->GetTensorShapeElementCount(shape, &labels));
  check(api->GetTensorMutableData(logits, (void **)&scores));
  for (size_t label = 0; label < labels; label++) printf("%zu\t%.6f\n", label, scores[label]);
  return 0;
}
